package enforce_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/clients/enforce"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// amount has the policy told of an amount.
func amount(n int) func(context.Context, enforce.Call) (enforce.Properties, error) {
	shared := map[string]any{"amount": n}
	return func(context.Context, enforce.Call) (enforce.Properties, error) {
		return enforce.Properties{Context: shared, Action: map[string]any{"by": "test"}, Resource: map[string]any{"team": "cart"}}, nil
	}
}

func TestObligations(t *testing.T) {
	w := newWorld(t)
	meet := func(ctx context.Context, _ enforce.Call, _ policy.Value) (context.Context, error) { return ctx, nil }
	var notified atomic.Int64
	notify := func(ctx context.Context, _ enforce.Call, v policy.Value) (context.Context, error) {
		if v.Text() != "fraud" {
			return nil, errors.New("nobody to notify")
		}
		notified.Add(1)
		return ctx, nil
	}
	for name, test := range map[string]struct {
		amount   int
		handlers map[string]enforce.Obligation
		code     codes.Code
		notified int64
	}{
		"none demanded":           {10, nil, codes.OK, 0},
		"handled":                 {50, map[string]enforce.Obligation{"mfa": meet}, codes.OK, 0},
		"two handled":             {500, map[string]enforce.Obligation{"mfa": meet, "notify": notify}, codes.OK, 3},
		"no handler":              {50, nil, codes.PermissionDenied, 0},
		"a handler of another":    {50, map[string]enforce.Obligation{"MFA": meet, "": meet, "notify": notify}, codes.PermissionDenied, 0},
		"one of two, which waits": {500, map[string]enforce.Obligation{"notify": notify}, codes.PermissionDenied, 0},
		"one of two, and the other waits": {500, map[string]enforce.Obligation{"mfa": func(ctx context.Context, _ enforce.Call, _ policy.Value) (context.Context, error) {
			notified.Add(1)
			return ctx, nil
		}}, codes.PermissionDenied, 0},
		"fails": {50, map[string]enforce.Obligation{"mfa": func(ctx context.Context, _ enforce.Call, _ policy.Value) (context.Context, error) {
			return ctx, errors.New("too long ago")
		}}, codes.PermissionDenied, 0},
		"the service behind it is away": {50, map[string]enforce.Obligation{"mfa": func(ctx context.Context, _ enforce.Call, _ policy.Value) (context.Context, error) {
			return ctx, context.DeadlineExceeded
		}}, codes.PermissionDenied, 0},
		"panics": {50, map[string]enforce.Obligation{"mfa": func(context.Context, enforce.Call, policy.Value) (context.Context, error) { panic("mfa") }}, codes.PermissionDenied, 0},
		"loses the context": {50, map[string]enforce.Obligation{"mfa": func(context.Context, enforce.Call, policy.Value) (context.Context, error) {
			return nil, nil //nolint:nilnil // what a handler must not do
		}}, codes.PermissionDenied, 0},
		"the first fails, the second waits": {500, map[string]enforce.Obligation{"notify": notify, "mfa": func(ctx context.Context, _ enforce.Call, _ policy.Value) (context.Context, error) {
			return ctx, errors.New("too long ago")
		}}, codes.PermissionDenied, 0},
	} {
		t.Run(name, func(t *testing.T) {
			notified.Store(0)
			d := w.open(options{config: func(c *enforce.Config) { c.Describe, c.Obligations = amount(test.amount), test.handlers }})
			c := d.as(frontend)
			c.t = t
			_, refused := c.expect(test.code, nil)
			for _, r := range refused {
				if r.Err == nil || !r.Decision.Allowed {
					t.Errorf("event: %+v", r)
				}
			}
			if got := notified.Load(); got != test.notified {
				t.Errorf("notified %d times, want %d", got, test.notified)
			}
			want := enforce.Stats{Denied: 3}
			if test.code == codes.OK {
				want = enforce.Stats{Allowed: 3}
			}
			if got := d.enforcer.Stats(); got != want {
				t.Errorf("counted %+v, want %+v", got, want)
			}
		})
	}
}

type mfaKey struct{}

