package remote_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/pdp/grpcapi"
	"github.com/microwall/microwall/policy"
)

// clock is one that a test sets.
type clock struct{ ahead atomic.Int64 }

func (c *clock) pass(d time.Duration) { c.ahead.Add(int64(d)) }
func (c *clock) now() time.Time       { return testkit.Created.Add(time.Duration(c.ahead.Load())) }

// node is a PDP that has the releases which a test hands it.
type node struct {
	t       testing.TB
	d       *testkit.Domain
	state   *live.Live
	service *pdp.Service
	server  server
	asked   atomic.Int64 // requests
	// before, if set, is called before a request is decided.
	before atomic.Pointer[func(context.Context)]
}

func startNode(t testing.TB, d *testkit.Domain, now func() time.Time) *node {
	t.Helper()
	state, err := live.New(t.Context(), live.Config{Trust: d.Trust(), Now: now})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, d: d, state: state, service: pdp.New(pdp.Config{Source: state, Now: now})}
	n.serve("127.0.0.1:0")
	return n
}

func (n *node) serve(address string) {
	n.server = serve(n.t, address, grpcapi.New(grpcapi.Config{Decide: n, Watch: n.service}))
}

func (n *node) Authorize(ctx context.Context, r policy.Request) (policy.Decision, error) {
	n.asked.Add(1)
	if f := n.before.Load(); f != nil {
		(*f)(ctx)
	}
	return n.service.Authorize(ctx, r)
}

func (n *node) AuthorizeBatch(ctx context.Context, rs []policy.Request) ([]policy.Result, error) {
	n.asked.Add(int64(len(rs)))
	return n.service.AuthorizeBatch(ctx, rs)
}

// offer brings releases.
func (n *node) offer(all ...testkit.Release) {
	n.t.Helper()
	for _, r := range all {
		if err := n.state.Offer(n.t.Context(), r.Note(), func(context.Context) ([]byte, error) { return r.Packed, nil }); err != nil {
			n.t.Fatal(err)
		}
	}
}

// prove brings a beacon.
func (n *node) prove(at time.Time, heads ...testkit.Release) {
	n.t.Helper()
	for _, h := range heads {
		if err := n.state.Prove(n.d.Beacon("beat", at, h.Version())); err != nil {
			n.t.Fatal(err)
		}
	}
}

// remembers waits until a client looks decisions of a namespace up by a version of it.
func remembers(t *testing.T, c *remote.Client, v policy.Version) {
	t.Helper()
	until(t, func() bool {
		for _, n := range c.Status().Namespaces {
			if n.Namespace == v.Namespace {
				return n.Remembered && n.Versions[len(n.Versions)-1] == v
			}
		}
		return false
	})
}

// full says all that a decision says, but when it was made.
func full(d policy.Decision, err error) string {
	return fmt.Sprintf("%s stale %v %v by %s", spelling(d, err), d.Stale, d.StaleDenied, d.Evaluation.Engine)
}

// mustHit asks, and fails if a PDP was asked.
func mustHit(t *testing.T, c *remote.Client, r policy.Request) policy.Decision {
	t.Helper()
	before := c.Status()
	d, err := c.Authorize(t.Context(), r)
	if after := c.Status(); err != nil || after.Asked != before.Asked {
		t.Fatalf("a PDP was asked, it says %v", spelling(d, err))
	}
	return d
}

// mustAsk asks, and fails if no PDP was asked.
func mustAsk(t *testing.T, c *remote.Client, r policy.Request) policy.Decision {
	t.Helper()
	before := c.Status()
	d, err := c.Authorize(t.Context(), r)
	if after := c.Status(); err != nil || after.Asked == before.Asked {
		t.Fatalf("no PDP was asked, or it failed: %v", spelling(d, err))
	}
	return d
}

// attributes is a policy that reads some of the request.
const attributes = `
	default allow := false
	allow if input.action.name in {"Add", "Get"}
	allow if input.context.mfa == true
	deny contains "frozen" if input.resource.properties.frozen
	deny contains msg if { input.context.list[0] == "x"; msg := sprintf("%v at %v", [input.context.list, input.time.hour]) }
	reasons contains input.subject.properties.role if allow
	obligations["mfa"] := {"max_age": input.context.age} if input.action.name == "Add"
`

