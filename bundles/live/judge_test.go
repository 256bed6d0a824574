package live_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// judged returns what is handed out for a request to add something.
func judged(t testing.TB, s *live.Snapshot, n policy.Namespace, now time.Time) policy.Decision {
	t.Helper()
	p, err := s.Path(n)
	if err != nil {
		t.Fatal(err)
	}
	r := testkit.Request(n, "Add")
	d, err := p.Decide(t.Context(), rego.NewInput(&r, stamp))
	if err != nil {
		t.Fatal(err)
	}
	return p.Judge(d, now)
}

// short is how the tests write what is handed out.
func short(d policy.Decision) string {
	answer := "deny"
	if d.Allowed {
		answer = "allow"
	}
	for _, r := range d.Reasons {
		text, _, _ := strings.Cut(r.Text, ":")
		if since, ok := strings.CutPrefix(r.Text, "stale since "); ok && since != "" {
			text = "stale"
		}
		answer += fmt.Sprintf(" [%s: %s]", r.Namespace, text)
	}
	if d.Obligations.Len() > 0 {
		answer += " " + d.Obligations.String()
	}
	if len(d.Stale) > 0 {
		answer += fmt.Sprintf(" stale %v", d.Stale)
	}
	return answer
}

func stale(most time.Duration, when bundles.WhenStale) func(*bundles.Release) {
	return func(r *bundles.Release) { r.MaxStaleness, r.WhenStale = most, when }
}

func TestPastMaxStalenessEachNamespaceOfThePathIsJudgedByItsOwnRule(t *testing.T) {
	const minute = time.Minute
	for name, test := range map[string]struct {
		guardrail, cart func(*bundles.Release)
		trust           map[policy.Namespace]string
		provenGuardrail time.Duration // ago
		provenCart      time.Duration
		want            string
	}{
		"both fresh":                            {stale(minute, bundles.Deny), stale(minute, bundles.Deny), nil, minute, minute, `allow {"log":true}`},
		"the namespace is stale and serves":     {stale(0, bundles.Serve), stale(minute, bundles.Serve), nil, 0, minute + 1, `allow {"log":true} stale [shop.cart]`},
		"the namespace is stale and denies":     {stale(0, bundles.Serve), stale(minute, bundles.Deny), nil, 0, minute + 1, `deny [shop.cart: stale] stale [shop.cart]`},
		"a guardrail counts for all below it":   {stale(minute, bundles.Serve), stale(0, bundles.Deny), nil, minute + 1, 0, `allow {"log":true} stale [shop]`},
		"a guardrail denies for all below it":   {stale(minute, bundles.Deny), stale(0, bundles.Serve), nil, minute + 1, 0, `deny [shop: stale] stale [shop]`},
		"both, and the namespace denies":        {stale(minute, bundles.Serve), stale(minute, bundles.Deny), nil, 2 * minute, 2 * minute, `deny [shop.cart: stale] stale [shop shop.cart]`},
		"both deny":                             {stale(minute, bundles.Deny), stale(minute, bundles.Deny), nil, 2 * minute, 2 * minute, `deny [shop: stale] [shop.cart: stale] stale [shop shop.cart]`},
		"the default is an hour and serves":     {stale(0, 0), stale(0, 0), nil, 0, time.Hour + 1, `allow {"log":true} stale [shop.cart]`},
		"the trust file tightens the time":      {stale(0, 0), stale(time.Hour, bundles.Serve), map[policy.Namespace]string{"shop.cart": "max-staleness: 30s"}, 0, 31 * time.Second, `allow {"log":true} stale [shop.cart]`},
		"the trust file tightens the rule":      {stale(0, 0), stale(minute, bundles.Serve), map[policy.Namespace]string{"shop.cart": "when-stale: deny"}, 0, 2 * minute, `deny [shop.cart: stale] stale [shop.cart]`},
		"an ancestor's line tightens, too":      {stale(0, 0), stale(time.Hour, bundles.Serve), map[policy.Namespace]string{"shop": "max-staleness: 30s, when-stale: deny"}, 0, 31 * time.Second, `deny [shop.cart: stale] stale [shop.cart]`},
		"the trust file does not loosen time":   {stale(0, 0), stale(minute, bundles.Serve), map[policy.Namespace]string{"shop.cart": "max-staleness: 24h"}, 0, minute + 1, `allow {"log":true} stale [shop.cart]`},
		"the trust file does not loosen denial": {stale(0, 0), stale(minute, bundles.Deny), map[policy.Namespace]string{"shop.cart": "when-stale: serve"}, 0, minute + 1, `deny [shop.cart: stale] stale [shop.cart]`},
	} {
		t.Run(name, func(t *testing.T) {
			d := newProven(t, testkit.TrustOptions{More: test.trust})
			d.guardrail = d.Release("center", "shop", nil, d.Rego(openGuardrail+"\nobligations.log := true"), test.guardrail)
			d.cart = d.Release("cart", "shop.cart", nil, d.Rego(cartAllowsAdd), test.cart)
			s := d.state(t)
			d.clock.pass(24 * time.Hour)
			now := d.clock.now()
			s.prove(d.Beacon("beat", now, d.guardrail.Version(), d.cart.Version()))
			got := judged(t, s.Snapshot(), "shop.cart", now)
			if short(got) != `allow {"log":true}` {
				t.Fatalf("just proven: %s", short(got))
			}
			// A proof has one age for both, so each is looked at from another state.
			s = d.state(t)
			d.clock.Time = now.Add(-test.provenGuardrail)
			s.prove(d.Beacon("beat", d.clock.now(), d.guardrail.Version()))
			d.clock.Time = now.Add(-test.provenCart)
			s.prove(d.Beacon("beat", d.clock.now(), d.cart.Version()))
			got = judged(t, s.Snapshot(), "shop.cart", now)
			if short(got) != test.want {
				t.Errorf("got %s, want %s", short(got), test.want)
			}
			if len(got.Versions) != 2 {
				t.Errorf("versions: %v", got.Versions)
			}
		})
	}
}