// A handler is given the value and the call, and its context is the service's.
func TestAnObligationIsHandedToItsHandler(t *testing.T) {
	d := newWorld(t).open(options{config: func(c *enforce.Config) {
		c.Describe = amount(50)
		c.Obligations = map[string]enforce.Obligation{"mfa": func(ctx context.Context, c enforce.Call, v policy.Value) (context.Context, error) {
			age, _ := v.Get("max_age").Int64()
			if age != 300 || (c.HTTP == nil) == (c.FullMethod == "") || enforce.CallPath(ctx) == nil {
				return nil, fmt.Errorf("value %s of %+v", v.AppendJSON(nil), c)
			}
			// Even a context that has lost everything does not lose who called.
			return context.WithValue(context.Background(), mfaKey{}, "met"), nil
		}}
	}})
	served, refused := d.as(frontend).expect(codes.OK, headers{enforce.Header, edge})
	for _, r := range refused {
		t.Error(r.Err)
	}
	for _, p := range served {
		if !slices.Equal(p, []string{edge, frontend}) {
			t.Errorf("call path after the handler: %v", p)
		}
	}
	if d.ctx.Value(mfaKey{}) != "met" {
		t.Error("the service does not have the handler's context")
	}
}

func TestACallbackThatPanicsOrFailsRefuses(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*enforce.Config){
		"Subject panics": func(c *enforce.Config) {
			c.Subject = func(context.Context, enforce.Call) (policy.Entity, error) { panic("who") }
		},
		"Subject fails": func(c *enforce.Config) {
			c.Subject = subject(policy.Entity{Type: "user", ID: "ann"}, errors.New("signature"))
		},
		"Subject is none": func(c *enforce.Config) { c.Subject = subject(policy.Entity{}, nil) },
		"the Authorizer panics": func(c *enforce.Config) {
			c.Subject, c.Authorizer = subject(policy.Entity{Type: "user", ID: "ann"}, nil), (*remote.Client)(nil)
		},
		"Describe panics": func(c *enforce.Config) {
			c.Subject = subject(policy.Entity{Type: "user", ID: "ann"}, nil)
			c.Describe = func(context.Context, enforce.Call) (enforce.Properties, error) { panic("what") }
		},
		"Describe fails":                 describes(enforce.Properties{}, errors.New("what")),
		"Describe says what JSON cannot": describes(enforce.Properties{Context: map[string]any{"x": make(chan int)}}, nil),
		"Describe makes a call path":     describes(enforce.Properties{Context: map[string]any{"call_path": []string{frontend}}}, nil),
		"Describe asks for no release":   describes(enforce.Properties{Freshness: policy.AtLeast("mw1.nothing")}, nil),
		"Describe makes claims proven":   describes(enforce.Properties{Context: map[string]any{"call_path_claimed": 0}}, nil),
		"Subject and Describe disagree": func(c *enforce.Config) {
			p, _ := policy.NewProperties(map[string]any{"team": "a"})
			describes(enforce.Properties{Subject: map[string]any{"team": "b"}}, nil)(c)
			c.Subject = subject(policy.Entity{Type: "user", ID: "ann", Properties: p}, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := w.open(options{config: change})
			c := d.nobody()
			c.t = t
			c.expect(codes.PermissionDenied, nil)
			if got, want := d.enforcer.Stats(), (enforce.Stats{Failed: 3}); got != want {
				t.Errorf("counted %+v, want %+v", got, want)
			}
		})
	}
}

func subject(s policy.Entity, err error) func(context.Context, enforce.Call) (policy.Entity, error) {
	return func(context.Context, enforce.Call) (policy.Entity, error) { return s, err }
}

func describes(p enforce.Properties, err error) func(*enforce.Config) {
	return func(c *enforce.Config) {
		c.Subject = subject(policy.Entity{Type: "user", ID: "ann"}, nil)
		c.Describe = func(context.Context, enforce.Call) (enforce.Properties, error) { return p, err }
	}
}

// The process, and the calls of everybody else, outlive a callback that panics
// when it is told.
func TestAPanicOfEventsTakesNothingDown(t *testing.T) {
	d := newWorld(t).open(options{config: func(c *enforce.Config) { c.Events = func(enforce.Event) { panic("log") } }})
	d.as(stranger).expect(codes.PermissionDenied, nil)
	d.as(frontend).expect(codes.OK, nil)
}

