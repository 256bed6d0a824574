package remote_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/pdp/grpcapi"
	"github.com/microwall/microwall/policy"
)

// released is a PDP with its clock, and the releases that it has and nobody has proven
// yet: a guardrail that serves when it is stale, and shop.cart, which says what it does
// then a minute after the last proof.
func released(t *testing.T, when string) (d *testkit.Domain, n *node, now *testkit.Clock, heads []testkit.Release) {
	t.Helper()
	d = testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}, More: map[policy.Namespace]string{"shop.cart": "max-staleness: 1m, when-stale: " + when}})
	heads = []testkit.Release{
		d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`)),
		d.Release("cart", "shop.cart", nil, d.Rego("allow := input.action.name != \"Drop\"")),
	}
	now = new(testkit.Clock)
	n = startNode(t, d, now.Now)
	n.offer(heads...)
	return d, n, now, heads
}

func TestWhatIsRememberedGrowsStaleAsItsAuthorsSay(t *testing.T) {
	for when, want := range map[string]string{"serve": "true [shop.cart] false", "deny": "false [shop.cart] true"} {
		t.Run(when, func(t *testing.T) {
			_, n, now, heads := released(t, when)
			n.prove(now.Now(), heads...)
			c := remembering(t, now.Now, heads[1].Version(), n)
			r := request("shop.cart", "Add")
			mustAsk(t, c, r)
			n.server.stop()
			now.Pass(59 * time.Second)
			if got := mustHit(t, c, r); !got.Allowed || len(got.Stale) > 0 {
				t.Errorf("believed still: %s", full(got, nil))
			}
			now.Pass(2 * time.Second)
			said := func(got policy.Decision, err error) string {
				if err != nil {
					return err.Error()
				}
				return fmt.Sprint(got.Allowed, got.Stale, got.StaleDenied)
			}
			one := func() string { return said(c.Authorize(t.Context(), r)) }
			if got := one(); got != want {
				t.Errorf("past that: %s", got)
			}
			if got := said(onlyOne(c.AuthorizeBatch(t.Context(), []policy.Request{r}))); got != want {
				t.Errorf("past that, in a batch: %s", got)
			}
			if got, err := c.Authorize(t.Context(), request("shop.cart", "Get")); policy.KindOf(err) != policy.Unavailable {
				t.Errorf("what was never asked: %s", spelling(got, err))
			}
			if s := c.Status().Namespaces[0]; !s.Stale || s.Age != 61*time.Second {
				t.Errorf("%+v", s)
			}
			// The wall clock that is set back makes nothing younger that was told again.
			n.prove(now.Now(), heads...)
			n.serve(n.server.addr)
			testkit.Until(t, func() bool { return one() == "true [] false" })
		})
	}
}

// A decision that only staleness denies is not to be found when the proof is there.
func TestADenialByStalenessIsNotRemembered(t *testing.T) {
	t.Parallel() // it waits
	_, n, now, heads := released(t, "deny")
	c := remembering(t, now.Now, heads[1].Version(), n)
	r := request("shop.cart", "Add")
	if got := mustAsk(t, c, r); got.Allowed || !got.StaleDenied {
		t.Errorf("never proven: %s", full(got, nil))
	}
	if got := c.Status().Cache.Entries; got != 0 {
		t.Errorf("%d decisions are remembered", got)
	}
	n.prove(now.Now(), heads...)
	if got := mustAsk(t, c, r); !got.Allowed || len(got.Stale) > 0 {
		t.Errorf("proven: %s", full(got, nil))
	}
	testkit.Until(t, func() bool { return !c.Status().Namespaces[0].Stale })
	mustHit(t, c, r)
}

// What is served although it is stale is remembered without that.
func TestStaleIsNotRemembered(t *testing.T) {
	t.Parallel() // it waits
	_, n, now, heads := released(t, "serve")
	c := remembering(t, now.Now, heads[1].Version(), n)
	r := request("shop.cart", "Add")
	if got := mustAsk(t, c, r); !got.Allowed || len(got.Stale) != 2 {
		t.Errorf("never proven: %s", full(got, nil))
	}
	n.prove(now.Now(), heads...)
	testkit.Until(t, func() bool { return !c.Status().Namespaces[0].Stale })
	if got := mustHit(t, c, r); !got.Allowed || len(got.Stale) > 0 {
		t.Errorf("proven: %s", full(got, nil))
	}
}

// A client whose clock is behind must not believe for longer what it is told again and
// again: by its clock, what is proven from the future would never have an age.
func TestAProofFromTheFutureDoesNotStayYoung(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		behind   time.Duration
		believed bool // at first
	}{"by as much as clocks may differ": {29 * time.Second, true}, "by a day": {24 * time.Hour, false}} {
		t.Run(name, func(t *testing.T) {
			_, n, now, heads := released(t, "deny")
			own := new(testkit.Clock)
			own.Pass(-test.behind)
			n.prove(now.Now(), heads...)
			c := remembering(t, own.Now, heads[1].Version(), n)
			r := request("shop.cart", "Add")
			mustAsk(t, c, r)
			if test.believed {
				mustHit(t, c, r)
			} else {
				mustAsk(t, c, r)
			}
			for passed := time.Duration(0); passed <= time.Minute; passed += 20 * time.Second {
				now.Pass(20 * time.Second)
				own.Pass(20 * time.Second)
				// Another watch is told of the same beacon, by a PDP without a newer one.
				ended := c.Status().WatchEnded
				n.server.stop()
				n.serve(n.server.addr)
				testkit.Until(t, func() bool { s := c.Status(); return !errors.Is(s.WatchEnded, ended) && s.Watched != "" })
			}
			if s := c.Status().Namespaces[0]; !s.Stale {
				t.Errorf("after %s without a beacon, of which it is believed for one minute: %+v", 80*time.Second, s)
			}
			n.server.stop()
			if got, err := c.Authorize(t.Context(), r); err != nil || got.Allowed || !got.StaleDenied {
				t.Errorf("got %s", full(got, err))
			}
		})
	}
}

// Whoever takes all watches that a PDP has room for must not have others decide for ever by
// what they were told before, where nothing becomes stale and the PDP would answer.
func TestWhatNobodyWatchesAnyMoreIsAskedFor(t *testing.T) {
	t.Parallel()
	d, now := testkit.NewDomain(t), new(testkit.Clock)
	shop := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`))
	one := d.Release("cart", "shop.cart", nil, d.Rego("allow := true"))
	two := d.Release("cart", "shop.cart", one.Signed, d.Rego("allow := false"))
	n := startNode(t, d, now.Now)
	n.offer(shop, one)
	c := remembering(t, now.Now, one.Version(), n)
	r := request("shop.cart", "Add")
	mustAsk(t, c, r)
	n.server.stop()
	n.offer(two)
	if got := mustHit(t, c, r); !got.Allowed {
		t.Errorf("without a PDP: %s", spelling(got, nil))
	}
	refuses := serve(t, n.server.addr, grpcapi.New(grpcapi.Config{Decide: n}))
	testkit.Until(t, func() bool {
		got, err := c.Authorize(t.Context(), r)
		return err == nil && !got.Allowed
	})
	if s := c.Status(); s.Watched != "" || s.WatchEnded == nil {
		t.Errorf("%+v", s)
	}
	// Nothing goes back, and what is decided is remembered only while somebody tells.
	mustAsk(t, c, r)
	refuses.stop()
	if got, err := c.Authorize(t.Context(), r); got.Allowed || policy.KindOf(err) != policy.Unavailable {
		t.Errorf("got %s", spelling(got, err))
	}
}

