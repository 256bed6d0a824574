package remote_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/internal/tlsfiles"
	"github.com/microwall/microwall/internal/tlsfiles/tlstest"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/pdp/grpcapi"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// shop is decided by real policies: a guardrail, and one namespace below it.
func shop(t testing.TB) *pdp.Service {
	t.Helper()
	d := testkit.NewDomain(t)
	s, err := live.NewLocal(t.Context(), map[policy.Namespace]*bundles.Bundle{
		"shop": d.Rego(`
			deny contains "outside" if not startswith(input.subject.id, "spiffe://shop/")
			obligations["log"] := "all" if input.action.name == "Add"
		`),
		"shop.cart": d.Rego(`
			default allow := false
			allow if input.action.name in {"Add", "Get"}
			allow if input.context.mfa == true
			allow if input.subject.properties.role == "clerk"
			deny contains "frozen" if input.resource.properties.frozen
			reasons contains "it is a cart" if allow
			obligations["mfa"] := {"max_age": 300} if input.action.name == "Add"
			obligations["order"] := 9007199254740993 if input.action.name == "Huge"
			allow if input.action.name == "Huge"
		`),
		"shop.broken": d.Rego(`allow if to_number(input.action.name) > 1`),
	}, []policy.Namespace{"shop"}, rego.Options{Budget: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return pdp.New(pdp.Config{Source: s})
}

// server is a gRPC server on loopback that ends with the test, or before.
type server struct {
	addr string
	stop func()
}

func serve(t testing.TB, address string, s interface {
	Serve(net.Listener) error
	Stop()
}) server {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return server{l.Addr().String(), testkit.Serve(t, l, s, s.Stop)}
}

func servePDP(t testing.TB, decide policy.Authorizer) server {
	t.Helper()
	return serve(t, "127.0.0.1:0", grpcapi.New(grpcapi.Config{Decide: decide}))
}

func client(t testing.TB, config remote.Config) *remote.Client {
	t.Helper()
	c, err := remote.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func request(n policy.Namespace, action string, change ...func(*policy.Request)) policy.Request {
	r := testkit.Request(n, action)
	for _, c := range change {
		c(&r)
	}
	return r
}

func stranger(r *policy.Request) { r.Subject.ID = "spiffe://elsewhere/frontend" }

// spelling says all that a result says, in one way.
func spelling(d policy.Decision, err error) string {
	if err != nil {
		return fmt.Sprintf("%v: %v: %v %v", policy.KindOf(err), err, d.Allowed, d.Reasons)
	}
	return fmt.Sprintf("%v %v %v %v", d.Allowed, d.Reasons, d.Obligations, d.Versions)
}

func TestARemoteClientDecidesAsThePDPDoes(t *testing.T) {
	service := shop(t)
	c := client(t, remote.Config{Servers: []string{servePDP(t, service).addr}})
	frozen := func(r *policy.Request) {
		r.Resource.Properties = testkit.Properties(t, map[string]any{"frozen": true, "n": []any{1, 2.5, "x", nil}})
	}
	mfa := func(r *policy.Request) { r.Context = testkit.Properties(t, map[string]any{"mfa": true}) }
	clerk := func(r *policy.Request) { r.Subject.Properties = testkit.Properties(t, map[string]any{"role": "clerk"}) }
	cases := []struct {
		name    string
		r       policy.Request
		allowed bool
		kind    policy.Kind // of the error, if there is one
		errs    bool
	}{
		{"allowed, with reasons and obligations", request("shop.cart", "Add"), true, 0, false},
		{"allowed, with an obligation of nobody", request("shop.cart", "Get"), true, 0, false},
		{"denied by default", request("shop.cart", "Drop"), false, 0, false},
		{"denied by the team", request("shop.cart", "Add", frozen), false, 0, false},
		{"denied by the guardrail", request("shop.cart", "Add", stranger), false, 0, false},
		{"denied by both", request("shop.cart", "Add", stranger, frozen), false, 0, false},
		{"allowed by the context", request("shop.cart", "Drop", mfa), true, 0, false},
		{"allowed by the subject's properties", request("shop.cart", "Drop", clerk), true, 0, false},
		{"an unknown namespace", request("shop.other", "Add"), false, policy.NotFound, true},
		{"an ancestor", request("shop", "Add"), false, 0, false},
		{"a policy that fails", request("shop.broken", "x"), false, policy.Failed, true},
		{"no subject", request("shop.cart", "Add", func(r *policy.Request) { r.Subject.ID = "" }), false, policy.BadRequest, true},
		{"no namespace", request("", "Add"), false, policy.BadRequest, true},
	}
	var rs []policy.Request
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			want, wantErr := service.Authorize(t.Context(), test.r)
			got, err := c.Authorize(t.Context(), test.r)
			if spelling(got, err) != spelling(want, wantErr) {
				t.Errorf("the client says %s\nthe PDP says    %s", spelling(got, err), spelling(want, wantErr))
			}
			if got.Allowed != test.allowed || (err != nil) != test.errs || test.errs && policy.KindOf(err) != test.kind {
				t.Errorf("got %s", spelling(got, err))
			}
		})
		rs = append(rs, test.r)
	}
	t.Run("all in one batch", func(t *testing.T) {
		want, err := service.AuthorizeBatch(t.Context(), rs)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.AuthorizeBatch(t.Context(), rs)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%d results, %v", len(got), err)
		}
		for i, test := range cases {
			if spelling(got[i].Decision, got[i].Err) != spelling(want[i].Decision, want[i].Err) {
				t.Errorf("%s: the client says %s\nthe PDP says %s", test.name, spelling(got[i].Decision, got[i].Err), spelling(want[i].Decision, want[i].Err))
			}
		}
	})
}