func randomRequest(t *testing.T, rnd *rand.Rand) policy.Request {
	values := []any{nil, true, false, 0, 1, 1.5, "", "x", "1", []any{}, []any{"x"}, []any{"x", 1}, map[string]any{}, map[string]any{"a": 1}}
	pick := func() any { return values[rnd.IntN(len(values))] }
	some := func(names ...string) policy.Properties {
		m := map[string]any{}
		for _, n := range names {
			if rnd.IntN(3) > 0 {
				m[n] = pick()
			}
		}
		return properties(t, m)
	}
	return request("shop.cart", []string{"Add", "Get", "Drop"}[rnd.IntN(3)], func(r *policy.Request) {
		r.Subject.ID = []string{"spiffe://shop/a", "spiffe://elsewhere/b"}[rnd.IntN(2)]
		r.Subject.Properties = some("role", "trace")
		r.Resource.Properties = some("frozen")
		r.Context = some("mfa", "list", "age", "trace")
	})
}

func TestWhatIsRememberedIsWhatThePDPWouldDecide(t *testing.T) {
	d, now := testkit.NewDomain(t), new(clock)
	n := startNode(t, d, now.now)
	shop := d.Release("center", "shop", nil, d.Rego(`deny contains "outside" if not startswith(input.subject.id, "spiffe://shop/")`))
	cart := d.Release("cart", "shop.cart", nil, d.Rego(attributes))
	n.offer(shop, cart)
	c := client(t, remote.Config{Servers: []string{n.server.addr}, Namespaces: []policy.Namespace{"shop.cart"}, Now: now.now})
	remembers(t, c, cart.Version())
	rnd := rand.New(rand.NewPCG(1, 2))
	rs := make([]policy.Request, 400)
	for i := range rs {
		rs[i] = randomRequest(t, rnd)
	}
	for i := range 3000 {
		if i%500 == 499 {
			now.pass(25 * time.Minute)
		}
		r := rs[rnd.IntN(len(rs))]
		want, wantErr := n.service.Authorize(t.Context(), r)
		got, err := c.Authorize(t.Context(), r)
		if full(got, err) != full(want, wantErr) {
			t.Fatalf("%+v\nclient %s\nPDP    %s", r, full(got, err), full(want, wantErr))
		}
	}
	if s := c.Status(); s.Cache.Hits < 500 || s.Asked+s.Cache.Hits != 3000 {
		t.Errorf("%+v", s)
	}
}