func TestAnotherAuthenticationIsAskedOnlyWithoutACertificate(t *testing.T) {
	d := newWorld(t).open(options{config: func(c *enforce.Config) { c.Subject = subject(policy.Entity{Type: "user", ID: "ann"}, nil) }})
	served, _ := d.nobody().expect(codes.OK, headers{enforce.Header, path(edge, frontend)})
	for _, p := range served {
		if p != nil {
			t.Errorf("without a certificate, the call path is %v", p)
		}
	}
	for _, c := range []*caller{d.as(stranger), d.as(frontend, stranger), d.as()} {
		_, refused := c.expect(codes.PermissionDenied, nil)
		for _, r := range refused {
			if r.Request.Subject.Type == "user" {
				t.Errorf("somebody with a certificate became %v", r.Request.Subject)
			}
		}
	}
}

func TestADeadPDPRefuses(t *testing.T) {
	w := newWorld(t)
	gone := testkit.Listen(t)
	gone.Close()
	pdp, err := remote.New(t.Context(), remote.Config{Servers: []string{gone.Addr().String()}, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer pdp.Close()
	d := w.open(options{config: func(c *enforce.Config) { c.Authorizer = pdp }})
	d.as(frontend).expect(codes.Unavailable, nil)
	if got, want := d.enforcer.Stats(), (enforce.Stats{Failed: 3}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	lenient := w.open(options{config: func(c *enforce.Config) { c.Authorizer, c.ReportOnly = pdp, true }})
	lenient.as(frontend).expect(codes.OK, nil)
	if got, want := lenient.enforcer.Stats(), (enforce.Stats{FailedAndPassed: 3}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

// What is not decided because it cannot be is not tried again.
func TestANamespaceThatNobodyDecidesRefuses(t *testing.T) {
	d := newWorld(t).open(options{config: func(c *enforce.Config) { c.Namespace = "shop.pay" }})
	d.as(frontend).expect(codes.PermissionDenied, nil)
}

func TestReportOnlyLetsPassAndSaysWhatItWouldNot(t *testing.T) {
	d := newWorld(t).open(options{config: func(c *enforce.Config) { c.ReportOnly, c.Describe = true, amount(50) }})
	for name, test := range map[string]struct {
		c      *caller
		h      headers
		err    bool
		failed bool
		served []string
	}{
		"denied":                  {d.as(stranger), nil, false, false, []string{stranger}},
		"an unhandled obligation": {d.as(frontend), nil, true, false, []string{frontend}},
		"nobody":                  {d.nobody(), nil, true, true, nil},
		"two URIs":                {d.as(stranger, frontend), nil, true, true, []string{"unreadable"}},
		"a malformed path":        {d.as(frontend), headers{enforce.Header, "edge"}, true, true, []string{"unreadable"}},
	} {
		t.Run(name, func(t *testing.T) {
			test.c.t = t
			before := d.enforcer.Stats()
			served, refused := test.c.expect(codes.OK, test.h)
			for _, p := range served {
				if !slices.Equal(p, test.served) {
					t.Errorf("call path in the service: %v, want %v", p, test.served)
				}
			}
			if len(refused) != 3 {
				t.Fatalf("%d events, want 3", len(refused))
			}
			for _, r := range refused {
				if !r.Passed || (r.Err != nil) != test.err {
					t.Errorf("event: %+v", r)
				}
			}
			if test.failed {
				before.FailedAndPassed += 3
			} else {
				before.DeniedAndPassed += 3
			}
			if got := d.enforcer.Stats(); got != before {
				t.Errorf("counted %+v, want %+v", got, before)
			}
		})
	}
}

// A path that could not be read is not passed on as a shorter one.
func TestAnUnreadablePathIsRefusedFartherOn(t *testing.T) {
	w := newWorld(t)
	strict := w.open(options{})
	lenient := w.open(options{config: func(c *enforce.Config) { c.ReportOnly = true }})
	lenient.onward = w.calls(strict, frontend)
	if code := status.Code(lenient.as(stranger).check(headers{enforce.Header, "x"})); code != codes.PermissionDenied {
		t.Errorf("farther on: %s", code)
	}
	if code := status.Code(lenient.as(stranger).check(nil)); code != codes.OK {
		t.Errorf("with a path that can be read: %s", code)
	}
}

func TestAPeerIsNotToldWhyUnlessConfigured(t *testing.T) {
	w := newWorld(t)
	forbidden := headers{enforce.Header, "spiffe://shop/evil"}
	for explain, want := range map[bool][3]string{
		false: {"not allowed", "not allowed", "not allowed"},
		true: {
			"not allowed: no rule of shop.cart allows it",
			"not allowed: shop.cart: evil is on the way",
			"not allowed: nobody knows who calls: no client certificate was verified",
		},
	} {
		d := w.open(options{config: func(c *enforce.Config) { c.Explain = explain }})
		for i, call := range []struct {
			c *caller
			h headers
		}{{d.as(stranger), nil}, {d.as(frontend), forbidden}, {d.nobody(), nil}} {
			got := status.Convert(call.c.check(call.h)).Message()
			_, body := call.c.http(http.MethodGet, "/cart/7", call.h)
			for _, text := range []string{got, strings.TrimSpace(body)} {
				if explain && !strings.HasPrefix(text, want[i]) || !explain && text != want[i] {
					t.Errorf("explain %t: the peer is told %q, want %q", explain, text, want[i])
				}
			}
		}
	}
}

// calls returns a connection to a door by somebody who sends its call path.
func (w *world) calls(d *door, id string) *grpc.ClientConn {
	w.t.Helper()
	conn, err := grpc.NewClient(d.grpcAddr, grpc.WithTransportCredentials(credentials.NewTLS(w.tlsConfig(id))),
		grpc.WithUnaryInterceptor(enforce.UnaryClient()), grpc.WithStreamInterceptor(enforce.StreamClient()))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Each service on the way is on the path, though one copies the headers that came.
func TestTheCallPathGrowsByEachService(t *testing.T) {
	w := newWorld(t)
	last := w.open(options{})
	third := w.open(options{})
	third.onward = w.calls(last, frontend)
	second := w.open(options{})
	second.onward = w.calls(third, frontend)
	first := w.open(options{})
	first.farther = &http.Client{Transport: enforce.Transport(&http.Transport{TLSClientConfig: w.tlsConfig(frontend)})}
	first.url = "https://" + second.httpAddr + "/cart/7"
	if err := first.as(frontend).check(headers{enforce.Header, edge}); err != nil {
		t.Fatal(err)
	}
	for i, d := range []*door{first, second, third, last} {
		served, _ := d.took()
		want := append([]string{edge}, slices.Repeat([]string{frontend}, i+1)...)
		if len(served) != 1 || !slices.Equal(served[0], want) {
			t.Errorf("service %d is called by %v, want %v", i, served, want)
		}
	}
}

// Who is called by nobody with a certificate is the edge: what came in as a header
// does not go out as its word.
func TestACopiedHeaderIsNotSent(t *testing.T) {
	w := newWorld(t)
	last := w.open(options{})
	gateway := w.open(options{config: func(c *enforce.Config) { c.Subject = subject(policy.Entity{Type: "user", ID: "ann"}, nil) }})
	gateway.onward = w.calls(last, frontend)
	if err := gateway.nobody().check(headers{enforce.Header, "spiffe://shop/evil"}); err != nil {
		t.Fatal(err)
	}
	if served, _ := last.took(); len(served) != 1 || !slices.Equal(served[0], []string{frontend}) {
		t.Errorf("called by %v", served)
	}
	gateway.onward = nil
	gateway.farther = &http.Client{Transport: enforce.Transport(&http.Transport{TLSClientConfig: w.tlsConfig(frontend)})}
	gateway.url = "https://" + last.httpAddr + "/cart/7"
	if err := gateway.nobody().check(nil); err != nil {
		t.Fatal(err)
	}
	if served, _ := last.took(); len(served) != 1 || !slices.Equal(served[0], []string{frontend}) {
		t.Errorf("called over HTTP by %v", served)
	}
	// A stream likewise.
	c := &caller{t, last, w.calls(last, frontend), nil}
	if err := c.watch(headers{enforce.Header, "spiffe://shop/evil"}); err != nil {
		t.Error(err)
	}
}

func TestARoute(t *testing.T) {
	w := newWorld(t)
	d := w.open(options{})
	c := d.as(frontend)
	for name, test := range map[string]struct {
		method, path string
		h            headers
		code         int
		route        string
	}{
		"allowed":                  {"GET", "/cart/7", nil, 200, ""},
		"another method":           {"POST", "/cart/7", nil, 403, "/cart/{id}"},
		"a method that says GET":   {"POST", "/cart/7", headers{"X-HTTP-Method-Override", "GET"}, 403, "/cart/{id}"},
		"no route":                 {"GET", "/admin", nil, 403, ""},
		"no route of that method":  {"DELETE", "/cart/7", nil, 403, ""},
		"the same path, elsewhere": {"GET", "/cart/7", headers{"Host", "admin.shop"}, 403, "admin.shop/cart/{id}"},
		"a slash in the value":     {"GET", "/cart/7%2Fadmin", nil, 403, ""},
		"a letter that is encoded": {"GET", "/c%61rt/%37", nil, 200, ""},
		"no UTF-8":                 {"GET", "/cart/%ff", nil, 403, "/cart/{id}"},
	} {
		t.Run(name, func(t *testing.T) {
			c := *c
			c.t = t
			code, body := c.http(test.method, test.path, test.h)
			if code != test.code {
				t.Errorf("%d %s, want %d", code, body, test.code)
			}
			served, refused := d.took()
			if code == 200 && len(served) != 1 || code != 200 && (len(served) != 0 || len(refused) != 1 || refused[0].Request.Resource.ID != test.route) {
				t.Errorf("served %v, refused %+v", served, refused)
			}
		})
	}
}

// The middleware stands before a mux, before one handler in it, or behind a router
// that is somebody else's.
func TestTheMiddlewareInOtherPlaces(t *testing.T) {
	w := newWorld(t)
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	inMux := func(e *enforce.Enforcer) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("GET  /cart/{id}", e.HTTP(ok))
		return mux
	}
	nested := func(e *enforce.Enforcer) http.Handler {
		inner, outer := http.NewServeMux(), http.NewServeMux()
		inner.Handle("/cart/{id}", ok)
		outer.Handle("/", e.HTTP(inner))
		return outer
	}
	beside := func(e *enforce.Enforcer) http.Handler { return e.HTTP(ok) }
	route := func(to string) func(*http.Request) string { return func(*http.Request) string { return to } }
	for name, test := range map[string]struct {
		handler func(*enforce.Enforcer) http.Handler
		route   func(*http.Request) string
		code    int
	}{
		"before a handler in a mux":  {inMux, nil, 200},
		"before a mux in a mux":      {nested, nil, 200},
		"without a router":           {beside, nil, 403},
		"with another router":        {beside, route("/cart/{id}"), 200},
		"another router's other one": {beside, route("/admin"), 403},
		"no route by another router": {nested, route(""), 403},
		"another router panics":      {beside, func(*http.Request) string { panic("route") }, 403},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := enforce.New(enforce.Config{Authorizer: w.wall, Namespace: "shop.cart", Route: test.route})
			if err != nil {
				t.Fatal(err)
			}
			if code := w.serve(t, test.handler(e), frontend); code != test.code {
				t.Errorf("%d, want %d", code, test.code)
			}
		})
	}
}

func TestConfigurationsThatCannotEnforce(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*enforce.Config){
		"nobody decides":      func(c *enforce.Config) { c.Authorizer = nil },
		"no namespace":        func(c *enforce.Config) { c.Namespace = "" },
		"a domain with a URL": func(c *enforce.Config) { c.TrustDomain = "spiffe://shop" },
		"a negative length":   func(c *enforce.Config) { c.MaxCallPath = -1 },
		"a nil handler":       func(c *enforce.Config) { c.Obligations = map[string]enforce.Obligation{"mfa": nil} },
	} {
		config := enforce.Config{Authorizer: w.wall, Namespace: "shop.cart"}
		change(&config)
		if _, err := enforce.New(config); policy.KindOf(err) != policy.BadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
}