func TestWhatWasNeverProvenIsStaleAtOnce(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{More: map[policy.Namespace]string{"shop.cart": "when-stale: deny"}})
	s := d.state(t)
	got := judged(t, s.Snapshot(), "shop.cart", d.clock.now())
	if short(got) != "deny [shop.cart: stale] stale [shop shop.cart]" || !strings.HasPrefix(got.Reasons[0].Text, "stale: not yet proven") || !strings.Contains(got.Reasons[0].Text, "--beacon-key") {
		t.Errorf("got %s, %v", short(got), got.Reasons)
	}
	if status := fmt.Sprintf("%+v", s.status("shop.cart")); !strings.Contains(status, "shop.cart: revision 1 of epoch 1, never proven, stale") {
		t.Error(status)
	}
	// Once it was proven, it says since when it is not.
	s.prove(d.Beacon("beat", d.clock.now(), d.cart.Version()))
	since := d.clock.now().Add(time.Hour)
	got = judged(t, s.Snapshot(), "shop.cart", since.Add(time.Minute))
	if want := "stale since " + since.UTC().Format(time.RFC3339) + ": for 1h1m0s no beacon"; len(got.Reasons) != 1 || !strings.HasPrefix(got.Reasons[0].Text, want) {
		t.Errorf("got %v, want %s", got.Reasons, want)
	}
}

// What denies besides is not hidden by it, what allows is not told.
func TestAStaleDenialKeepsWhatElseDenies(t *testing.T) {
	for module, want := range map[string]string{
		`deny contains "closed"`:                           "deny [shop: never] [shop.cart: closed] [shop.cart: stale] stale [shop shop.cart]",
		"allow := true\nreasons contains \"on call\"":      "deny [shop: never] [shop.cart: stale] stale [shop shop.cart]",
		"allow := false\nreasons contains \"not allowed\"": "deny [shop: never] [shop.cart: stale] stale [shop shop.cart]",
	} {
		d := newProven(t, testkit.TrustOptions{More: map[policy.Namespace]string{"shop.cart": "when-stale: deny"}})
		d.guardrail = d.Release("center", "shop", nil, d.Rego(`deny contains "never"`))
		d.cart = d.Release("cart", "shop.cart", nil, d.Rego(module))
		if got := short(judged(t, d.state(t).Snapshot(), "shop.cart", d.clock.now())); got != want {
			t.Errorf("%s: got %s, want %s", module, got, want)
		}
	}
	d := newProven(t, testkit.TrustOptions{More: map[policy.Namespace]string{"shop.cart": "when-stale: deny"}})
	d.cart = d.Release("cart", "shop.cart", nil, d.Rego("allow := true\nreasons contains \"on call\""))
	if got := short(judged(t, d.state(t).Snapshot(), "shop.cart", d.clock.now())); got != "deny [shop.cart: stale] stale [shop shop.cart]" {
		t.Errorf("what would be allowed: %s", got)
	}
}

func TestADenialThatIsStaleStaysOne(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{})
	d.cart = d.Release("cart", "shop.cart", nil, d.Rego(`deny contains "closed"`))
	s := d.state(t)
	if got := short(judged(t, s.Snapshot(), "shop.cart", d.clock.now())); got != "deny [shop.cart: closed] stale [shop shop.cart]" {
		t.Errorf("got %s", got)
	}
}

func TestWithoutKeysThatSignBeaconsNothingIsStale(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{More: map[policy.Namespace]string{"shop": "max-staleness: 15s, when-stale: deny"}})
	s := newState(t, d)
	s.offer(d.Release("center", "shop", nil, d.Rego(openGuardrail)))
	s.offer(d.Release("cart", "shop.cart", nil, d.Rego(cartAllowsAdd)))
	if got := short(judged(t, s.Snapshot(), "shop.cart", testkit.Created.AddDate(1, 0, 0))); got != "allow" {
		t.Errorf("got %s", got)
	}
	if status := s.status("shop.cart"); status.Stale || status.Age != live.Forever || !status.Proven.IsZero() {
		t.Errorf("status: %+v", status)
	}
	// And from the trust file on that lists one, it is.
	d.WriteTrust(testkit.TrustOptions{Version: 2, Beacons: []string{"beat"}})
	if err := s.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	if got := short(judged(t, s.Snapshot(), "shop.cart", testkit.Created)); got != "allow stale [shop shop.cart]" {
		t.Errorf("got %s", got)
	}
}