func TestATraceIDCostsNoHit(t *testing.T) {
	d, now := testkit.NewDomain(t), new(clock)
	n := startNode(t, d, now.now)
	shop, cart := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`)), d.Release("cart", "shop.cart", nil, d.Rego(attributes))
	n.offer(shop, cart)
	hits := func(unique bool) uint64 {
		c := client(t, remote.Config{Servers: []string{n.server.addr}, Namespaces: []policy.Namespace{"shop.cart"}, Now: now.now})
		remembers(t, c, cart.Version())
		for i := range 500 {
			r := request("shop.cart", []string{"Add", "Get", "Drop"}[i%3], func(r *policy.Request) {
				if unique {
					r.Context = properties(t, map[string]any{"trace": fmt.Sprint(i), "at": i})
				}
			})
			if _, err := c.Authorize(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		return c.Status().Cache.Hits
	}
	if with, without := hits(true), hits(false); with != without || with != 497 {
		t.Errorf("%d hits with a trace id, %d without", with, without)
	}
}

func TestANewReleaseReachesAClientThatRemembers(t *testing.T) {
	d := testkit.NewDomain(t)
	p := d.StartPDP(testkit.NATS(t, t.TempDir()).URL(), t.TempDir())
	d.Push(p, "center", "shop", `deny contains "never" if false`)
	d.Push(p, "cart", "shop.cart", `allow if input.action.name == "Add"`)
	c := client(t, remote.Config{Servers: []string{p.Addr}})
	for i := range 20 {
		want := i%2 == 1
		pushed := d.Push(p, "cart", "shop.cart", fmt.Sprintf(`allow if { input.action.name != "Drop"; %v }`, want))
		begun := time.Now()
		until(t, func() bool {
			got, err := c.Authorize(t.Context(), request("shop.cart", "Add"))
			if err != nil {
				t.Fatal(err)
			}
			newest := got.Versions[1] == pushed.Release.Version()
			if newest && got.Allowed != want {
				t.Fatalf("release %d says %v", pushed.Release.Version().Revision, got.Allowed)
			}
			return newest
		})
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("a push reached the client after %s", took)
		}
		remembers(t, c, pushed.Release.Version())
		mustAsk(t, c, request("shop.cart", fmt.Sprint("first", i)))
		if got := mustHit(t, c, request("shop.cart", fmt.Sprint("first", i))); got.Allowed != want {
			t.Fatalf("remembered %v", got.Allowed)
		}
		// What the token of the push stands for decides already.
		r := request("shop.cart", fmt.Sprint("first", i))
		r.Freshness = policy.AtLeast(pushed.Release.Version().Token())
		mustHit(t, c, r)
	}
}

func TestAPDPThatIsBehindIsPassedOver(t *testing.T) {
	d, now := testkit.NewDomain(t), new(clock)
	shop := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`))
	one := d.Release("cart", "shop.cart", nil, d.Rego("allow := true"))
	two := d.Release("cart", "shop.cart", one.Signed, d.Rego("allow := input.action.name == \"never\""))
	behind, ahead := startNode(t, d, now.now), startNode(t, d, now.now)
	behind.offer(shop, one)
	ahead.offer(shop, one, two)
	for name, entries := range map[string]int{"with a cache": 0, "without": -1} {
		t.Run(name, func(t *testing.T) {
			c := client(t, remote.Config{Servers: []string{behind.server.addr, ahead.server.addr}, Cache: cache.Config{Entries: entries}, Now: now.now})
			asked, newest := behind.asked.Load(), false
			for i := range 100 {
				r := request("shop.cart", fmt.Sprint(i))
				var got policy.Decision
				var err error
				if i%2 == 0 {
					got, err = c.Authorize(t.Context(), r)
				} else {
					got, err = onlyOne(c.AuthorizeBatch(t.Context(), []policy.Request{r}))
				}
				if err != nil {
					t.Fatal(err)
				}
				switch got.Versions[1] {
				case two.Version():
					newest = true
				case one.Version():
					if newest {
						t.Fatalf("request %d was decided by release 1 after release 2 was seen", i)
					}
				}
			}
			if !newest || behind.asked.Load() < asked+10 {
				t.Errorf("newest seen: %v, the one behind was asked %d times", newest, behind.asked.Load()-asked)
			}
			if s := c.Status(); s.PDPs[0].Ejected != 0 || s.Failed != 0 {
				t.Errorf("one that answers was left alone: %+v", s)
			}
		})
	}
	t.Run("and alone", func(t *testing.T) {
		c := client(t, remote.Config{Servers: []string{behind.server.addr, ahead.server.addr}, Now: now.now})
		until(t, func() bool {
			got, err := c.Authorize(t.Context(), request("shop.cart", fmt.Sprint(rand.Int())))
			return err == nil && got.Versions[1] == two.Version()
		})
		ahead.server.stop()
		for i := range 3 {
			if got, err := c.Authorize(t.Context(), request("shop.cart", fmt.Sprint("x", i))); policy.KindOf(err) != policy.Unavailable || got.Allowed {
				t.Errorf("got %s", spelling(got, err))
			}
		}
	})
}

func TestAWatchMovesToAPDPThatIsNotBehind(t *testing.T) {
	d, now := testkit.NewDomain(t), new(clock)
	shop := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`))
	one := d.Release("cart", "shop.cart", nil, d.Rego("allow := input.action.name != \"Drop\""))
	two := d.Release("cart", "shop.cart", one.Signed, d.Rego("allow := input.action.name == \"Drop\""))
	nodes := []*node{startNode(t, d, now.now), startNode(t, d, now.now)}
	for _, n := range nodes {
		n.offer(shop, one)
	}
	c := client(t, remote.Config{Servers: []string{nodes[0].server.addr, nodes[1].server.addr}, Namespaces: []policy.Namespace{"shop.cart"}, Now: now.now})
	remembers(t, c, one.Version())
	watched := slices.IndexFunc(nodes, func(n *node) bool { return n.server.addr == c.Status().Watched })
	nodes[1-watched].offer(two)
	for i := range 4 { // until the other one has answered
		if _, err := c.Authorize(t.Context(), request("shop.cart", fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if s := c.Status().Namespaces[0]; s.Remembered {
		t.Errorf("decisions of an older release are still handed out: %+v", s)
	}
	remembers(t, c, two.Version())
	if got := c.Status().Watched; got != nodes[1-watched].server.addr {
		t.Errorf("%s is watched", got)
	}
}

// proven is a domain whose guardrail serves when it is stale, and whose shop.cart denies.
func proven(t *testing.T, when string) (d *testkit.Domain, heads []testkit.Release) {
	t.Helper()
	d = testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}, More: map[policy.Namespace]string{"shop.cart": "max-staleness: 1m, when-stale: " + when}})
	return d, []testkit.Release{
		d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`)),
		d.Release("cart", "shop.cart", nil, d.Rego("allow := input.action.name != \"Drop\"")),
	}
}

