package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
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
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/enforce"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/internal/tlsfiles/tlstest"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/pdp/grpcapi"
	"github.com/microwall/microwall/policy/rego"
)

const account = "spiffe://boutique.example/ns/default/sa/"

// shop is the four services, a PDP with the boutique's policies, and the fraud
// team, all over sockets.
type shop struct {
	t                           *testing.T
	ca                          *tlstest.CA
	frontend, checkout, payment *running
	cart                        *running
	mu                          sync.Mutex
	refused                     []enforce.Refused
	told                        []string // what the fraud team was told, with the call path
}

func open(t *testing.T) *shop { return openWith(t, false) }

func openWith(t *testing.T, reportOnly bool) *shop {
	t.Helper()
	s := &shop{t: t, ca: tlstest.NewCA(t)}
	folder, err := live.OpenFolder(t.Context(), "../boutique", rego.Options{}, nil)
	s.must(err)
	service := pdp.New(pdp.Config{Source: folder})
	server := grpcapi.New(grpcapi.Config{Decide: service, Watch: service})
	listener := testkit.Listen(t)
	testkit.Serve(t, listener, server, server.Stop)
	wall, err := remote.New(t.Context(), remote.Config{Servers: []string{listener.Addr().String()}})
	s.must(err)
	t.Cleanup(func() { _ = wall.Close() })

	fraud := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.told = append(s.told, string(body)+" "+r.Header.Get(enforce.Header)+" "+r.TLS.VerifiedChains[0][0].URIs[0].String())
	}))
	fraud.TLS = s.identity("fraud")
	fraud.StartTLS()
	t.Cleanup(fraud.Close)

	begin := func(role, name, next, cart string) *running {
		c := config{role: role, listen: "127.0.0.1:0", next: next, cart: cart, fraud: fraud.URL, ca: s.ca.File, authorizer: wall, reportOnly: reportOnly, events: s.event}
		c.cert, c.key = s.ca.IssueURIs(t, account+name)
		r, err := start(c)
		s.must(err)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := r.stop(ctx); err != nil {
				t.Errorf("%s: %v", role, err)
			}
		})
		return r
	}
	s.payment = begin("payment", "paymentservice", "", "")
	s.cart = begin("cart", "cartservice", "", "")
	s.checkout = begin("checkout", "checkoutservice", s.payment.addr, "")
	s.frontend = begin("frontend", "frontend", s.checkout.addr, s.cart.addr)
	return s
}

func (s *shop) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *shop) event(e enforce.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = append(s.refused, e.(enforce.Refused))
}

// identity is how somebody shows who they are.
func (s *shop) identity(name string) *tls.Config {
	s.t.Helper()
	c := config{ca: s.ca.File}
	c.cert, c.key = s.ca.IssueURIs(s.t, account+name)
	identity, err := loadTLS(c)
	s.must(err)
	return identity
}

// order is one of an amount in euros, by a customer who proved who they are some
// time ago.
func order(amount float64, ago time.Duration) map[string]any {
	return map[string]any{"amount": map[string]any{"currency_code": "EUR", "value": amount}, "customer_proved_at": time.Now().Add(-ago).Unix()}
}

// buy posts an order to the frontend.
func (s *shop) buy(as string, order map[string]any, header ...string) (int, string) {
	s.t.Helper()
	body, err := json.Marshal(order)
	s.must(err)
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "https://"+s.frontend.addr+"/cart/checkout", strings.NewReader(string(body)))
	s.must(err)
	for _, h := range header {
		r.Header.Add(enforce.Header, h)
	}
	transport := &http.Transport{TLSClientConfig: s.identity(as)}
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport}).Do(r)
	s.must(err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	s.must(err)
	return answer.StatusCode, strings.TrimSpace(string(text))
}

