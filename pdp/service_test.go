package pdp_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// snapshot returns a snapshot in which shop.cart is decided by one module.
func snapshot(t testing.TB, module string) *live.Snapshot {
	t.Helper()
	d := testkit.NewDomain(t)
	s, err := live.NewLocal(t.Context(), map[policy.Namespace]*bundles.Bundle{"shop.cart": d.Rego(module)}, nil, rego.Options{Budget: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhatIsAskedIsCheckedFirst(t *testing.T) {
	s := pdp.New(pdp.Config{Source: snapshot(t, "allow := true")})
	for name, test := range map[string]struct {
		change func(*policy.Request)
		want   policy.Kind
	}{
		"no namespace":         {func(r *policy.Request) { r.Namespace = "" }, policy.BadRequest},
		"an unknown namespace": {func(r *policy.Request) { r.Namespace = "shop.other" }, policy.NotFound},
		"an ancestor":          {func(r *policy.Request) { r.Namespace = "shop" }, policy.NotFound},
		"a child":              {func(r *policy.Request) { r.Namespace = "shop.cart.eu" }, policy.NotFound},
		"no subject":           {func(r *policy.Request) { r.Subject = policy.Entity{} }, policy.BadRequest},
	} {
		r := testkit.Request("shop.cart", "Add")
		test.change(&r)
		if d, err := s.Authorize(t.Context(), r); policy.KindOf(err) != test.want || d.Allowed {
			t.Errorf("%s: got %+v, %v", name, d, err)
		}
	}
}

// A batch takes longer than its namespace is believed: from then on it denies.
func TestALongBatchBecomesStaleOnItsWay(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}, NoGuardrail: true, More: map[policy.Namespace]string{"shop.cart": "max-staleness: 15s, when-stale: deny"}})
	state, err := live.New(t.Context(), live.Config{Trust: d.Trust()})
	if err != nil {
		t.Fatal(err)
	}
	release := d.Release("cart", "shop.cart", nil, d.Rego("allow := true"))
	if err := state.Offer(t.Context(), release.Note(), func(context.Context) ([]byte, error) { return release.Packed, nil }); err != nil {
		t.Fatal(err)
	}
	for name, events := range map[string]func(pdp.Event){"told": func(pdp.Event) {}, "not told": nil} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			if err := state.Prove(d.Beacon("beat", begun, release.Version())); err != nil {
				t.Fatal(err)
			}
			now := begun
			s := pdp.New(pdp.Config{Source: state, Events: events, Now: func() time.Time {
				now = now.Add(time.Second) // that is how long each takes
				return now
			}})
			requests := make([]policy.Request, 40)
			for i := range requests {
				requests[i] = testkit.Request("shop.cart", "Add")
			}
			results, err := s.AuthorizeBatch(t.Context(), requests)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range results {
				if stale := i >= 14; r.Err != nil || i < 5 && !r.Decision.Allowed || stale && (r.Decision.Allowed || len(r.Decision.Stale) == 0) {
					t.Errorf("after %d s: %+v", i, r)
				}
			}
		})
	}
}

// swapping hands out two snapshots in turn.
type swapping struct {
	snapshots []*live.Snapshot
	turn      atomic.Int64
}

func (s *swapping) Snapshot() *live.Snapshot {
	return s.snapshots[int(s.turn.Add(1))%len(s.snapshots)]
}

func TestABatchHasOneSnapshotAndOneTime(t *testing.T) {
	// The obligation names the release and the time; the clock moves on with
	// every look at it.
	module := func(n string) string { return "allow := true\nobligations.seen := [" + n + ", input.time.unix]" }
	source := &swapping{snapshots: []*live.Snapshot{snapshot(t, module("1")), snapshot(t, module("2"))}}
	var seconds atomic.Int64
	s := pdp.New(pdp.Config{Source: source, Now: func() time.Time { return time.Unix(seconds.Add(1), 0) }})
	for range 4 {
		results, err := s.AuthorizeBatch(t.Context(), slices.Repeat([]policy.Request{testkit.Request("shop.cart", "Add")}, 20))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if r.Err != nil || r.Decision.Obligations.String() != results[0].Decision.Obligations.String() {
				t.Fatalf("got %v and %v", r, results[0])
			}
		}
	}
}

func TestTooMuchLoadIsRefusedAtOnce(t *testing.T) {
	// One evaluation at a time, and the events callback holds it.
	hold, held := make(chan struct{}), make(chan struct{}, 16)
	s := pdp.New(pdp.Config{Source: snapshot(t, "allow := true"), Concurrency: 1, Queue: 2, Events: func(pdp.Event) {
		held <- struct{}{}
		<-hold
	}})
	var group sync.WaitGroup
	errs := make(chan error, 4)
	ask := func(ctx context.Context) {
		group.Go(func() {
			_, err := s.Authorize(ctx, testkit.Request("shop.cart", "Add"))
			errs <- err
		})
	}
	ask(t.Context())
	<-held
	// Of three that come now, two may wait and one is told so at once.
	waiting, leave := context.WithCancel(t.Context())
	for range 3 {
		ask(waiting)
	}
	if err := <-errs; policy.KindOf(err) != policy.Exhausted {
		t.Errorf("the third that waits: %v", err)
	}
	leave()
	for range 2 {
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("one that gave up waiting: %v", err)
		}
	}
	close(hold)
	if err := <-errs; err != nil {
		t.Errorf("the one that was taken: %v", err)
	}
	group.Wait()
	if d, err := s.Authorize(t.Context(), testkit.Request("shop.cart", "Add")); err != nil || !d.Allowed {
		t.Errorf("afterwards: %+v, %v", d, err)
	}
}

