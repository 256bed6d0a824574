package jetstream_test

import (
	"testing"

	"github.com/microwall/microwall/bundles/jetstream"
)

// What was tried in vain while all servers were out says nothing about them later:
// a client that finds one of them, and loses it, goes to the other at once.
func TestAClientDoesNotKnockAtADeadServerBecauseOfAnEarlierOutage(t *testing.T) {
	url := serve(t).URL()
	a, b := newProxy(t, url, "", nil), newProxy(t, url, "", nil)
	events := make(chan jetstream.Event, 1000)
	nc, err := jetstream.Connect(t.Context(), a.url()+","+b.url(), jetstream.ConnectOptions{Events: func(e jetstream.Event) { events <- e }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	at := func(p *proxy) {
		t.Helper()
		if e := wantEvent[jetstream.Connected](t, events, nil); p != nil && e.URL != p.url() {
			t.Fatalf("connected to %s, want %s", e.URL, p.url())
		}
	}
	at(nil)

	for _, p := range []*proxy{a, b} {
		p.down.Store(true)
	}
	a.cut()
	b.cut()
	for a.knocks.Load() < 3 || b.knocks.Load() < 3 {
		wantEvent[jetstream.BrokerError](t, events, nil)
	}
	a.down.Store(false)
	at(a)

	b.down.Store(false)
	a.down.Store(true)
	before := a.knocks.Load()
	a.cut()
	at(b)
	if n := a.knocks.Load() - before; n > 0 {
		t.Errorf("it knocked %d times at the dead server first, while the other one was well", n)
	}
}