func TestWhatIsRememberedGrowsStaleAsItsAuthorsSay(t *testing.T) {
	for when, want := range map[string]string{"serve": "true [shop.cart] false", "deny": "false [shop.cart] true"} {
		t.Run(when, func(t *testing.T) {
			d, heads := proven(t, when)
			now := new(clock)
			n := startNode(t, d, now.now)
			n.offer(heads...)
			n.prove(now.now(), heads...)
			c := client(t, remote.Config{Servers: []string{n.server.addr}, Namespaces: []policy.Namespace{"shop.cart"}, Now: now.now})
			remembers(t, c, heads[1].Version())
			r := request("shop.cart", "Add")
			mustAsk(t, c, r)
			n.server.stop()
			now.pass(59 * time.Second)
			if got := mustHit(t, c, r); !got.Allowed || len(got.Stale) > 0 {
				t.Errorf("believed still: %s", full(got, nil))
			}
			now.pass(2 * time.Second)
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
			n.prove(now.now(), heads...)
			n.serve(n.server.addr)
			until(t, func() bool { return one() == "true [] false" })
		})
	}
}

// A decision that only staleness denies is not to be found when the proof is there.
func TestADenialByStalenessIsNotRemembered(t *testing.T) {
	d, heads := proven(t, "deny")
	now := new(clock)
	n := startNode(t, d, now.now)
	n.offer(heads...)
	c := client(t, remote.Config{Servers: []string{n.server.addr}, Namespaces: []policy.Namespace{"shop.cart"}, Now: now.now})
	remembers(t, c, heads[1].Version())
	r := request("shop.cart", "Add")
	if got := mustAsk(t, c, r); got.Allowed || !got.StaleDenied {
		t.Errorf("never proven: %s", full(got, nil))
	}
	if got := c.Status().Cache.Entries; got != 0 {
		t.Errorf("%d decisions are remembered", got)
	}
	n.prove(now.now(), heads...)
	if got := mustAsk(t, c, r); !got.Allowed || len(got.Stale) > 0 {
		t.Errorf("proven: %s", full(got, nil))
	}
	until(t, func() bool { return !c.Status().Namespaces[0].Stale })
	mustHit(t, c, r)
}

// What is served although it is stale is remembered without that.
func TestStaleIsNotRemembered(t *testing.T) {
	d, heads := proven(t, "serve")
	now := new(clock)
	n := startNode(t, d, now.now)
	n.offer(heads...)
	c := client(t, remote.Config{Servers: []string{n.server.addr}, Namespaces: []policy.Namespace{"shop.cart"}, Now: now.now})
	remembers(t, c, heads[1].Version())
	r := request("shop.cart", "Add")
	if got := mustAsk(t, c, r); !got.Allowed || len(got.Stale) != 2 {
		t.Errorf("never proven: %s", full(got, nil))
	}
	n.prove(now.now(), heads...)
	until(t, func() bool { return !c.Status().Namespaces[0].Stale })
	if got := mustHit(t, c, r); !got.Allowed || len(got.Stale) > 0 {
		t.Errorf("proven: %s", full(got, nil))
	}
}

