package enforce_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/clients/enforce"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// talk serves a stream in both directions, and says what came and when it began.
type talk struct {
	began atomic.Bool
	mu    sync.Mutex
	heard []string
}

func (s *talk) serve(_ any, stream grpc.ServerStream) error {
	s.began.Store(true)
	if err := stream.SendHeader(metadata.Pairs("talk", "begun")); err != nil {
		return err
	}
	for {
		m := new(healthpb.HealthCheckRequest)
		if err := stream.RecvMsg(m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		s.mu.Lock()
		s.heard = append(s.heard, m.GetService())
		s.mu.Unlock()
		if err := stream.SendMsg(m); err != nil {
			return err
		}
	}
}

var bothWays = grpc.StreamDesc{StreamName: "Talk", ServerStreams: true, ClientStreams: true}

// serveGRPC serves over mTLS, and returns how to connect to it as somebody.
func (w *world) serveGRPC(t *testing.T, register func(*grpc.Server), options ...grpc.ServerOption) func(uris ...string) *grpc.ClientConn {
	t.Helper()
	config := w.tlsConfig("spiffe://shop/ns/default/sa/cart")
	config.ClientAuth = tls.VerifyClientCertIfGiven
	server := grpc.NewServer(append(options, grpc.Creds(credentials.NewTLS(config)))...)
	register(server)
	listener := testkit.Listen(t)
	testkit.Serve(t, listener, server, server.Stop)
	return func(uris ...string) *grpc.ClientConn { return w.connect(t, listener.Addr().String(), uris...) }
}

func (w *world) connect(t *testing.T, addr string, uris ...string) *grpc.ClientConn {
	t.Helper()
	config := w.tlsConfig(frontend)
	if config.Certificates = nil; len(uris) > 0 {
		config = w.tlsConfig(uris...)
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Nothing of a stream is read or sent while it is decided, and nothing at all if it
// is denied, whatever of it has arrived by then.
func TestAStreamIsDecidedBeforeAnythingIsReadOrSent(t *testing.T) {
	w := newWorldOf(t, `
allow if { input.subject.id == "`+frontend+`"; input.resource.id == "shop.Chat"; input.action.name == "Talk" }
obligations["mfa"] := true if input.context.amount > 10
`)
	for name, test := range map[string]struct {
		who    string
		config enforce.Config
		code   codes.Code
	}{
		"allowed":              {frontend, enforce.Config{}, codes.OK},
		"denied":               {stranger, enforce.Config{}, codes.PermissionDenied},
		"an obligation":        {frontend, enforce.Config{Describe: amount(50)}, codes.PermissionDenied},
		"an error":             {frontend, enforce.Config{Namespace: "shop.pay"}, codes.PermissionDenied},
		"a panic":              {frontend, enforce.Config{Describe: func(context.Context, enforce.Call) (enforce.Properties, error) { panic("chat") }}, codes.PermissionDenied},
		"denied, and reported": {stranger, enforce.Config{ReportOnly: true}, codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			var s talk
			deciding, decide := make(chan struct{}), make(chan struct{})
			config, describe := test.config, test.config.Describe
			if config.Namespace == "" {
				config.Namespace = "shop.cart"
			}
			config.Authorizer = w.wall
			config.Describe = func(ctx context.Context, c enforce.Call) (enforce.Properties, error) {
				close(deciding)
				<-decide
				if c.Message != nil {
					t.Error("a stream has a message before it has begun")
				}
				if s.began.Load() {
					t.Error("served before it is decided")
				}
				if describe != nil {
					return describe(ctx, c)
				}
				return enforce.Properties{}, nil
			}
			e, err := enforce.New(config)
			if err != nil {
				t.Fatal(err)
			}
			desc := &grpc.ServiceDesc{ServiceName: "shop.Chat", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{bothWays}}
			desc.Streams[0].Handler = s.serve
			conn := w.serveGRPC(t, func(g *grpc.Server) { g.RegisterService(desc, nil) }, grpc.StreamInterceptor(e.StreamServer()))(test.who)
			stream, err := conn.NewStream(t.Context(), &bothWays, "/shop.Chat/Talk")
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{"a", "b", "c"} {
				if err := stream.SendMsg(&healthpb.HealthCheckRequest{Service: text}); err != nil {
					t.Fatal(err)
				}
			}
			if err := stream.CloseSend(); err != nil {
				t.Fatal(err)
			}
			told := make(chan metadata.MD, 1)
			go func() {
				md, _ := stream.Header() // ends with the stream
				told <- md
			}()
			<-deciding
			if len(told) > 0 {
				t.Error("something is sent before it is decided")
			}
			close(decide)
			header := <-told
			var echoed []string
			for err == nil {
				m := new(healthpb.HealthCheckRequest)
				if err = stream.RecvMsg(m); err == nil {
					echoed = append(echoed, m.GetService())
				}
			}
			if errors.Is(err, io.EOF) {
				err = nil
			}
			if status.Code(err) != test.code {
				t.Fatalf("%v, want %s", err, test.code)
			}
			if test.code == codes.OK {
				if !slices.Equal(echoed, []string{"a", "b", "c"}) || header.Get("talk") == nil {
					t.Errorf("echoed %q, header %v", echoed, header)
				}
				return
			}
			if s.began.Load() || s.heard != nil || echoed != nil {
				t.Errorf("refused; began %t, heard %q, echoed %q", s.began.Load(), s.heard, echoed)
			}
			trailer := stream.Trailer()
			delete(trailer, "content-type") // nothing else is there
			if len(header)+len(trailer) > 0 || status.Convert(err).Message() != "not allowed" {
				t.Errorf("the peer is told %v, %v, %v", header, trailer, err)
			}
		})
	}
}

// A proxy serves whatever is called: each call by the name that was decided.
func TestMethodsThatNobodyRegistered(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	var served []string
	var refused []enforce.Refused
	e, err := enforce.New(enforce.Config{Authorizer: w.wall, Namespace: "shop.cart", Events: func(e enforce.Event) {
		mu.Lock()
		defer mu.Unlock()
		refused = append(refused, e.(enforce.Refused))
	}})
	if err != nil {
		t.Fatal(err)
	}
	conn := w.serveGRPC(t, func(*grpc.Server) {}, grpc.UnaryInterceptor(e.UnaryServer()), grpc.StreamInterceptor(e.StreamServer()),
		grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
			method, _ := grpc.MethodFromServerStream(s)
			mu.Lock()
			defer mu.Unlock()
			served = append(served, method)
			return s.SendMsg(&healthpb.HealthCheckResponse{})
		}))(frontend)
	for method, code := range map[string]codes.Code{
		"/grpc.health.v1.Health/Check":                              codes.OK,
		"/grpc.health.v1.Health/Watch":                              codes.OK,
		"/grpc.health.v1.Health/List":                               codes.PermissionDenied,
		"/grpc.health.v1.Health/check":                              codes.PermissionDenied,
		"/grpc.health.v1.Health/Check/":                             codes.PermissionDenied,
		"/grpc.health.v1.Health//Check":                             codes.PermissionDenied,
		"//grpc.health.v1.Health/Check":                             codes.PermissionDenied,
		"/x/grpc.health.v1.Health/Check":                            codes.PermissionDenied,
		"/x/../grpc.health.v1.Health/Check":                         codes.PermissionDenied,
		"/grpc.health.v1.Health/%43heck":                            codes.PermissionDenied,
		"/grpc.health.v1.Health%2FCheck":                            codes.Unimplemented,
		"/grpc.health.v1.Health/Check?":                             codes.PermissionDenied,
		"/grpc.health.v1.Health/Check ":                             codes.PermissionDenied,
		"/grpc.health.v1.Health/Chec\u212a":                         codes.PermissionDenied,
		"/grpc.health.v1.Health./Check":                             codes.PermissionDenied,
		"/GRPC.HEALTH.V1.HEALTH/Check":                              codes.PermissionDenied,
		"/" + strings.Repeat("a", 8192) + "/Check":                  codes.PermissionDenied,
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": codes.PermissionDenied,
		"grpc.health.v1.Health/Check":                               codes.Unimplemented,
		"/":                                                         codes.Unimplemented,
		"":                                                          codes.Unimplemented,
	} {
		served, refused = nil, nil
		err := conn.Invoke(t.Context(), method, &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{})
		mu.Lock()
		if got := status.Code(err); got != code && (code != codes.Unimplemented || err == nil) {
			t.Errorf("%.80q: %v, want %s", method, err, code)
		}
		if (code == codes.OK) != slices.Equal(served, []string{method}) || code != codes.OK && served != nil {
			t.Errorf("%.80q: served as %q", method, served)
		}
		for _, r := range refused {
			if strings.Count(method, "/") != 2 && policy.KindOf(r.Err) != policy.BadRequest {
				t.Errorf("%.80q: asked for %.80q of %.80q, %v", method, r.Request.Action.Name, r.Request.Resource.ID, r.Err)
			}
			if r.Err == nil && "/"+r.Request.Resource.ID+"/"+r.Request.Action.Name != method {
				t.Errorf("%.80q: asked for %.80q of %.80q", method, r.Request.Action.Name, r.Request.Resource.ID)
			}
		}
		mu.Unlock()
	}
}

