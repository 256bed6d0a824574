package enforce_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/clients/enforce"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/internal/tlsfiles/tlstest"
	"github.com/microwall/microwall/policy"
)

const (
	frontend = "spiffe://shop/ns/default/sa/frontend"
	stranger = "spiffe://shop/ns/default/sa/stranger"
	edge     = "spiffe://shop/ns/default/sa/edge"
)

// What the tests' service lets pass: the frontend, unless it is called by evil.
const rules = `
default allow := false

allow if {
	input.subject == {"type": "workload", "id": "spiffe://shop/ns/default/sa/frontend", "properties": {}}
	input.resource.type == "grpc"
	input.resource.id == "grpc.health.v1.Health"
	input.action.name in {"Check", "Watch"}
}

allow if {
	input.subject.id == "spiffe://shop/ns/default/sa/frontend"
	input.resource.type == "route"
	input.resource.id == "/cart/{id}"
	input.action.name == "GET"
}

allow if input.subject == {"type": "user", "id": "ann", "properties": {}}

deny contains "evil is on the way" if {
	some id in input.context.call_path
	endswith(id, "/evil")
}

obligations["mfa"] := {"max_age": 300} if input.context.amount > 10

obligations["notify"] := "fraud" if input.context.amount > 100
`

// world has somebody who decides, and an authority that says who is who.
type world struct {
	t    testing.TB
	wall *embedded.Client
	ca   *tlstest.CA
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldOf(t, rules)
}

