package jetstream_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/jetstream"
)

// The clients of a broker lose it at one moment. They do not all come back at one
// moment, nor at once: that would be the end of a broker that is just there again.
func TestClientsThatLoseTheirBrokerComeBackOneByOne(t *testing.T) {
	for name, addresses := range map[string]int{"one server": 1, "of several servers": 3} {
		t.Run(name, func(t *testing.T) {
			url := serve(t).URL()
			var proxies []*proxy
			var urls []string
			for range addresses {
				p := newProxy(t, url, "", nil)
				proxies, urls = append(proxies, p), append(urls, p.url())
			}
			const many = 24
			connected := make(chan time.Time, 10*many)
			for range many {
				nc, err := jetstream.Connect(t.Context(), strings.Join(urls, ","), jetstream.ConnectOptions{Events: func(e jetstream.Event) {
					if _, ok := e.(jetstream.Connected); ok {
						connected <- time.Now()
					}
				}})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(nc.Close)
				receive(t, connected, "a client")
			}
			lost := time.Now()
			for _, p := range proxies {
				p.cut()
			}
			var after []time.Duration
			for range many {
				after = append(after, receive(t, connected, "a client that comes back").Sub(lost))
			}
			slices.Sort(after)
			t.Logf("they are back after %s to %s, half of them after %s", after[0], after[many-1], after[many/2])
			// The first pause is 100 ms, half of that more or less.
			if after[0] < 50*time.Millisecond {
				t.Errorf("the first one is back after %s", after[0])
			}
			if spread := after[many-1] - after[0]; spread < 25*time.Millisecond {
				t.Errorf("all are back within %s", spread)
			}
		})
	}
}

// Nor do those ask for all heads at one moment who were started at one moment.
func TestThePollsOfManyFollowersAreSpread(t *testing.T) {
	url := serve(t).URL()
	openStore(t, url)
	clock := newClock()
	startFollower(t, url, jetstream.FollowConfig{Namespaces: cartOnly, Poll: time.Hour, After: clock.after}, nil)
	var all []time.Duration
	for range 20 {
		all = append(all, clock.fire(t, func(d time.Duration) bool { return d > time.Minute }))
	}
	slices.Sort(all)
	if least, most := all[0], all[len(all)-1]; least < 30*time.Minute || most > 90*time.Minute || most-least < 15*time.Minute {
		t.Errorf("polls every hour come after %s to %s", least, most)
	}
}