func TestNoRequestOfABatchTakesWhatAnotherOneBrought(t *testing.T) {
	c := client(t, remote.Config{Servers: []string{servePDP(t, shop(t)).addr}})
	plain := request("shop.cart", "Drop")
	with := map[string]policy.Request{
		"context":    request("shop.cart", "Drop", func(r *policy.Request) { r.Context = testkit.Properties(t, map[string]any{"mfa": true}) }),
		"properties": request("shop.cart", "Drop", func(r *policy.Request) { r.Subject.Properties = testkit.Properties(t, map[string]any{"role": "clerk"}) }),
	}
	for name, allowed := range with {
		for _, order := range [][]policy.Request{{allowed, plain}, {plain, allowed}, {allowed, allowed, plain}, {plain, plain, allowed}, {allowed, allowed}, {plain, plain}} {
			results, err := c.AuthorizeBatch(t.Context(), order)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range order {
				want := r.Context.Len() > 0 || r.Subject.Properties.Len() > 0
				if results[i].Err != nil || results[i].Decision.Allowed != want {
					t.Errorf("%s: item %d of %d: %s", name, i, len(order), spelling(results[i].Decision, results[i].Err))
				}
			}
		}
	}
}

func TestWhatThePDPWouldRefuseCostsNoHop(t *testing.T) {
	c := client(t, remote.Config{Servers: []string{servePDP(t, shop(t)).addr}, Limits: policy.Limits{RequestBytes: 1000, BatchItems: 2, CallPath: 1}})
	for name, test := range map[string]struct {
		r    policy.Request
		kind policy.Kind
		says string
	}{
		"an empty request": {policy.Request{}, policy.BadRequest, "namespace is empty"},
		"too large":        {request("shop.cart", strings.Repeat("x", 1001)), policy.Exhausted, "--max-request-bytes"},
		"a long call path": {request("shop.cart", "Add", func(r *policy.Request) {
			r.Context = testkit.Properties(t, map[string]any{"call_path": []string{"a", "b"}})
		}), policy.Exhausted, "--max-call-path"},
		"invalid UTF-8": {request("shop.cart", "\xff"), policy.BadRequest, "action.name is not valid UTF-8"},
		"a number that does not fit in a double": {request("shop.cart", "Add", func(r *policy.Request) {
			r.Subject.Properties = testkit.Properties(t, map[string]any{"n": []any{int64(1) << 60}})
		}), policy.BadRequest, "subject.properties.n[0]"},
	} {
		d, err := c.Authorize(t.Context(), test.r)
		if d.Allowed || policy.KindOf(err) != test.kind || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %s", name, spelling(d, err))
		}
		results, err := c.AuthorizeBatch(t.Context(), []policy.Request{test.r})
		if err != nil || len(results) != 1 || policy.KindOf(results[0].Err) != test.kind || !strings.Contains(results[0].Err.Error(), test.says) {
			t.Errorf("%s in a batch: %v, %v", name, results, err)
		}
	}
	for name, test := range map[string]struct {
		rs   []policy.Request
		kind policy.Kind
	}{
		"an empty batch": {nil, policy.BadRequest},
		"a large batch":  {make([]policy.Request, 3), policy.Exhausted},
	} {
		if results, err := c.AuthorizeBatch(t.Context(), test.rs); results != nil || policy.KindOf(err) != test.kind {
			t.Errorf("%s: %v, %v", name, results, err)
		}
	}
	if s := c.Status(); s.Asked != 0 || s.Failed != 0 {
		t.Errorf("the PDP was asked: %+v", s)
	}
}

func TestABatchThatNoPDPTakesIsNotSent(t *testing.T) {
	c := client(t, remote.Config{Servers: []string{servePDP(t, shop(t)).addr}})
	rs := make([]policy.Request, 20)
	for i := range rs {
		rs[i] = request("shop.cart", strings.Repeat(string(rune('a'+i)), 1<<20-100))
	}
	results, err := c.AuthorizeBatch(t.Context(), rs)
	if results != nil || policy.KindOf(err) != policy.Exhausted || !strings.Contains(err.Error(), "split it") {
		t.Errorf("%d results, %v", len(results), err)
	}
	// What is just within the limit is taken.
	if results, err := c.AuthorizeBatch(t.Context(), rs[:4]); err != nil || len(results) != 4 || results[3].Err != nil {
		t.Errorf("%d results, %v", len(results), err)
	}
}

