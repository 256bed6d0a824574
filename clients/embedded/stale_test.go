package embedded_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// by is a configuration with a clock that a test moves on.
func by(clock *testkit.Clock) func(*embedded.Config) {
	return func(config *embedded.Config) { config.Now = clock.Now }
}

// issue makes the beacons of a time the newest.
func issue(t testing.TB, d *testkit.Domain, p *testkit.PDP, at time.Time, heads ...policy.Version) {
	t.Helper()
	var all []jetstream.Beacon
	for _, head := range heads {
		all = append(all, jetstream.Beacon{Namespace: head.Namespace, Note: d.Beacon("beat", at, head)})
	}
	if err := p.Store.PutBeacons(t.Context(), all); err != nil {
		t.Fatal(err)
	}
}

func (c *client) waitProven(v policy.Version, at time.Time) {
	c.t.Helper()
	c.wait(string(v.Namespace)+" proven", func(e any) bool {
		proven, ok := e.(live.Proven)
		return ok && proven.Version == v && proven.Time.Equal(at)
	})
}

// expectStale asks whether something may be added.
func (c *client) expectStale(want string, stale ...policy.Namespace) {
	c.t.Helper()
	if d := c.expect("shop.cart", "Add", want); fmt.Sprint(d.Stale) != fmt.Sprint(stale) {
		c.t.Errorf("stale is %v, want %v", d.Stale, stale)
	}
}

// tightened is a domain in which shop.cart denies a minute after its last proof,
// and shop serves on for an hour, with a release of each.
func tightened(t testing.TB) (d *testkit.Domain, p *testkit.PDP, url string, heads [2]policy.Version) {
	d = testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}, More: map[policy.Namespace]string{"shop.cart": "max-staleness: 1m, when-stale: deny"}})
	url = d.ServeNATS(t.TempDir()).URL()
	p = d.StartPDP(url, t.TempDir())
	heads[0] = d.Push(p, "center", "shop", guardrail).Release.Version()
	heads[1] = d.Push(p, "cart", "shop.cart", allowsAdd).Release.Version()
	return d, p, url, heads
}

func TestACachedDecisionGrowsStaleAndIsProvenAgain(t *testing.T) {
	d, p, url, heads := tightened(t)
	var clock testkit.Clock
	issue(t, d, p, clock.Now(), heads[:]...)
	c := newClient(t, d, url, by(&clock))
	c.expectStale("allow") // at once: a client that starts asks for beacons, too
	for _, step := range []struct {
		passes time.Duration
		want   string
		stale  []policy.Namespace
	}{
		{time.Minute, "allow", nil},
		{time.Millisecond, "deny", []policy.Namespace{"shop.cart"}},
		{time.Hour, "deny", []policy.Namespace{"shop", "shop.cart"}},
	} {
		clock.Pass(step.passes)
		c.expectStale(step.want, step.stale...)
		results, err := c.AuthorizeBatch(t.Context(), []policy.Request{testkit.Request("shop.cart", "Add")})
		if err != nil || results[0].Decision.Allowed != (step.want == "allow") || fmt.Sprint(results[0].Decision.Stale) != fmt.Sprint(step.stale) {
			t.Errorf("in a batch: %+v, %v", results, err)
		}
	}
	issue(t, d, p, clock.Now(), heads[1])
	c.waitProven(heads[1], clock.Now())
	c.expectStale("allow", "shop") // the guardrail serves on, and says so
	issue(t, d, p, clock.Now(), heads[0])
	c.waitProven(heads[0], clock.Now())
	c.expectStale("allow")
	if s := c.Status(); s.Cache.Misses != 1 || s.Beacons.Taken != 4 || s.Namespaces[1].Stale {
		t.Errorf("status: %+v", s)
	}
}