// look asks the frontend for ann's cart.
func (s *shop) look(as string) (int, string) {
	s.t.Helper()
	transport := &http.Transport{TLSClientConfig: s.identity(as)}
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport}).Get("https://" + s.frontend.addr + "/cart?user=ann")
	s.must(err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	s.must(err)
	return answer.StatusCode, string(text)
}

// stream calls cart past everybody, and returns what it sends.
func (s *shop) stream(as string, header ...string) (items []string, _ codes.Code) {
	s.t.Helper()
	conn := s.dial(s.cart, as)
	defer conn.Close()
	all, err := openCart(metadata.NewOutgoingContext(s.t.Context(), metadata.MD{enforce.Header: header}), conn, "ann")
	if err != nil {
		return nil, status.Code(err)
	}
	for item, err := range all {
		if err != nil {
			return items, status.Code(err)
		}
		items = append(items, item.GetFields()["product_id"].GetStringValue())
	}
	return items, codes.OK
}

// charge calls payment past everybody.
func (s *shop) charge(as string, header ...string) codes.Code {
	s.t.Helper()
	conn := s.dial(s.payment, as)
	defer conn.Close()
	message, err := structpb.NewStruct(map[string]any{"amount": map[string]any{"currency_code": "EUR", "value": 10}})
	s.must(err)
	ctx := metadata.NewOutgoingContext(s.t.Context(), metadata.MD{enforce.Header: header})
	return status.Code(conn.Invoke(ctx, "/hipstershop.PaymentService/Charge", message, new(structpb.Struct)))
}

func (s *shop) dial(to *running, as string) *grpc.ClientConn {
	s.t.Helper()
	conn, err := grpc.NewClient(to.addr, grpc.WithTransportCredentials(credentials.NewTLS(s.identity(as))))
	s.must(err)
	return conn
}

func TestACustomerBuys(t *testing.T) {
	s := open(t)
	for _, test := range []struct {
		amount float64
		ago    time.Duration
		code   int
		told   int
	}{
		{42.5, time.Hour, 200, 0},
		{1000, time.Minute, 200, 0},
		{1000, time.Hour, 502, 0}, // mfa is not met
		{5000, time.Minute, 200, 1},
		{20000, time.Minute, 502, 0}, // above the guardrails' limit
	} {
		t.Run(fmt.Sprint(test.amount, " ", test.ago), func(t *testing.T) {
			s.told = nil
			if code, text := s.buy("loadgenerator", order(test.amount, test.ago)); code != test.code {
				t.Errorf("%d %s, want %d", code, text, test.code)
			}
			if len(s.told) != test.told {
				t.Errorf("the fraud team was told %q", s.told)
			}
			for _, told := range s.told {
				want := `{"method":"/hipstershop.PaymentService/Charge","team":"fraud"} ` + account + "loadgenerator," + account + "frontend," + account + "checkoutservice " + account + "paymentservice"
				if told != want {
					t.Errorf("the fraud team was told\n%s, want\n%s", told, want)
				}
			}
		})
	}
}

func TestAStrangerIsRefused(t *testing.T) {
	s := open(t)
	if code, text := s.buy("stranger", order(10, 0)); code != http.StatusForbidden || text != "not allowed" {
		t.Errorf("frontend: %d %s", code, text)
	}
	for _, as := range []string{"stranger", "frontend", "loadgenerator", "paymentservice"} {
		if code := s.charge(as); code != codes.PermissionDenied {
			t.Errorf("payment, called by %s: %s", as, code)
		}
	}
	if code := s.charge("checkoutservice"); code != codes.OK {
		t.Errorf("payment, called by checkout: %s", code)
	}
	if got := s.payment.enforcer.Stats(); got != (enforce.Stats{Allowed: 1, Denied: 4}) {
		t.Errorf("payment counted %+v", got)
	}
}

