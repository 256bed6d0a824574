package embedded_test

import (
	"context"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/internal/testkit"
)

// startBound is how long a client may take from its start to its first decision
// when it has releases on disk.
const startBound = 50 * time.Millisecond

// A service that starts while NATS is away decides as soon as it has compiled
// what is on its disk: it waits for nobody, whether the connection is refused or
// taken and never answered.
func TestAClientStartsFromDiskWithoutWaitingForABroker(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}})
	dir := t.TempDir()
	func() { // a broker that is gone afterwards
		broker := d.ServeNATS(t.TempDir())
		p := d.StartPDP(broker.URL(), t.TempDir())
		g := d.Push(p, "center", "shop", guardrail).Release.Version()
		cart := d.Push(p, "cart", "shop.cart", allowsAdd).Release.Version()
		issue(t, d, p, time.Now(), g, cart)
		c := newClient(t, d, broker.URL(), func(c *embedded.Config) { c.Dir = dir })
		c.expect("shop.cart", "Add", "allow")
		c.Close()
		broker.Shutdown()
	}()
	refuses, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := refuses.Close(); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	for name, l := range map[string]net.Listener{"it refuses": refuses, "it never answers": silent} {
		t.Run(name, func(t *testing.T) {
			var all []time.Duration
			for range 5 {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				begin := time.Now()
				c, err := tryClient(ctx, t, d, "nats://"+l.Addr().String(), func(c *embedded.Config) { c.Dir = dir })
				if err != nil {
					t.Fatal(err)
				}
				got := c.expect("shop.cart", "Add", "allow")
				all = append(all, time.Since(begin))
				if c.Status().Connected || len(got.Stale) > 0 {
					t.Errorf("connected: %v; stale: %v", c.Status().Connected, got.Stale)
				}
				c.expect("shop.cart", "Forbidden", "deny")
				c.Close()
			}
			t.Logf("from the start to the first decision: %v", all)
			if least := slices.Min(all); least > startBound {
				t.Errorf("no start took less than %s, want %s", least, startBound)
			}
		})
	}
}

// What is slow, opening and compiling a release, is done by goroutines of the
// client's own: in a callback of NATS it would hold up all that comes after it.
func TestNothingIsOpenedOrCompiledInACallbackOfNATS(t *testing.T) {
	t.Parallel() // it waits for polls
	for name, mode := range map[string]embedded.Mode{"push": embedded.Push(), "poll": embedded.Poll(20 * time.Millisecond)} {
		t.Run(name, func(t *testing.T) {
			d := testkit.NewDomain(t)
			d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}, Roots: []string{"ann"}})
			url := d.ServeNATS(t.TempDir()).URL()
			p := d.StartPDP(url, t.TempDir())
			d.Push(p, "center", "shop", guardrail)
			d.Push(p, "cart", "shop.cart", allowsNot)
			var mu sync.Mutex
			seen := map[string]int{}
			c := newClient(t, d, url, in(mode), func(c *embedded.Config) {
				tell := c.OnRelease
				c.OnRelease = func(e live.Event) {
					// It is told in the goroutine that did it.
					stack, what := string(debug.Stack()), ""
					switch e.(type) {
					case live.Activated:
						what = "live.(*Live).Offer("
					case live.Proven:
						what = "live.(*Live).Prove("
					case live.TrustChanged:
						what = "live.(*Live).OfferTrust("
					}
					mu.Lock()
					if strings.Contains(stack, what) {
						seen[what]++
					}
					mu.Unlock()
					if strings.Contains(stack, "nats-io/nats.go") {
						t.Errorf("%T in a callback of NATS:\n%s", e, stack)
					}
					tell(e)
				}
			})
			next := d.Push(p, "cart", "shop.cart", allowsAdd).Release.Version()
			c.waitFor(next)
			issue(t, d, p, time.Now(), next)
			c.wait("it is proven", func(e any) bool { _, ok := e.(live.Proven); return ok })
			if _, err := d.PAP(p).PushTrust(t.Context(), d.SignTrust(testkit.TrustOptions{Version: 2, Beacons: []string{"beat"}, Roots: []string{"ann"}}, "ann")); err != nil {
				t.Fatal(err)
			}
			c.wait("the trust file is in force", func(e any) bool { _, ok := e.(live.TrustChanged); return ok })
			mu.Lock()
			defer mu.Unlock()
			for _, what := range []string{"live.(*Live).Offer(", "live.(*Live).Prove(", "live.(*Live).OfferTrust("} {
				if seen[what] == 0 {
					t.Errorf("nothing was told from %s: %v", what, seen)
				}
			}
		})
	}
}