// What a server has to say of itself is for those whom the policy lets ask.
func TestReflectionIsACallLikeOthers(t *testing.T) {
	w := newWorld(t)
	for reportOnly, want := range map[bool]codes.Code{false: codes.PermissionDenied, true: codes.OK} {
		e, err := enforce.New(enforce.Config{Authorizer: w.wall, Namespace: "shop.cart", ReportOnly: reportOnly})
		if err != nil {
			t.Fatal(err)
		}
		connect := w.serveGRPC(t, func(g *grpc.Server) { reflection.Register(g) }, grpc.StreamInterceptor(e.StreamServer()))
		for _, conn := range []*grpc.ClientConn{connect(frontend), connect()} {
			s, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_ = s.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}) // refused, it may have ended
			if _, err := s.Recv(); status.Code(err) != want {
				t.Errorf("report only %t: %v", reportOnly, err)
			}
		}
	}
}

// A gRPC server that a http.Server hands its calls to knows who calls as well.
func TestGRPCBehindAnHTTPServer(t *testing.T) {
	w := newWorld(t)
	e, err := enforce.New(enforce.Config{Authorizer: w.wall, Namespace: "shop.cart"})
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.UnaryInterceptor(e.UnaryServer()), grpc.StreamInterceptor(e.StreamServer()))
	healthpb.RegisterHealthServer(g, &door{t: t})
	server := httptest.NewUnstartedServer(g)
	server.EnableHTTP2 = true
	server.TLS = w.tlsConfig("spiffe://shop/ns/default/sa/cart")
	server.TLS.ClientAuth = tls.VerifyClientCertIfGiven
	server.StartTLS()
	t.Cleanup(func() { server.Close(); g.Stop() })
	addr := server.Listener.Addr().String()
	for who, test := range map[*grpc.ClientConn]struct {
		header string
		code   codes.Code
	}{
		w.connect(t, addr, frontend):           {edge, codes.OK},
		w.connect(t, addr, stranger):           {frontend, codes.PermissionDenied},
		w.connect(t, addr):                     {frontend, codes.PermissionDenied},
		w.connect(t, addr, frontend, stranger): {edge, codes.PermissionDenied},
	} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), enforce.Header, test.header)
		if _, err := healthpb.NewHealthClient(who).Check(ctx, &healthpb.HealthCheckRequest{}); status.Code(err) != test.code {
			t.Errorf("unary: %v, want %s", err, test.code)
		}
		s, err := healthpb.NewHealthClient(who).Watch(ctx, &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); errors.Is(err, io.EOF) != (test.code == codes.OK) || test.code != codes.OK && status.Code(err) != test.code {
			t.Errorf("stream: %v, want %s", err, test.code)
		}
	}
}