func TestManyWhoAskTheSameAreAnsweredByOneCall(t *testing.T) {
	d, now := testkit.NewDomain(t), new(clock)
	n := startNode(t, d, now.now)
	shop, cart := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`)), d.Release("cart", "shop.cart", nil, d.Rego(attributes))
	n.offer(shop, cart)
	c := client(t, remote.Config{Servers: []string{n.server.addr}, Namespaces: []policy.Namespace{"shop.cart"}, Now: now.now})
	remembers(t, c, cart.Version())
	gate := make(chan struct{})
	wait := func(context.Context) { <-gate }
	n.before.Store(&wait)
	var work sync.WaitGroup
	for i := range 50 {
		work.Go(func() {
			r := request("shop.cart", "Add", func(r *policy.Request) { r.Context = properties(t, map[string]any{"trace": i}) })
			if got, err := c.Authorize(t.Context(), r); err != nil || !got.Allowed {
				t.Error(spelling(got, err))
			}
		})
	}
	// One that gives up takes nothing from the others.
	ctx, cancel := context.WithCancel(t.Context())
	work.Go(func() {
		if _, err := c.Authorize(ctx, request("shop.cart", "Add")); !policy.Ended(err) {
			t.Error(err)
		}
	})
	until(t, func() bool { return c.Status().Waiting == 51 && c.Status().Coalesced == 50 })
	cancel()
	until(t, func() bool { return c.Status().Waiting == 50 })
	close(gate)
	work.Wait()
	if got := n.asked.Load(); got != 1 {
		t.Errorf("the PDP was asked %d times", got)
	}
}

// Two who are told apart by a release only that comes while they wait together.
func TestNobodyTakesAnAnswerByAPolicyThatTellsThemApart(t *testing.T) {
	d, now := testkit.NewDomain(t), new(clock)
	n := startNode(t, d, now.now)
	shop := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`))
	one := d.Release("cart", "shop.cart", nil, d.Rego("allow := true"))
	two := d.Release("cart", "shop.cart", one.Signed, d.Rego("default allow := false\nallow if input.subject.id == \"spiffe://shop/good\""))
	n.offer(shop, one)
	c := client(t, remote.Config{Servers: []string{n.server.addr}, Namespaces: []policy.Namespace{"shop.cart"}, Now: now.now})
	remembers(t, c, one.Version())
	gate := make(chan struct{})
	wait := func(context.Context) { <-gate }
	n.before.Store(&wait)
	var work sync.WaitGroup
	ask := func(id string, allowed bool) {
		work.Go(func() {
			got, err := c.Authorize(t.Context(), request("shop.cart", "Add", func(r *policy.Request) { r.Subject.ID = id }))
			if err != nil || got.Allowed != allowed || got.Versions[1] != two.Version() {
				t.Errorf("%s: %s", id, spelling(got, err))
			}
		})
	}
	ask("spiffe://shop/good", true)
	until(t, func() bool { return n.asked.Load() == 1 })
	for i := range 10 {
		ask(fmt.Sprintf("spiffe://shop/bad%d", i), false)
	}
	until(t, func() bool { return c.Status().Coalesced == 10 })
	n.offer(two)
	remembers(t, c, two.Version())
	close(gate)
	work.Wait()
}