func newWorldOf(t testing.TB, rules string) *world {
	t.Helper()
	d := testkit.NewDomain(t)
	url := d.ServeNATS(t.TempDir()).URL()
	p := d.StartPDP(url, t.TempDir())
	d.Push(p, "center", "shop", `deny contains "never" if input.action.name == "Never"`)
	last := d.Push(p, "cart", "shop.cart", rules).Release.Version()
	activated := make(chan struct{})
	wall, err := embedded.New(t.Context(), embedded.Config{
		NATS: url, TrustFile: d.TrustFile, Namespaces: []policy.Namespace{"shop.cart"},
		OnRelease: func(e live.Event) {
			if a, ok := e.(live.Activated); ok && a.Version == last {
				close(activated)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(wall.Close)
	select {
	case <-activated:
	case <-time.After(20 * time.Second):
		t.Fatal("the policy never arrived")
	}
	return &world{t: t, wall: wall, ca: tlstest.NewCA(t)}
}

// door is a service on loopback, gRPC and HTTP, behind an enforcer.
type door struct {
	t        testing.TB
	w        *world
	enforcer *enforce.Enforcer
	grpcAddr string
	httpAddr string
	onward   *grpc.ClientConn // where the service calls on to, if set
	farther  *http.Client     // likewise
	url      string

	mu      sync.Mutex
	served  [][]string // the call path of each call that got through
	ctx     context.Context
	refused []enforce.Refused
}

type options struct {
	config     func(*enforce.Config)
	clientAuth tls.ClientAuthType
	plaintext  bool
}

// open starts a service.
func (w *world) open(o options) *door {
	t := w.t
	t.Helper()
	if o.clientAuth == tls.NoClientCert {
		o.clientAuth = tls.VerifyClientCertIfGiven
	}
	d := &door{t: t, w: w}
	config := enforce.Config{Authorizer: w.wall, Namespace: "shop.cart", Events: func(e enforce.Event) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.refused = append(d.refused, e.(enforce.Refused))
	}}
	if o.config != nil {
		o.config(&config)
	}
	var err error
	if d.enforcer, err = enforce.New(config); err != nil {
		t.Fatal(err)
	}
	server := w.tlsConfig("spiffe://shop/ns/default/sa/cart")
	server.ClientAuth = o.clientAuth
	grpcOptions := []grpc.ServerOption{grpc.UnaryInterceptor(d.enforcer.UnaryServer()), grpc.StreamInterceptor(d.enforcer.StreamServer())}
	if !o.plaintext {
		grpcOptions = append(grpcOptions, grpc.Creds(credentials.NewTLS(server.Clone())))
	}
	g := grpc.NewServer(grpcOptions...)
	healthpb.RegisterHealthServer(g, d)
	listener := testkit.Listen(t)
	d.grpcAddr = listener.Addr().String()
	testkit.Serve(t, listener, g, g.Stop)

	mux := http.NewServeMux()
	mux.HandleFunc("GET /cart/{id}", d.get)
	mux.HandleFunc("POST /cart/{id}", d.get)
	mux.HandleFunc("admin.shop/cart/{id}", d.get)
	h := &http.Server{Handler: d.enforcer.HTTP(mux), TLSConfig: server, ReadHeaderTimeout: time.Minute}
	web := testkit.Listen(t)
	d.httpAddr = web.Addr().String()
	if !o.plaintext {
		web = tls.NewListener(web, server)
	}
	testkit.Serve(t, web, h, func() { _ = h.Close() })
	return d
}

// tlsConfig shows a certificate with URIs, none if there are none.
func (w *world) tlsConfig(uris ...string) *tls.Config {
	return w.shows(w.ca, uris...)
}

func (w *world) shows(by *tlstest.CA, uris ...string) *tls.Config {
	w.t.Helper()
	pem, err := os.ReadFile(w.ca.File)
	if err != nil {
		w.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	cert, err := tls.LoadX509KeyPair(by.IssueURIs(w.t, uris...))
	if err != nil {
		w.t.Fatal(err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ClientCAs: pool, Certificates: []tls.Certificate{cert}}
}

// saw takes down a call that got through, and calls on.
func (d *door) saw(ctx context.Context) error {
	d.mu.Lock()
	d.served, d.ctx = append(d.served, enforce.CallPath(ctx)), ctx
	d.mu.Unlock()
	if d.onward != nil {
		// As a careless proxy does: all that came goes on.
		md, _ := metadata.FromIncomingContext(ctx)
		_, err := healthpb.NewHealthClient(d.onward).Check(metadata.NewOutgoingContext(ctx, md), &healthpb.HealthCheckRequest{})
		return err
	}
	if d.farther != nil {
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, d.url, nil)
		r.Header.Set(enforce.Header, "spiffe://shop/ns/default/sa/copied")
		answer, err := d.farther.Do(r)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return status.Error(codes.Aborted, answer.Status)
		}
	}
	return nil
}

func (d *door) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, d.saw(ctx)
}

func (d *door) List(ctx context.Context, _ *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	return &healthpb.HealthListResponse{}, d.saw(ctx)
}

func (d *door) Watch(_ *healthpb.HealthCheckRequest, s grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	return d.saw(s.Context())
}

func (d *door) get(w http.ResponseWriter, r *http.Request) {
	if err := d.saw(r.Context()); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
	}
}

// took returns what got through and what was refused since it was last asked.
func (d *door) took() (served [][]string, refused []enforce.Refused) {
	d.mu.Lock()
	defer d.mu.Unlock()
	served, refused = d.served, d.refused
	d.served, d.refused = nil, nil
	return served, refused
}

// caller is somebody who calls a door in all three ways.
type caller struct {
	t    testing.TB
	d    *door
	conn *grpc.ClientConn
	web  *http.Client
}

// as returns a caller with a certificate.
func (d *door) as(uris ...string) *caller { return d.by(d.w.tlsConfig(uris...)) }

func (d *door) by(config *tls.Config) *caller {
	d.t.Helper()
	conn, err := grpc.NewClient(d.grpcAddr, grpc.WithTransportCredentials(credentials.NewTLS(config.Clone())))
	if err != nil {
		d.t.Fatal(err)
	}
	web := &http.Transport{TLSClientConfig: config.Clone()}
	d.t.Cleanup(func() {
		_ = conn.Close()
		web.CloseIdleConnections()
	})
	return &caller{d.t, d, conn, &http.Client{Transport: web}}
}

// nobody returns a caller without a certificate.
func (d *door) nobody() *caller {
	config := d.w.tlsConfig(frontend)
	config.Certificates = nil
	return d.by(config)
}

// headers are sent with a call: name, value, ...
type headers []string

func (c *caller) check(h headers) error {
	ctx := metadata.AppendToOutgoingContext(c.t.Context(), h...)
	_, err := healthpb.NewHealthClient(c.conn).Check(ctx, &healthpb.HealthCheckRequest{})
	return err
}

func (c *caller) watch(h headers) error {
	ctx := metadata.AppendToOutgoingContext(c.t.Context(), h...)
	s, err := healthpb.NewHealthClient(c.conn).Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return err
	}
	if _, err = s.Recv(); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func (c *caller) http(method, path string, h headers) (int, string) {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, "https://"+c.d.httpAddr+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i < len(h); i += 2 {
		r.Header.Add(h[i], h[i+1])
		if h[i] == "Host" {
			r.Host = h[i+1]
		}
	}
	answer, err := c.web.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// expect calls in all three ways. Where the calls are to be refused, nothing may
// get through.
func (c *caller) expect(code codes.Code, h headers) (served [][]string, refused []enforce.Refused) {
	c.t.Helper()
	if got := status.Code(c.check(h)); got != code {
		c.t.Errorf("unary call: %s, want %s", got, code)
	}
	if got := status.Code(c.watch(h)); got != code {
		c.t.Errorf("stream: %s, want %s", got, code)
	}
	want := map[codes.Code]int{codes.OK: 200, codes.PermissionDenied: 403, codes.Unavailable: 503}[code]
	if got, body := c.http(http.MethodGet, "/cart/7", h); got != want {
		c.t.Errorf("HTTP: %d %s, want %d", got, body, want)
	}
	served, refused = c.d.took()
	through := 0
	if code == codes.OK {
		through = 3
	}
	if len(served) != through {
		c.t.Errorf("%d calls got through, want %d", len(served), through)
	}
	return served, refused
}

// serve has somebody ask a handler for /cart/7, over TLS, and returns the status.
func (w *world) serve(t *testing.T, h http.Handler, id string) int {
	t.Helper()
	config := w.tlsConfig("spiffe://shop/ns/default/sa/cart")
	config.ClientAuth = tls.RequireAndVerifyClientCert
	s := httptest.NewUnstartedServer(h)
	s.TLS = config
	s.StartTLS()
	defer s.Close()
	web := &http.Transport{TLSClientConfig: w.tlsConfig(id)}
	defer web.CloseIdleConnections()
	answer, err := (&http.Client{Transport: web}).Get(s.URL + "/cart/7")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	return answer.StatusCode
}

func path(ids ...string) string { return strings.Join(ids, ",") }
