package cache_test

import (
	"context"
	"testing"
	"time"

	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// dear is a policy that takes several times as long to evaluate as to look up, so that
// the embedded client remembers what it decides, and little of what an RPC takes. It
// reads what policies often read.
const dear = `allow if {
	input.subject.id == "spiffe://shop.example/ns/default/sa/frontend"
	input.subject.properties.department in {"sales", "support"}
	input.action.name == "AddItem"
	input.resource.type == "grpc"
	input.time.hour >= 0
	some i in numbers.range(1, 100)
	i == 75
}`

// call is a request as an interceptor makes it, with a context that no policy
// reads and no other call has.
func call(t testing.TB) policy.Request {
	return policy.Request{
		Namespace: cart,
		Subject: policy.Entity{Type: "workload", ID: "spiffe://shop.example/ns/default/sa/frontend", Properties: testkit.Properties(t, map[string]any{
			"department": "sales", "region": "eu-west", "on_call": true, "roles": []string{"cashier", "auditor"},
		})},
		Action:   policy.Action{Name: "AddItem"},
		Resource: policy.Entity{Type: "grpc", ID: "hipstershop.CartService"},
		Context:  testkit.Properties(t, map[string]any{"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "user_agent": "grpc-go/1.75.0"}),
	}
}

// deciders decide by the same releases: each of both clients as it is, and the
// remote one without a cache, which asks its PDP each time.
type deciders struct {
	embedded    *embedded.Client
	remote, rpc *remote.Client
	r           policy.Request
}

// decide starts a NATS server with accounts, a PDP that has releases of a namespace and
// its guardrail, and clients that remember the decision about a request.
func decide(t testing.TB) *deciders {
	t.Helper()
	domain := testkit.NewDomain(t)
	url := domain.ServeNATS(t.TempDir()).URL()
	p := domain.StartPDP(url, t.TempDir())
	domain.Push(p, "center", "shop", `deny contains "never" if input.action.name == "Forbidden"`)
	domain.Push(p, "cart", cart, dear)

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	d := &deciders{r: call(t)}
	var err error
	if d.embedded, err = embedded.New(ctx, embedded.Config{NATS: url, TrustFile: domain.TrustFile, Namespaces: []policy.Namespace{cart}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.embedded.Close)
	d.remote = newRemote(t, p.Addr, cache.Config{})
	d.rpc = newRemote(t, p.Addr, cache.Config{Entries: -1})
	d.remember(ctx, t, d.embedded, func() cache.Stats { return d.embedded.Status().Cache })
	d.remember(ctx, t, d.remote, func() cache.Stats { return d.remote.Status().Cache })
	return d
}

func newRemote(t testing.TB, server string, keep cache.Config) *remote.Client {
	t.Helper()
	c, err := remote.New(t.Context(), remote.Config{Servers: []string{server}, Namespaces: []policy.Namespace{cart}, Cache: keep})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// remember asks until what a client is asked many times in a row is remembered: the
// remote one must be told first what decides, and the embedded one find out what
// pays.
func (d *deciders) remember(ctx context.Context, t testing.TB, who policy.Authorizer, stats func() cache.Stats) {
	t.Helper()
	const row = 500
	for hits := uint64(0); hits < row; {
		before := stats().Hits
		for range row {
			if decision, err := who.Authorize(ctx, d.r); err != nil || !decision.Allowed || len(decision.Versions) != 2 {
				t.Fatalf("got %+v, %v", decision, err)
			}
		}
		hits = stats().Hits - before
	}
}

func TestARememberedDecisionAllocatesNothing(t *testing.T) {
	if underRace {
		t.Skip("the race detector has pools forget")
	}
	d := decide(t)
	for name, c := range map[string]struct {
		policy.Authorizer
		stats func() cache.Stats
	}{
		"embedded": {d.embedded, func() cache.Stats { return d.embedded.Status().Cache }},
		"remote":   {d.remote, func() cache.Stats { return d.remote.Status().Cache }},
	} {
		t.Run(name, func(t *testing.T) {
			const asks = 10_000
			before := c.stats()
			// Others in the process allocate now and then; this counts whole allocations
			// a call.
			allocated := testing.AllocsPerRun(asks, func() {
				if decision, err := c.Authorize(t.Context(), d.r); err != nil || !decision.Allowed {
					t.Fatalf("got %+v, %v", decision, err)
				}
			})
			after := c.stats()
			if hits := after.Hits - before.Hits; hits < asks*99/100 {
				t.Errorf("%d hits of %d", hits, asks)
			}
			if allocated != 0 {
				t.Errorf("%g allocations", allocated)
			}
		})
	}
}

// BenchmarkHit is a decision that is remembered, from the request on: looked up by the
// embedded and the remote client, and asked for over gRPC on loopback, one call at a time.
// "x-" is how many times as long as a hit of that client the call took.
func BenchmarkHit(b *testing.B) {
	d := decide(b)
	took := map[string]float64{}
	for _, c := range []struct {
		name string
		policy.Authorizer
	}{{"embedded", d.embedded}, {"remote", d.remote}, {"rpc", d.rpc}} {
		b.Run(c.name, func(b *testing.B) {
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				if decision, err := c.Authorize(ctx, d.r); err != nil || !decision.Allowed {
					b.Fatalf("got %+v, %v", decision, err)
				}
			}
			took[c.name] = float64(b.Elapsed().Nanoseconds()) / float64(b.N)
			for _, name := range []string{"embedded", "remote"} {
				if c.name == "rpc" && took[name] > 0 {
					b.ReportMetric(took["rpc"]/took[name], "x-"+name)
				}
			}
		})
	}
}