func TestStatusCounts(t *testing.T) {
	s := servePDP(t, shop(t))
	c := client(t, remote.Config{Servers: []string{s.addr}})
	for _, n := range []policy.Namespace{"shop.cart", "shop.cart", "shop.other", ""} {
		if _, err := c.Authorize(t.Context(), request(n, "Add")); (err == nil) != (n == "shop.cart") {
			t.Fatal(err)
		}
	}
	if _, err := c.AuthorizeBatch(t.Context(), []policy.Request{request("shop.cart", "Add"), request("shop.broken", "Add"), {}}); err != nil {
		t.Fatal(err)
	}
	got := c.Status()
	if want := (remote.PDP{Server: s.addr, Connection: "READY"}); len(got.PDPs) != 1 || got.PDPs[0] != want || got.Asked != 5 || got.Failed != 2 || got.Waiting != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestManyAskAtOnce(t *testing.T) {
	c := client(t, remote.Config{Servers: []string{servePDP(t, shop(t)).addr}, Cache: cache.Config{Entries: -1}})
	var work sync.WaitGroup
	for i := range 16 {
		work.Go(func() {
			action, want := "Add", true
			if i%2 == 1 {
				action, want = "Drop", false
			}
			for range 20 {
				if d, err := c.Authorize(t.Context(), request("shop.cart", action)); err != nil || d.Allowed != want {
					t.Errorf("%s: %s", action, spelling(d, err))
				}
				results, err := c.AuthorizeBatch(t.Context(), []policy.Request{request("shop.cart", action), request("shop.cart", "Drop")})
				if err != nil || results[0].Decision.Allowed != want || results[1].Decision.Allowed {
					t.Errorf("%s: %v, %v", action, results, err)
				}
			}
		})
	}
	work.Wait()
	if s := c.Status(); s.Asked != 16*20*3 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

func TestAPDPIsAskedOverMutualTLS(t *testing.T) {
	ca := tlstest.NewCA(t)
	cert, key := ca.Issue(t, "pdp")
	config, err := tlsfiles.Server(tlsfiles.ServerConfig{Cert: cert, Key: key, ClientCA: ca.File, RequireClient: true})
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, "127.0.0.1:0", grpcapi.New(grpcapi.Config{Decide: shop(t), Credentials: credentials.NewTLS(config)}))
	own, ownKey := ca.Issue(t, "cart")
	if d, err := client(t, remote.Config{Servers: []string{s.addr}, CA: ca.File, Cert: own, CertKey: ownKey}).Authorize(t.Context(), request("shop.cart", "Add")); err != nil || !d.Allowed {
		t.Error(spelling(d, err))
	}
	for name, config := range map[string]remote.Config{
		"no certificate": {Servers: []string{s.addr}, CA: ca.File},
		"no TLS":         {Servers: []string{s.addr}},
		"no authority":   {Servers: []string{s.addr}, Cert: own, CertKey: ownKey},
	} {
		d, err := client(t, config).Authorize(t.Context(), request("shop.cart", "Add"))
		if d.Allowed || policy.KindOf(err) != policy.Unavailable || !strings.Contains(err.Error(), s.addr) || !strings.Contains(err.Error(), "--ca") {
			t.Errorf("%s: %s", name, spelling(d, err))
		}
	}
	if c, err := remote.New(t.Context(), remote.Config{Servers: []string{s.addr}, CA: own + ".missing"}); c != nil || policy.KindOf(err) != policy.BadRequest || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, %v", c, err)
	}
}

func TestNewIsBoundedByItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := remote.New(ctx, remote.Config{}); c != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", c, err)
	}
}

func TestAVersionThatAnotherRequestOfTheBatchNeededIsNotOnesOwn(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{NoGuardrail: true})
	p := d.StartPDP(testkit.NATS(t, t.TempDir()).URL(), t.TempDir())
	d.Push(p, "center", "shop", "allow := true")
	d.Push(p, "cart", "shop.cart", "allow := true")
	c := client(t, remote.Config{Servers: []string{p.Addr}})
	results, err := c.AuthorizeBatch(t.Context(), []policy.Request{testkit.Request("shop", "Add"), testkit.Request("shop.cart", "Add")})
	if err != nil {
		t.Fatal(err)
	}
	if got := results[1].Decision; !got.Allowed || len(got.Versions) != 1 || got.Versions[0].Namespace != "shop.cart" {
		t.Errorf("got %+v, %v", got, results[1].Err)
	}
}