func TestATrustFileThatTightensCountsAtOnce(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{})
	s := d.state(t)
	s.prove(d.Beacon("beat", d.clock.now(), d.guardrail.Version(), d.cart.Version()))
	d.clock.pass(time.Minute)
	before := s.Snapshot()
	d.WriteTrust(testkit.TrustOptions{Version: 2, Beacons: []string{"beat"}, More: map[policy.Namespace]string{"shop.cart": "max-staleness: 30s, when-stale: deny"}})
	if err := s.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	if got := short(judged(t, s.Snapshot(), "shop.cart", d.clock.now())); got != "deny [shop.cart: stale] stale [shop.cart]" {
		t.Errorf("got %s", got)
	}
	if got := short(judged(t, before, "shop.cart", d.clock.now())); got != "allow" {
		t.Errorf("a snapshot changed: %s", got)
	}
}

// A beacon that proves a newer release must not make an older snapshot, which
// somebody still decides by, look fresh.
func TestAnOlderSnapshotIsNotProvenByWhatReplacedIt(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{})
	s := d.state(t)
	s.prove(d.Beacon("beat", d.clock.now(), d.guardrail.Version(), d.cart.Version()))
	before := s.Snapshot()
	s.offer(d.next(cartAllowsNone))
	d.clock.pass(2 * time.Hour)
	s.prove(d.Beacon("beat", d.clock.now(), d.guardrail.Version(), d.cart.Version()))
	if got := short(judged(t, s.Snapshot(), "shop.cart", d.clock.now())); got != "deny" {
		t.Errorf("got %s", got)
	}
	if got := short(judged(t, before, "shop.cart", d.clock.now())); got != "allow stale [shop.cart]" {
		t.Errorf("the older snapshot: %s", got)
	}
}

func TestDecidingWhileBeaconsArrive(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{})
	now := testkit.Created.Add(2 * time.Hour)
	s := newState(t, d.Domain, func(c *live.Config) { c.Now = func() time.Time { return now } })
	s.offer(d.guardrail)
	s.offer(d.cart)
	s.prove(d.Beacon("beat", now.Add(-30*time.Minute), d.guardrail.Version(), d.cart.Version()))
	notes := make([][]byte, 100)
	for i := range notes {
		notes[i] = d.Beacon("beat", now.Add(-time.Duration(len(notes)-i)*time.Second), d.guardrail.Version(), d.cart.Version())
	}
	var enough atomic.Bool
	var deciding, proving sync.WaitGroup
	for range 4 {
		deciding.Go(func() {
			for !enough.Load() {
				if got := short(judged(t, s.Snapshot(), "shop.cart", now)); got != "allow" {
					t.Errorf("got %s", got)
					return
				}
				_, _ = s.Status(), s.Beacons()
			}
		})
	}
	for first := range 4 {
		proving.Go(func() {
			for i := first; i < len(notes); i += 4 {
				_ = s.Prove(notes[i]) // another one may have been first
			}
		})
	}
	var pay *bundles.Signed
	for range 3 { // the snapshot is another one each time
		next := d.Release("pay", "shop.pay", pay, d.Rego(cartAllowsNone))
		s.offer(next)
		pay = next.Signed
	}
	proving.Wait()
	enough.Store(true)
	deciding.Wait()
	s.expectAge(time.Second) // the newest one has won
}

func TestJudgeTakesNoMemoryWhenNothingIsStale(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{})
	s := d.state(t)
	s.prove(d.Beacon("beat", d.clock.now(), d.guardrail.Version(), d.cart.Version()))
	path, err := s.Snapshot().Path("shop.cart")
	if err != nil {
		t.Fatal(err)
	}
	decision := policy.Decision{Allowed: true, Versions: path.Versions()}
	if n := testing.AllocsPerRun(1000, func() { decision = path.Judge(decision, d.clock.now()) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkJudge(b *testing.B) {
	d := newProven(b, testkit.TrustOptions{})
	d.clock.Time = time.Now()
	s := d.state(b)
	s.prove(d.Beacon("beat", d.clock.now(), d.guardrail.Version(), d.cart.Version()))
	path, err := s.Snapshot().Path("shop.cart")
	if err != nil {
		b.Fatal(err)
	}
	decision, now := policy.Decision{Allowed: true, Versions: path.Versions()}, time.Now()
	b.ReportAllocs()
	for b.Loop() {
		decision = path.Judge(decision, now)
	}
	if len(decision.Stale) > 0 {
		b.Error("stale")
	}
}