func TestAClientLooksUpByItsOwnClockAndFilesByThePDPs(t *testing.T) {
	d, there, here := testkit.NewDomain(t), new(clock), new(clock)
	n := startNode(t, d, there.now)
	shop := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`))
	cart := d.Release("cart", "shop.cart", nil, d.Rego(`reasons contains sprintf("it is %d", [input.time.hour])`+"\nallow := true"))
	n.offer(shop, cart)
	here.pass(time.Hour)
	c := client(t, remote.Config{Servers: []string{n.server.addr}, Namespaces: []policy.Namespace{"shop.cart"}, Now: here.now})
	remembers(t, c, cart.Version())
	r := request("shop.cart", "Add")
	ten := mustAsk(t, c, r)
	if ten.Evaluation.Time != there.now().Unix() || ten.Reasons[0].Text != "it is 10" {
		t.Fatalf("got %+v", ten)
	}
	mustAsk(t, c, r) // here it is eleven
	there.pass(time.Hour)
	if got := mustAsk(t, c, r); got.Reasons[0].Text != "it is 11" {
		t.Errorf("got %+v", got)
	}
	there.pass(time.Hour)
	if got := mustHit(t, c, r); got.Reasons[0].Text != "it is 11" || got.Evaluation.Time != here.now().Unix() {
		t.Errorf("got %+v", got)
	}
	here.pass(-time.Hour)
	if got := mustHit(t, c, r); full(got, nil) != full(ten, nil) || got.Evaluation != ten.Evaluation {
		t.Errorf("got %+v", got)
	}
}

func TestABatchIsRememberedWholeOrAskedWhole(t *testing.T) {
	d, now := testkit.NewDomain(t), new(clock)
	n := startNode(t, d, now.now)
	shop, cart, pay := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`)), d.Release("cart", "shop.cart", nil, d.Rego(attributes)), d.Release("pay", "shop.pay", nil, d.Rego(attributes))
	n.offer(shop, cart, pay)
	c := client(t, remote.Config{Servers: []string{n.server.addr}, Namespaces: []policy.Namespace{"shop.cart", "shop.pay"}, Now: now.now})
	remembers(t, c, cart.Version())
	remembers(t, c, pay.Version())
	add, get, drop := request("shop.cart", "Add"), request("shop.cart", "Get"), request("shop.cart", "Drop")
	for _, step := range []struct {
		rs    []policy.Request
		asked uint64
		want  string
	}{
		{[]policy.Request{add, get}, 2, "true true"},
		{[]policy.Request{get, add, get}, 0, "true true true"},
		{[]policy.Request{add, drop}, 2, "true false"},
		{[]policy.Request{add, {}, drop}, 0, "true error false"},
		{[]policy.Request{drop}, 0, "false"},
		{[]policy.Request{add, request("shop.pay", "Add")}, 2, "true true"},
		{[]policy.Request{request("shop.pay", "Add")}, 0, "true"},
		// What decides in two namespaces was not told at once.
		{[]policy.Request{add, request("shop.pay", "Add")}, 2, "true true"},
	} {
		before := c.Status().Asked
		results, err := c.AuthorizeBatch(t.Context(), step.rs)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range results {
			if r.Err != nil {
				got = append(got, "error")
				continue
			}
			got = append(got, fmt.Sprint(r.Decision.Allowed))
		}
		if asked := c.Status().Asked - before; asked != step.asked || strings.Join(got, " ") != step.want {
			t.Errorf("%d asked, want %d: %v, want %s", asked, step.asked, got, step.want)
		}
	}
	mustHit(t, c, drop)
	// All of one batch have what any of them asks for.
	fresh := drop
	fresh.Freshness = policy.Head
	before := c.Status().Asked
	if results, err := c.AuthorizeBatch(t.Context(), []policy.Request{add, fresh}); policy.KindOf(err) != policy.Unavailable || c.Status().Asked != before+2 {
		t.Errorf("nobody can confirm here, and yet: %v, %v", results, err)
	}
}