func TestAForgedCallPathIsRefused(t *testing.T) {
	s := open(t)
	for _, forged := range [][]string{
		{account + "loadgenerator," + account + "frontend," + account + "checkoutservice"},
		{account + "checkoutservice"},
	} {
		if code := s.charge("frontend", forged...); code != codes.PermissionDenied {
			t.Errorf("frontend, who says that checkout sent it: %s", code)
		}
	}
	for _, forged := range [][]string{
		{"spiffe://evil.example/ns/default/sa/frontend"},   // the guardrails deny it
		{"spiffe://boutique.example.evil/ns/default/sa/x"}, // likewise
		{"frontend"}, {""}, {account + "frontend", account + "a"}, // no call path
		{strings.TrimSuffix(strings.Repeat(account+"frontend,", 33), ",")},
	} {
		if code := s.charge("checkoutservice", forged...); code != codes.PermissionDenied {
			t.Errorf("checkout with %.80q: %s", forged, code)
		}
		if code, _ := s.buy("loadgenerator", order(10, 0), forged...); code != http.StatusForbidden {
			t.Errorf("loadgenerator with %.80q: %d", forged, code)
		}
	}
}

// A stream is enforced like any call, and the path goes on through it.
func TestACustomerLooksAtACart(t *testing.T) {
	s := open(t)
	if code, text := s.look("loadgenerator"); code != http.StatusOK || text != "OLJCESPC7Z\n66VCHSJNUP\n" {
		t.Errorf("%d %q", code, text)
	}
	if code, _ := s.look("stranger"); code != http.StatusForbidden {
		t.Errorf("a stranger: %d", code)
	}
	for _, test := range []struct {
		as     string
		header []string
		code   codes.Code
	}{
		{"frontend", nil, codes.OK},
		{"checkoutservice", []string{account + "loadgenerator," + account + "frontend"}, codes.OK},
		{"loadgenerator", nil, codes.PermissionDenied},
		{"stranger", []string{account + "frontend"}, codes.PermissionDenied},
		{"frontend", []string{"spiffe://evil.example/ns/default/sa/loadgenerator"}, codes.PermissionDenied},
		{"frontend", []string{"evil"}, codes.PermissionDenied},
	} {
		items, code := s.stream(test.as, test.header...)
		if code != test.code || (code == codes.OK) != (len(items) == 2) || code != codes.OK && items != nil {
			t.Errorf("%s with %q: %s %q, want %s", test.as, test.header, code, items, test.code)
		}
	}
	if got := s.cart.enforcer.Stats(); got != (enforce.Stats{Allowed: 3, Denied: 3, Failed: 1}) {
		t.Errorf("cart counted %+v", got)
	}
}

// In the first days of a policy nobody is refused, and it is seen who would be.
func TestServicesThatOnlyReport(t *testing.T) {
	s := openWith(t, true)
	if code, text := s.buy("stranger", order(10, 0)); code != http.StatusOK {
		t.Errorf("a stranger buys: %d %s", code, text)
	}
	if code, _ := s.look("stranger"); code != http.StatusOK {
		t.Errorf("a stranger looks at a cart: %d", code)
	}
	if items, code := s.stream("stranger"); code != codes.OK || len(items) != 2 {
		t.Errorf("a stranger calls cart: %s %q", code, items)
	}
	for service, r := range map[string]*running{"frontend": s.frontend, "cart": s.cart} {
		if got := r.enforcer.Stats(); got.DeniedAndPassed == 0 || got.Denied+got.Failed != 0 {
			t.Errorf("%s counted %+v", service, got)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.refused) == 0 {
		t.Error("nobody is told who would have been refused")
	}
	for _, r := range s.refused {
		if !r.Passed {
			t.Errorf("refused: %+v", r)
		}
	}
}

// What no policy opens is closed, streams as well.
func TestAStreamThatNoPolicyOpensIsRefused(t *testing.T) {
	s := open(t)
	conn := s.dial(s.payment, "checkoutservice")
	defer conn.Close()
	watch, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	s.must(err)
	if _, err := watch.Recv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("Watch: %v", err)
	}
}
