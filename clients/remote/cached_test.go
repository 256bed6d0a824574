package remote_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

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
		return testkit.Properties(t, m)
	}
	return request("shop.cart", []string{"Add", "Get", "Drop"}[rnd.IntN(3)], func(r *policy.Request) {
		r.Subject.ID = []string{"spiffe://shop/a", "spiffe://elsewhere/b"}[rnd.IntN(2)]
		r.Subject.Properties = some("role", "trace")
		r.Resource.Properties = some("frozen")
		r.Context = some("mfa", "list", "age", "trace")
	})
}

func TestWhatIsRememberedIsWhatThePDPWouldDecide(t *testing.T) {
	d, now := testkit.NewDomain(t), new(testkit.Clock)
	n := startNode(t, d, now.Now)
	shop := d.Release("center", "shop", nil, d.Rego(`deny contains "outside" if not startswith(input.subject.id, "spiffe://shop/")`))
	cart := d.Release("cart", "shop.cart", nil, d.Rego(attributes))
	n.offer(shop, cart)
	c := remembering(t, now.Now, cart.Version(), n)
	rnd := rand.New(rand.NewPCG(1, 2))
	rs := make([]policy.Request, 400)
	for i := range rs {
		rs[i] = randomRequest(t, rnd)
	}
	for i := range 3000 {
		if i%500 == 499 {
			now.Pass(25 * time.Minute)
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
		testkit.Until(t, func() bool {
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

func TestAClientLooksUpByItsOwnClockAndFilesByThePDPs(t *testing.T) {
	d, there, here := testkit.NewDomain(t), new(testkit.Clock), new(testkit.Clock)
	n := startNode(t, d, there.Now)
	shop := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`))
	cart := d.Release("cart", "shop.cart", nil, d.Rego(`reasons contains sprintf("it is %d", [input.time.hour])`+"\nallow := true"))
	n.offer(shop, cart)
	here.Pass(time.Hour)
	c := remembering(t, here.Now, cart.Version(), n)
	r := request("shop.cart", "Add")
	ten := mustAsk(t, c, r)
	if ten.Evaluation.Time != there.Now().Unix() || ten.Reasons[0].Text != "it is 10" {
		t.Fatalf("got %+v", ten)
	}
	mustAsk(t, c, r) // here it is eleven
	there.Pass(time.Hour)
	if got := mustAsk(t, c, r); got.Reasons[0].Text != "it is 11" {
		t.Errorf("got %+v", got)
	}
	there.Pass(time.Hour)
	if got := mustHit(t, c, r); got.Reasons[0].Text != "it is 11" || got.Evaluation.Time != here.Now().Unix() {
		t.Errorf("got %+v", got)
	}
	here.Pass(-time.Hour)
	if got := mustHit(t, c, r); full(got, nil) != full(ten, nil) || got.Evaluation != ten.Evaluation {
		t.Errorf("got %+v", got)
	}
}

func TestABatchIsRememberedWholeOrAskedWhole(t *testing.T) {
	d, now := testkit.NewDomain(t), new(testkit.Clock)
	n := startNode(t, d, now.Now)
	shop, cart, pay := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`)), d.Release("cart", "shop.cart", nil, d.Rego(attributes)), d.Release("pay", "shop.pay", nil, d.Rego(attributes))
	n.offer(shop, cart, pay)
	c := client(t, remote.Config{Servers: []string{n.server.addr}, Namespaces: []policy.Namespace{"shop.cart", "shop.pay"}, Now: now.Now})
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