// The path that a context brings from elsewhere in the process is not that of a
// call by somebody without a certificate.
func TestACallWithinTheProcessDoesNotInheritAPath(t *testing.T) {
	w := newWorld(t)
	e, err := enforce.New(enforce.Config{Authorizer: w.wall, Namespace: "shop.cart", Subject: subject(policy.Entity{Type: "user", ID: "ann"}, nil)})
	if err != nil {
		t.Fatal(err)
	}
	info := &grpc.UnaryServerInfo{FullMethod: "/grpc.health.v1.Health/Check"}
	_, err = e.UnaryServer()(verified(t.Context(), frontend), nil, info, func(ctx context.Context, _ any) (any, error) {
		if enforce.CallPath(ctx) == nil {
			t.Error("the first call has no path")
		}
		return e.UnaryServer()(withoutPeer{ctx}, nil, info, func(ctx context.Context, _ any) (any, error) { //nolint:contextcheck // it is made from ctx
			if path := enforce.CallPath(ctx); path != nil {
				t.Errorf("the second call has the path %v", path)
			}
			return nil, nil
		})
	})
	if err != nil {
		t.Error(err)
	}
}

// withoutPeer has the values of this package alone.
type withoutPeer struct{ context.Context }

func (c withoutPeer) Value(key any) any {
	if v, ok := c.Context.Value(key).([]string); ok {
		return v
	}
	return nil
}
