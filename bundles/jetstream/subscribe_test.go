package jetstream_test

import (
	"sync"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/policy"
)

// The broker refuses a subscription, or drops one when it is told of other
// permissions, and does not give it back when that is mended.
func TestASubscriptionThatTheBrokerRefusedIsMadeAgainWhenItIsPermitted(t *testing.T) {
	const heard = "hear.boutique.head"
	for name, slip := range map[string]bool{"the guardrail comes late": false, "a slip is reloaded": true} {
		t.Run(name, func(t *testing.T) {
			var users []jetstream.User
			creds := map[string]jetstream.Credentials{}
			for _, p := range principals[:2] {
				c, err := jetstream.NewCredentials(p.Name)
				if err != nil {
					t.Fatal(err)
				}
				creds[p.Name] = c
				users = append(users, jetstream.User{Principal: p, Key: c.Key()})
			}
			config := func(guardrails ...policy.Namespace) []byte {
				t.Helper()
				users[1].Guardrails = guardrails
				config, err := jetstream.Accounts{Domain: domain, Users: users}.Config()
				if err != nil {
					t.Fatal(err)
				}
				return config
			}
			first := config()
			if slip {
				first = config(shop)
			}
			// nats-server is not free of data races when it reloads.
			url, reload, _ := childWith(t, t.TempDir(), first)
			g := (&guarded{url: url, creds: creds}).open(t, 1)
			seq := mustPut(t, g.store, shop, note(shop, 1), []byte("one"), 0)

			u, clock, fault := g.connect(t, "cart-1"), newClock(), new(jetstream.Fault)
			fault.Tell(jetstream.Connected{})
			f := startFollower(t, "", jetstream.FollowConfig{
				Conn: u.Conn, As: jetstream.Client, Namespaces: []policy.Namespace{cart, shop}, Poll: 24 * time.Hour, After: clock.after, Events: fault.Tell,
			}, nil)
			var telling sync.WaitGroup
			t.Cleanup(telling.Wait)
			telling.Go(func() {
				for {
					select {
					case e := <-u.events:
						fault.Tell(e)
						f.Tell(e)
					case <-t.Context().Done():
						return
					}
				}
			})
			poll := func() {
				t.Helper()
				clock.fire(t, func(d time.Duration) bool { return d > time.Hour })
			}
			if slip {
				f.wantOffer(t, note(shop, 1), []byte("one"))
				f.wantSynced(t)
				reload(config())
			}
			wantEvent(t, f.events, func(e jetstream.Deaf) bool { return e.Subject == heard && e.Err != nil })
			if slip {
				wantKind(t, fault.Err(), policy.Denied, heard, "cart-1", "microwall nats-config")
			} else if fault.Err() == nil {
				t.Error("nothing is said to be wrong")
			}

			reload(config(shop))
			seq = mustPut(t, g.store, shop, note(shop, 2), []byte("two"), seq)
			poll()
			f.wantOffer(t, note(shop, 2), []byte("two"))
			seq = mustPut(t, g.store, shop, note(shop, 3), []byte("three"), seq)
			f.wantOffer(t, note(shop, 3), []byte("three"))
			if e := wantEvent(t, f.events, func(e jetstream.HeadSeen) bool { return e.Seq == seq }); !e.Pushed {
				t.Error("it was not pushed")
			}
			poll()
			wantEvent(t, f.events, func(e jetstream.Deaf) bool { return e.Subject == heard && e.Err == nil })
			if err := fault.Err(); err != nil {
				t.Errorf("still said to be wrong: %v", err)
			}
		})
	}
}
