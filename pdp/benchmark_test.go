package pdp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"testing"
	"testing/fstest"

	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/examples/boutique"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/policy"
	microwallrego "github.com/microwall/microwall/policy/rego"
)

// BenchmarkAuthorize asks the same question at every door: may the Online
// Boutique's frontend add to a cart? The cart's own policy decides it, below
// the boutique's guardrail.
//
//	opa            OPA's prepared query over the same modules and data, with
//	               OPA's defaults and the request as a Go map: the floor that
//	               somebody who links OPA stands on, without releases, limits,
//	               or errors that count
//	inprocess      pdp.Service
//	embedded       clients/embedded, which has answered this request before
//	embedded_miss  clients/embedded, a request that it has not seen
//	grpc           clients/remote and grpcapi over loopback, one call at a time
//	grpc_parallel  the same, one caller a processor
//
// Compare figures of one run only.
func BenchmarkAuthorize(b *testing.B) {
	d := testkit.NewDomain(b)
	guardrails, cart := boutiqueBundle(b, "guardrails"), boutiqueBundle(b, "cart")
	url := d.ServeNATS(b.TempDir()).URL()
	p := d.StartPDP(url, b.TempDir())
	for _, release := range []struct {
		key    string
		n      policy.Namespace
		bundle *bundles.Bundle
	}{{"center", "shop", guardrails}, {"cart", "shop.cart", cart}} {
		draft := d.Draft(release.key, release.n, "")
		draft.Bundle = release.bundle
		if _, err := d.PAP(p).Push(b.Context(), draft); err != nil {
			b.Fatal(err)
		}
	}

	b.Run("opa", func(b *testing.B) { benchmarkOPA(b, guardrails, cart) })
	b.Run("inprocess", func(b *testing.B) {
		s, err := live.NewLocal(b.Context(), map[policy.Namespace]*bundles.Bundle{"shop": guardrails, "shop.cart": cart},
			[]policy.Namespace{"shop"}, microwallrego.Options{})
		if err != nil {
			b.Fatal(err)
		}
		benchmark(b, pdp.New(pdp.Config{Source: s}), addItem(b, ""))
	})
	b.Run("embedded", func(b *testing.B) {
		c := embeddedClient(b, d, url, cache.Config{})
		mustAllow(b, c, addItem(b, ""))
		before := c.Status().Cache
		benchmark(b, c, addItem(b, ""))
		if after := c.Status().Cache; after.Misses != before.Misses {
			b.Errorf("not every call was a hit: %+v, then %+v", before, after)
		}
	})
	b.Run("embedded_miss", func(b *testing.B) {
		// More requests than the cache has room for, one after the other: each
		// is forgotten before it comes again.
		const room = 1000
		c := embeddedClient(b, d, url, cache.Config{Entries: room})
		requests := make([]policy.Request, 2*room)
		for i := range requests {
			requests[i] = addItem(b, fmt.Sprintf("%032x", i))
		}
		benchmark(b, c, requests...)
		if s := c.Status().Cache; s.Hits != 0 {
			b.Errorf("not every call was a miss: %+v", s)
		}
	})
	pdpClient, err := remote.New(b.Context(), remote.Config{Servers: []string{p.Addr}, Cache: cache.Config{Entries: -1}})
	if err != nil {
		b.Fatal(err)
	}
	defer pdpClient.Close()
	b.Run("grpc", func(b *testing.B) { benchmark(b, pdpClient, addItem(b, "")) })
	b.Run("grpc_parallel", func(b *testing.B) {
		r := addItem(b, "")
		mustAllow(b, pdpClient, r)
		b.ReportAllocs()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := allowed(b.Context(), pdpClient, r); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

// benchmark asks for requests in turn. The first call, which may connect, is
// not measured.
func benchmark(b *testing.B, a policy.Authorizer, requests ...policy.Request) {
	b.Helper()
	mustAllow(b, a, requests[len(requests)-1])
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		mustAllow(b, a, requests[i%len(requests)])
	}
}

func mustAllow(b *testing.B, a policy.Authorizer, r policy.Request) {
	if err := allowed(b.Context(), a, r); err != nil {
		b.Fatal(err)
	}
}

func allowed(ctx context.Context, a policy.Authorizer, r policy.Request) error {
	d, err := a.Authorize(ctx, r)
	if err == nil && (!d.Allowed || len(d.Versions) != 2) {
		err = fmt.Errorf("got %+v, want it allowed by the guardrail and the namespace", d)
	}
	return err
}

func embeddedClient(b *testing.B, d *testkit.Domain, url string, config cache.Config) *embedded.Client {
	b.Helper()
	c, err := embedded.New(b.Context(), embedded.Config{
		NATS: url, TrustFile: d.TrustFile, Namespaces: []policy.Namespace{"shop.cart"}, Dir: b.TempDir(), Cache: config,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	return c
}

// benchmarkOPA asks OPA alone. No two rules of the guardrail and the namespace
// have one name, so OPA takes both into one package and answers at once what a
// decision is made of.
func benchmarkOPA(b *testing.B, all ...*bundles.Bundle) {
	options := []func(*rego.Rego){rego.Query("allow = data.authz.allow; deny = data.authz.deny; obligations = data.authz.obligations")}
	data := map[string]any{}
	for i, bundle := range all {
		for _, m := range bundle.Modules() {
			options = append(options, rego.Module(fmt.Sprintf("%d/%s", i, m.Path), string(m.Source)))
		}
		var of map[string]any
		if err := json.Unmarshal(bundle.Data(), &of); err != nil {
			b.Fatal(err)
		}
		maps.Copy(data, of)
	}
	q, err := rego.New(append(options, rego.Store(inmem.NewFromObject(data)))...).PrepareForEval(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	input := map[string]any{
		"subject":  map[string]any{"type": "workload", "id": frontend, "properties": map[string]any{}},
		"action":   map[string]any{"name": "AddItem", "properties": map[string]any{}},
		"resource": map[string]any{"type": "grpc", "id": "hipstershop.CartService", "properties": map[string]any{}},
		"context":  map[string]any{"call_path": []any{frontend}},
	}
	b.ReportAllocs()
	for b.Loop() {
		results, err := q.Eval(b.Context(), rego.EvalInput(input))
		if err != nil || len(results) != 1 {
			b.Fatalf("got %v, %v", results, err)
		}
		allow, _ := results[0].Bindings["allow"].(bool)
		deny, ok := results[0].Bindings["deny"].([]any)
		if !allow || !ok || len(deny) != 0 {
			b.Fatalf("got %v", results)
		}
	}
}

const frontend = "spiffe://boutique.example/ns/default/sa/frontend"

// addItem is the request, with a trace id in its context if there is one. No
// policy reads that.
func addItem(b *testing.B, trace string) policy.Request {
	b.Helper()
	members := map[string]any{"call_path": []string{frontend}}
	if trace != "" {
		members["trace"] = trace
	}
	properties, err := policy.NewProperties(members)
	if err != nil {
		b.Fatal(err)
	}
	return policy.Request{
		Namespace: "shop.cart",
		Subject:   policy.Entity{Type: "workload", ID: frontend},
		Action:    policy.Action{Name: "AddItem"},
		Resource:  policy.Entity{Type: "grpc", ID: "hipstershop.CartService"},
		Context:   properties,
	}
}

// boutiqueBundle returns one of the boutique's folders as a bundle, without the
// manifest, which names a namespace of the boutique.
func boutiqueBundle(b *testing.B, folder string) *bundles.Bundle {
	b.Helper()
	entries, err := fs.ReadDir(boutique.FS, folder)
	if err != nil {
		b.Fatal(err)
	}
	files := fstest.MapFS{}
	for _, e := range entries {
		if e.Name() == ".manifest" {
			continue
		}
		content, err := fs.ReadFile(boutique.FS, path.Join(folder, e.Name()))
		if err != nil {
			b.Fatal(err)
		}
		files[e.Name()] = &fstest.MapFile{Data: content}
	}
	bundle, err := bundles.Read(files)
	if err != nil {
		b.Fatal(err)
	}
	return bundle
}