// A PDP that is gone for long takes nothing from what is believed.
func TestWhatIsBelievedIsHandedOutHoweverLongNoPDPAnswers(t *testing.T) {
	t.Parallel()
	_, n, now, heads := released(t, "deny")
	n.prove(now.Now(), heads...)
	c := remembering(t, now.Now, heads[1].Version(), n)
	r := request("shop.cart", "Add")
	mustAsk(t, c, r)
	n.server.stop()
	// By then it is asked first.
	testkit.Until(t, func() bool {
		before := c.Status().Failed
		got, err := c.Authorize(t.Context(), r)
		if err != nil || !got.Allowed || len(got.Stale) > 0 {
			t.Fatal(full(got, err))
		}
		return c.Status().Failed > before
	})
	if got, err := onlyOne(c.AuthorizeBatch(t.Context(), []policy.Request{r})); err != nil || !got.Allowed {
		t.Error(full(got, err))
	}
}

// A beacon's key that was stolen, and is in the trust file no more, proves nothing more to
// those who were told before of what it has signed.
func TestAProofByAKeyThatIsTrustedNoMoreIsForgotten(t *testing.T) {
	d, n, now, heads := released(t, "deny")
	n.prove(now.Now(), heads...)
	c := remembering(t, now.Now, heads[1].Version(), n)
	r := request("shop.cart", "Add")
	mustAsk(t, c, r)
	mustHit(t, c, r)
	d.WriteTrust(testkit.TrustOptions{Version: 2, Beacons: []string{"beat2"}, More: map[policy.Namespace]string{"shop.cart": "max-staleness: 1m, when-stale: deny"}})
	if err := n.state.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, func() bool { return c.Status().Namespaces[0].Stale })
	n.server.stop()
	if got, err := c.Authorize(t.Context(), r); err != nil || got.Allowed || !got.StaleDenied {
		t.Errorf("got %s", full(got, err))
	}
}