// Each item of a batch may name another namespace, whose head is confirmed by a question of
// its own: what waits is counted by these, not by batches.
func TestBatchesThatNameManyNamespacesDoNotFillTheMemoryWithQuestions(t *testing.T) {
	batch := func(n int) (rs []policy.Request) {
		for i := range n {
			r := testkit.Request(policy.Namespace(fmt.Sprint("shop.x", i/2)), "Add")
			r.Freshness = policy.Head
			rs = append(rs, r)
		}
		return rs
	}
	asked, over := make(chan struct{}, 1000), make(chan struct{})
	s := pdp.New(pdp.Config{Source: snapshot(t, "allow := true"), Queue: 100, Confirm: func(ctx context.Context, n policy.Namespace) (policy.Version, error) {
		asked <- struct{}{}
		select {
		case <-over:
		case <-ctx.Done():
		}
		return policy.Version{}, policy.Errorf(policy.NotFound, "no head")
	}})
	if _, err := s.AuthorizeBatch(t.Context(), batch(202)); policy.KindOf(err) != policy.Exhausted || len(asked) > 0 {
		t.Errorf("101 namespaces: %v, and %d questions", err, len(asked))
	}
	var waiting sync.WaitGroup
	for range 2 {
		waiting.Go(func() {
			if _, err := s.AuthorizeBatch(t.Context(), batch(100)); err != nil {
				t.Error(err)
			}
		})
	}
	for range 100 {
		<-asked
	}
	if _, err := s.AuthorizeBatch(t.Context(), batch(1)); policy.KindOf(err) != policy.Exhausted {
		t.Errorf("one more: %v", err)
	}
	// Who does not wait is decided.
	r := testkit.Request("shop.cart", "Add")
	r.Freshness = r.Freshness.NotBefore(policy.Version{Namespace: "shop.pay", Epoch: 1, Revision: 1})
	if d, err := s.Authorize(t.Context(), r); err != nil || !d.Allowed {
		t.Errorf("what was only seen: %+v, %v", d, err)
	}
	close(over)
	waiting.Wait()
	if _, err := s.AuthorizeBatch(t.Context(), batch(200)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestACallThatIsOverIsNotDecided(t *testing.T) {
	s := pdp.New(pdp.Config{Source: snapshot(t, "allow if { some a in numbers.range(1, 5000); some b in numbers.range(1, 5000); a + b == -1 }")})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if d, err := s.Authorize(ctx, testkit.Request("shop.cart", "Add")); !errors.Is(err, context.DeadlineExceeded) || d.Allowed {
		t.Errorf("got %+v, %v", d, err)
	}
}

func TestEveryDecisionIsReported(t *testing.T) {
	var events []pdp.Decided
	s := pdp.New(pdp.Config{Source: snapshot(t, `allow if input.action.name == "Add"`), Events: func(e pdp.Event) { events = append(events, *e.(*pdp.Decided)) }})
	_, _ = s.Authorize(t.Context(), testkit.Request("shop.cart", "Add"))
	_, _ = s.Authorize(t.Context(), testkit.Request("shop.other", "Add"))
	_, _ = s.AuthorizeBatch(t.Context(), []policy.Request{testkit.Request("shop.cart", "Remove")})
	if len(events) != 3 || !events[0].Decision.Allowed || policy.KindOf(events[1].Err) != policy.NotFound || events[2].Decision.Allowed || events[2].Request.Action.Name != "Remove" {
		t.Errorf("got %+v", events)
	}
}

func TestADecisionIsJudgedByItsAgeAtEveryDoorOfTheService(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}})
	now := testkit.Created
	clock := func() time.Time { return now }
	state, err := live.New(t.Context(), live.Config{Trust: d.Trust(), Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	center := d.Release("center", "shop", nil, d.Rego("default allow := false"))
	cart := d.Release("cart", "shop.cart", nil, d.Rego("allow := true"))
	pay := d.Release("pay", "shop.pay", nil, d.Rego("allow := true"), func(r *bundles.Release) { r.MaxStaleness, r.WhenStale = time.Minute, bundles.Deny })
	for _, r := range []testkit.Release{center, cart, pay} {
		if err := state.Offer(t.Context(), r.Note(), func(context.Context) ([]byte, error) { return r.Packed, nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := state.Prove(d.Beacon("beat", now, center.Version(), cart.Version(), pay.Version())); err != nil {
		t.Fatal(err)
	}
	var told []*pdp.Decided
	s := pdp.New(pdp.Config{Source: state, Now: clock, Events: func(e pdp.Event) { told = append(told, e.(*pdp.Decided)) }})
	for _, step := range []struct {
		passes    time.Duration
		cart, pay string
	}{
		{0, "true []", "true []"},
		{time.Minute, "true []", "true []"},
		{time.Millisecond, "true []", "false [shop.pay]"},
		{time.Hour, "true [shop shop.cart]", "false [shop shop.pay]"},
	} {
		now = now.Add(step.passes)
		rs := []policy.Request{testkit.Request("shop.cart", "Add"), testkit.Request("shop.pay", "Charge")}
		results, err := s.AuthorizeBatch(t.Context(), rs)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{step.cart, step.pay} {
			one, err := s.Authorize(t.Context(), rs[i])
			if err != nil || results[i].Err != nil {
				t.Fatal(err, results[i].Err)
			}
			for _, d := range []policy.Decision{one, results[i].Decision, *told[len(told)-1].Decision} {
				if got := fmt.Sprint(d.Allowed, " ", d.Stale); got != want {
					t.Errorf("after %v, %s: got %s, want %s", step.passes, rs[i].Namespace, got, want)
				}
			}
		}
	}
}