func TestFreshnessIsWhatWasAskedFor(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}})
	now := new(clock)
	n := startNode(t, d, now.now)
	shop := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`))
	one := d.Release("cart", "shop.cart", nil, d.Rego("allow := true"))
	two := d.Release("cart", "shop.cart", one.Signed, d.Rego("allow := false"))
	n.offer(shop, one)
	n.prove(now.now(), shop, one)
	c := client(t, remote.Config{Servers: []string{n.server.addr}, Namespaces: []policy.Namespace{"shop.cart"}, Now: now.now, Timeout: 300 * time.Millisecond})
	remembers(t, c, one.Version())
	mustAsk(t, c, request("shop.cart", "Add"))
	until(t, func() bool { return !c.Status().Namespaces[0].Stale })
	with := func(f policy.Freshness) policy.Request {
		r := request("shop.cart", "Add")
		r.Freshness = f
		return r
	}
	ofPay := policy.Version{Namespace: "shop.pay", Epoch: 1, Revision: 1, Digest: policy.DigestOf(nil)}
	earlier := one.Version()
	earlier.Epoch = 0
	other := one.Version()
	other.Digest = policy.DigestOf(nil)
	mustHit(t, c, with(policy.AtLeast(one.Version().Token(), shop.Version().Token())))
	mustHit(t, c, with(policy.Freshness{}.NotBefore(one.Version())))
	for name, test := range map[string]struct {
		f    policy.Freshness
		kind policy.Kind
	}{
		"the head":                    {policy.Head, policy.Unavailable},
		"a release that is not there": {policy.AtLeast(two.Version().Token()), policy.Unavailable},
		"one of another namespace":    {policy.AtLeast(ofPay.Token()), policy.Unavailable},
		"one of an earlier epoch":     {policy.AtLeast(earlier.Token()), policy.Unavailable},
		"one that was made up":        {policy.AtLeast(other.Token()), policy.Unavailable},
		"one of two":                  {policy.AtLeast(one.Version().Token(), two.Version().Token()), policy.Unavailable},
		"what is no token":            {policy.AtLeast("mw1.x"), policy.BadRequest},
		"what was seen elsewhere":     {policy.Freshness{}.NotBefore(two.Version()), policy.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			before := c.Status().Asked
			got, err := c.Authorize(t.Context(), with(test.f))
			if got.Allowed || policy.KindOf(err) != test.kind {
				t.Errorf("got %s", spelling(got, err))
			}
			if asked := c.Status().Asked > before; asked != (test.kind == policy.Unavailable) {
				t.Errorf("asked is %v", asked)
			}
		})
	}
	n.offer(two)
	remembers(t, c, two.Version())
	if got := mustAsk(t, c, with(policy.AtLeast(two.Version().Token()))); got.Allowed {
		t.Error("decided by the release before")
	}
	mustHit(t, c, with(policy.AtLeast(one.Version().Token())))
}

func TestCallsThatWaitAreBounded(t *testing.T) {
	d, now := testkit.NewDomain(t), new(clock)
	n := startNode(t, d, now.now)
	n.offer(d.Release("center", "shop", nil, d.Rego(`allow := true`)))
	gate := make(chan struct{})
	wait := func(context.Context) { <-gate }
	n.before.Store(&wait)
	c := client(t, remote.Config{Servers: []string{n.server.addr}, InFlight: 2, Now: now.now})
	var work sync.WaitGroup
	for i := range 2 {
		work.Go(func() {
			if got, err := c.Authorize(t.Context(), request("shop", fmt.Sprint(i))); err != nil {
				t.Error(spelling(got, err))
			}
		})
	}
	until(t, func() bool { return n.asked.Load() == 2 })
	if got, err := c.Authorize(t.Context(), request("shop", "third")); policy.KindOf(err) != policy.Exhausted || !strings.Contains(err.Error(), "InFlight") {
		t.Error(spelling(got, err))
	}
	if _, err := c.AuthorizeBatch(t.Context(), []policy.Request{request("shop", "third")}); policy.KindOf(err) != policy.Exhausted {
		t.Error(err)
	}
	close(gate)
	work.Wait()
	if got, err := c.Authorize(t.Context(), request("shop", "third")); err != nil {
		t.Error(spelling(got, err))
	}
}

func TestAHitAllocatesNothing(t *testing.T) {
	c, r := hitting(t)
	if n := testing.AllocsPerRun(100, func() {
		if d, err := c.Authorize(t.Context(), r); err != nil || !d.Allowed {
			t.Fatal(spelling(d, err))
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkHit(b *testing.B) {
	c, r := hitting(b)
	b.ReportAllocs()
	for b.Loop() {
		if d, err := c.Authorize(b.Context(), r); err != nil || !d.Allowed {
			b.Fatal(spelling(d, err))
		}
	}
}

// hitting returns a client that has the answer to a request.
func hitting(t testing.TB) (*remote.Client, policy.Request) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}})
	n := startNode(t, d, nil)
	shop, cart := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`)), d.Release("cart", "shop.cart", nil, d.Rego(attributes))
	n.offer(shop, cart)
	n.prove(time.Now(), shop, cart)
	c := client(t, remote.Config{Servers: []string{n.server.addr}, Namespaces: []policy.Namespace{"shop.cart"}})
	r := request("shop.cart", "Add", func(r *policy.Request) {
		r.Context = properties(t, map[string]any{"mfa": true, "call_path": []string{"spiffe://shop/edge", "spiffe://shop/frontend"}, "trace": "4bf92f3577b34da6"})
	})
	for end := time.Now().Add(10 * time.Second); c.Status().Cache.Hits == 0; {
		if d, err := c.Authorize(t.Context(), r); err != nil || !d.Allowed || time.Now().After(end) {
			t.Fatal(spelling(d, err))
		}
	}
	return c, r
}