// A batch takes longer than its namespace is believed: from then on it denies.
func TestALongBatchBecomesStaleOnItsWay(t *testing.T) {
	d, p, url, heads := tightened(t)
	var clock testkit.Clock
	var slow atomic.Bool
	issue(t, d, p, clock.Now(), heads[:]...)
	c := newClient(t, d, url, func(config *embedded.Config) {
		config.Now = func() time.Time {
			if slow.Load() {
				clock.Pass(time.Second) // that is how long each takes
			}
			return clock.Now()
		}
	})
	c.expectStale("allow")
	requests := make([]policy.Request, 100)
	for i := range requests {
		requests[i] = testkit.Request("shop.cart", "Add")
	}
	slow.Store(true)
	results, err := c.AuthorizeBatch(t.Context(), requests)
	slow.Store(false)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if stale := i >= 60; r.Err != nil || i < 30 && !r.Decision.Allowed || stale && (r.Decision.Allowed || len(r.Decision.Stale) == 0) {
			t.Errorf("after %d s: %+v", i, r)
		}
	}
}

func TestAClientThatIsCutOffDeniesByItsOwnRule(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}, More: map[policy.Namespace]string{"shop.cart": "max-staleness: 1m, when-stale: deny"}})
	nats := d.ServeNATS(t.TempDir())
	p := d.StartPDP(nats.URL(), t.TempDir())
	g := d.Push(p, "center", "shop", guardrail).Release.Version()
	cart := d.Push(p, "cart", "shop.cart", allowsAdd).Release.Version()
	var clock testkit.Clock
	issue(t, d, p, clock.Now(), g, cart)
	dir := t.TempDir()
	inDir := func(c *embedded.Config) { c.Dir = dir }
	c := newClient(t, d, nats.URL(), by(&clock), inDir)
	nats.Shutdown()
	c.wait("the connection is lost", func(e any) bool { _, ok := e.(jetstream.Disconnected); return ok })
	clock.Pass(30 * time.Second)
	c.expectStale("allow")
	c.Close()
	// A restart is not a proof.
	c = newClient(t, d, nats.URL(), by(&clock), inDir)
	c.expectStale("allow")
	clock.Pass(31 * time.Second)
	c.expectStale("deny", "shop.cart")
	c.Close()
	c = newClient(t, d, nats.URL(), by(&clock), inDir)
	c.expectStale("deny", "shop.cart")
}

func TestForgedAndReplayedBeaconsOnTheWireProveNothing(t *testing.T) {
	d, p, url, heads := tightened(t)
	var clock testkit.Clock
	first := clock.Now()
	issue(t, d, p, first, heads[:]...)
	c := newClient(t, d, url, by(&clock))
	clock.Pass(2 * time.Minute)
	c.expectStale("deny", "shop.cart")
	// Whoever can reach the broker may put there what he likes.
	put := func(note []byte) {
		t.Helper()
		if err := p.Store.PutBeacons(t.Context(), []jetstream.Beacon{{Namespace: "shop.cart", Note: note}}); err != nil {
			t.Fatal(err)
		}
	}
	put(d.Beacon("stranger", clock.Now(), heads[1]))
	c.wait("a stranger's beacon is refused", func(e any) bool { _, ok := e.(live.BeaconRefused); return ok })
	put(d.Beacon("beat", first, heads[1]))                      // once more
	put(d.Beacon("beat", clock.Now(), heads[0]))                // another namespace's
	put(d.Beacon("beat", clock.Now().Add(time.Hour), heads[1])) // from the future
	fork := heads[1]
	fork.Digest = policy.Digest{7}
	put(d.Beacon("beat", clock.Now(), fork))
	c.wait("the fork is an alarm", func(e any) bool {
		refused, ok := e.(live.BeaconRefused)
		return ok && refused.Namespace == "shop.cart"
	})
	c.expectStale("deny", "shop.cart")
	put(d.Beacon("beat", clock.Now(), heads[1]))
	c.waitProven(heads[1], clock.Now())
	c.expectStale("allow")
}
