package jetstream_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/policy"
)

// flood publishes n messages of one byte as heads of namespaces that are not
// there, and waits until the follower has taken them all, none dropped.
func flood(t *testing.T, f *follow, nc *nats.Conn, n int) {
	t.Helper()
	const marker = "pdp.head.boutique.NOBODY" // ignored at once, and in order
	for i := range n {
		if err := nc.PublishMsg(pushed(fmt.Sprintf("pdp.head.boutique.boutique_x%d", i), []byte("x"))); err != nil {
			t.Fatal(err)
		}
		if i%500 < 499 && i < n-1 {
			continue
		}
		if err := nc.PublishMsg(pushed(marker, nil)); err != nil {
			t.Fatal(err)
		}
		wantEvent(t, f.events, func(e jetstream.Ignored) bool { return e.Subject == marker })
	}
}

func TestAFloodOfMadeUpNamespacesDoesNotBlindAFollowerOfAll(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	seq := mustPut(t, s, cart, note(cart, 1), []byte("one"), 0)
	// No poll: what is followed is followed because of pushes.
	soon := func(d time.Duration) <-chan time.Time {
		if d > 5*time.Second {
			return nil
		}
		return time.After(0)
	}
	subscribed, flooded := make(chan struct{}), make(chan struct{})
	var once sync.Once
	followed := connect(t, url)
	f := startFollower(t, url, jetstream.FollowConfig{Conn: followed, After: soon, List: func(ctx context.Context) ([]policy.Namespace, error) {
		once.Do(func() { close(subscribed) })
		select {
		case <-flooded:
			return s.Namespaces(ctx)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}, nil)
	nc := connect(t, url)

	// Once before the follower knows any namespace, and once after.
	receive(t, subscribed, "the first listing")
	if err := followed.Flush(); err != nil {
		t.Fatal(err)
	}
	flood(t, f, nc, 100_000)
	close(flooded)
	f.wantOffer(t, note(cart, 1), []byte("one"))
	f.wantSynced(t)
	// The first listings were under way when the names came: these are told of
	// together.
	wantEvent(t, f.events, func(e jetstream.Ignored) bool { return e.More > 1024 && policy.KindOf(e.Err) == policy.NotFound })

	flood(t, f, nc, 100_000)
	mustPut(t, s, cart, note(cart, 2), []byte("two"), seq)
	f.wantOffer(t, note(cart, 2), []byte("two"))
	mustPut(t, s, shop, note(shop, 1), []byte("new"), 0)
	f.wantOffer(t, note(shop, 1), []byte("new"))
}

func TestANamespaceThatIsPushedInAFloodIsListedAfterAPause(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	clock := newClock()
	f := startFollower(t, url, jetstream.FollowConfig{List: s.Namespaces, After: clock.after}, nil)
	f.wantSynced(t)
	nc := connect(t, url)
	flood(t, f, nc, 2000)
	// The names are more than are looked up, so this is not one of them.
	mustPut(t, s, cart, note(cart, 1), []byte("one"), 0)
	flood(t, f, nc, 1)
	clock.fire(t, func(d time.Duration) bool { return d < time.Second })
	f.wantOffer(t, note(cart, 1), []byte("one"))
}

// The list comes over another connection than pushes do. If the broker had the
// list's question before the subscription, a namespace released in between would
// be neither listed nor pushed.
func TestNamespacesAreListedOnceTheBrokerHasTheSubscription(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	var connected atomic.Bool
	asked := make(chan struct{}, 10) // the broker, whether it has what was sent
	p := newProxy(t, url, "PING\r\n", func() bool {
		if connected.Load() {
			asked <- struct{}{}
		}
		return true
	})
	nc := connect(t, p.url())
	connected.Store(true)
	var once sync.Once
	f := startFollower(t, url, jetstream.FollowConfig{Conn: nc, After: never, List: func(ctx context.Context) ([]policy.Namespace, error) {
		all, err := s.Namespaces(ctx)
		once.Do(func() {
			if len(asked) == 0 {
				t.Error("listed before the broker is known to have the subscription")
			}
			_, err = s.Put(ctx, cart, []byte(note(cart, 1)), []byte("one"), 0)
		})
		return all, err
	}}, nil)
	f.wantSynced(t)
	f.wantOffer(t, note(cart, 1), []byte("one"))
}

func TestAPushedNamespaceIsNotForgottenWhenTheListFails(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	clock := newClock()
	calls := make(chan error, 2)
	f := startFollower(t, url, jetstream.FollowConfig{After: clock.after, List: func(ctx context.Context) ([]policy.Namespace, error) {
		select {
		case err := <-calls:
			return nil, err
		default:
			return s.Namespaces(ctx)
		}
	}}, nil)
	f.wantSynced(t)
	calls <- errTest
	mustPut(t, s, cart, note(cart, 1), []byte("one"), 0)
	wantEvent[jetstream.AskFailed](t, f.events, nil)
	f.wantOffer(t, note(cart, 1), []byte("one"))
}

func TestNothingIsKeptOfAPushToANamespaceThatIsNotThere(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	f := startFollower(t, url, jetstream.FollowConfig{List: s.Namespaces, After: never}, nil)
	f.wantSynced(t)
	// It would be taken if it were looked at.
	if err := connect(t, url).PublishMsg(pushed("pdp.head.boutique.boutique_cart", []byte(note(cart, 1)+"\x00Iforged"))); err != nil {
		t.Fatal(err)
	}
	e := wantEvent[jetstream.Ignored](t, f.events, nil)
	if e.Subject != "pdp.head.boutique.boutique_cart" || policy.KindOf(e.Err) != policy.NotFound || e.More != 0 {
		t.Errorf("ignored %+v", e)
	}
	if len(f.offers) > 0 {
		t.Error("it was offered")
	}
}
