package enforce_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/clients/enforce"
	"github.com/microwall/microwall/internal/tlsfiles/tlstest"
	"github.com/microwall/microwall/policy"
)

func TestTheFrontendGetsThroughAndAStrangerDoesNot(t *testing.T) {
	d := newWorld(t).open(options{})
	served, _ := d.as(frontend).expect(codes.OK, nil)
	for _, p := range served {
		if !slices.Equal(p, []string{frontend}) {
			t.Errorf("call path in the service: %v", p)
		}
	}
	_, refused := d.as(stranger).expect(codes.PermissionDenied, nil)
	for _, r := range refused {
		if r.Err != nil || r.Passed || r.Decision.Allowed || len(r.Decision.Versions) != 2 {
			t.Errorf("event: %+v", r)
		}
	}
	if got, want := d.enforcer.Stats(), (enforce.Stats{Allowed: 3, Denied: 3}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

// What the policy is asked is what the design says, and nothing that a header says.
func TestACallIsTheRequestThatTheDesignSays(t *testing.T) {
	d := newWorld(t).open(options{})
	_, refused := d.as(stranger).expect(codes.PermissionDenied, headers{enforce.Header, path(edge, frontend)})
	const tail = `{"call_path":["` + edge + `","` + frontend + `","` + stranger + `"],"call_path_claimed":2}`
	for i, want := range []string{
		"shop.cart workload " + stranger + " {} Check {} grpc grpc.health.v1.Health {} " + tail,
		"shop.cart workload " + stranger + " {} Watch {} grpc grpc.health.v1.Health {} " + tail,
		"shop.cart workload " + stranger + ` {} GET {} route /cart/{id} {"path":"/cart/7"} ` + tail,
	} {
		r := refused[i].Request
		got := fmt.Sprint(r.Namespace, " ", r.Subject.Type, " ", r.Subject.ID, " ", r.Subject.Properties, " ", r.Action.Name, " ", r.Action.Properties, " ",
			r.Resource.Type, " ", r.Resource.ID, " ", r.Resource.Properties, " ", r.Context)
		if got != want {
			t.Errorf("the policy is asked\n%s, want\n%s", got, want)
		}
	}
	if m := refused[0].Call.Message; m == nil {
		t.Error("the event of a unary call has no message")
	}
}

func TestAHeaderClaimsAnotherSubject(t *testing.T) {
	d := newWorld(t).open(options{})
	for name, h := range map[string]headers{
		"the call path":            {enforce.Header, frontend},
		"a call path that ends so": {enforce.Header, path(edge, frontend)},
		"another spelling":         {"Microwall-Call-Path", frontend},
		"what a mesh sends":        {"x-forwarded-client-cert", "URI=" + frontend, "x-spiffe-id", frontend},
		"names of the request":     {"subject", frontend, "microwall-subject", frontend, "microwall-call-path-claimed", "0"},
	} {
		t.Run(name, func(t *testing.T) {
			for who, c := range map[string]*caller{"stranger": d.as(stranger), "nobody": d.nobody()} {
				_, refused := c.expect(codes.PermissionDenied, h)
				for _, r := range refused {
					if r.Request.Subject.ID == frontend {
						t.Errorf("%s became %s", who, frontend)
					}
				}
			}
		})
	}
}

func TestACertificateThatIsNoProofOfWhoCalls(t *testing.T) {
	w := newWorld(t)
	other := tlstest.NewCA(t)
	d := w.open(options{clientAuth: tls.RequestClientCert, config: func(c *enforce.Config) { c.TrustDomain = "shop" }})
	verifying := w.open(options{config: func(c *enforce.Config) { c.TrustDomain = "shop" }})
	long := "spiffe://shop/" + strings.Repeat("a", 2048)
	for name, c := range map[string]*caller{
		"none":                                 verifying.nobody(),
		"the right name, which nobody checked": d.as(frontend),
		"the right name by another authority":  d.by(w.shows(other, frontend)),
		"two URIs":                             verifying.as(frontend, stranger),
		"two URIs, the right one last":         verifying.as(stranger, frontend),
		"the same URI twice":                   verifying.as(frontend, frontend),
		"no URI":                               verifying.as(),
		"another scheme":                       verifying.as("https://shop/ns/default/sa/frontend"),
		"another trust domain":                 verifying.as("spiffe://evil/ns/default/sa/frontend"),
		"a trust domain that begins alike":     verifying.as("spiffe://shop.evil/ns/default/sa/frontend"),
		"a trust domain in large letters":      verifying.as("spiffe://SHOP/ns/default/sa/frontend"),
		"a port":                               verifying.as("spiffe://shop:443/ns/default/sa/frontend"),
		"a user":                               verifying.as("spiffe://shop@evil/ns/default/sa/frontend"),
		"the trust domain alone":               verifying.as("spiffe://shop"),
		"an empty path":                        verifying.as("spiffe://shop/"),
		"an empty segment":                     verifying.as("spiffe://shop/ns//frontend"),
		"a slash at the end":                   verifying.as(frontend + "/"),
		"dots":                                 verifying.as("spiffe://shop/ns/default/sa/stranger/../frontend"),
		"an escaped letter":                    verifying.as("spiffe://shop/ns/default/sa/%66rontend"),
		"a query":                              verifying.as(frontend + "?"),
		"a comma":                              verifying.as("spiffe://shop/ns/default/sa/a,b"),
		"too long":                             verifying.as(long),
	} {
		t.Run(name, func(t *testing.T) {
			c.t = t
			_, refused := c.expect(codes.PermissionDenied, headers{enforce.Header, edge})
			for _, r := range refused {
				if policy.KindOf(r.Err) != policy.Denied || r.Request.Subject.ID != "" {
					t.Errorf("event: %v, subject %q", r.Err, r.Request.Subject.ID)
				}
			}
		})
	}
}

// Whoever may sign for others is not one of them.
func TestTheCertificateOfAnAuthorityIsNoWorkload(t *testing.T) {
	w := newWorld(t)
	e, err := enforce.New(enforce.Config{Authorizer: w.wall, Namespace: "shop.cart"})
	if err != nil {
		t.Fatal(err)
	}
	info := &grpc.UnaryServerInfo{FullMethod: "/grpc.health.v1.Health/Check"}
	for name, test := range map[string]struct {
		change func(*x509.Certificate)
		want   codes.Code
	}{
		"a leaf":                {func(*x509.Certificate) {}, codes.OK},
		"an authority":          {func(c *x509.Certificate) { c.IsCA = true }, codes.PermissionDenied},
		"may sign":              {func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign }, codes.PermissionDenied},
		"may revoke":            {func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }, codes.PermissionDenied},
		"may do what others do": {func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }, codes.OK},
	} {
		ctx := verified(t.Context(), frontend)
		p, _ := peer.FromContext(ctx)
		test.change(p.AuthInfo.(credentials.TLSInfo).State.VerifiedChains[0][0])
		if _, err := e.UnaryServer()(ctx, nil, info, nothing); status.Code(err) != test.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Without TrustDomain it is the policy that knows where callers come from.
func TestAWorkloadOfAnotherDomainIsItself(t *testing.T) {
	d := newWorld(t).open(options{})
	const evil = "spiffe://evil/ns/default/sa/frontend"
	_, refused := d.as(evil).expect(codes.PermissionDenied, nil)
	if got := refused[0]; got.Err != nil || got.Request.Subject.ID != evil {
		t.Errorf("subject %q, %v", got.Request.Subject.ID, got.Err)
	}
}

// A service that took the certificate off at its own door: nobody is known.
func TestPlaintextHasNoSubject(t *testing.T) {
	w := newWorld(t)
	d := w.open(options{plaintext: true})
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+d.httpAddr+"/cart/7", nil)
	r.Header.Set(enforce.Header, frontend)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusForbidden {
		t.Errorf("plaintext: %s", answer.Status)
	}
}

func TestAClaimedCallPath(t *testing.T) {
	d := newWorld(t).open(options{})
	c := d.as(frontend)
	many := func(n int) string { return strings.TrimSuffix(strings.Repeat(edge+",", n), ",") }
	for name, test := range map[string]struct {
		h    headers
		code codes.Code
	}{
		"one":                        {headers{enforce.Header, edge}, codes.OK},
		"31 elements, and the peer":  {headers{enforce.Header, many(31)}, codes.OK},
		"32 elements, and the peer":  {headers{enforce.Header, many(32)}, codes.PermissionDenied},
		"33 elements":                {headers{enforce.Header, many(33)}, codes.PermissionDenied},
		"very many":                  {headers{enforce.Header, strings.Repeat(",", 8000)}, codes.PermissionDenied},
		"empty":                      {headers{enforce.Header, ""}, codes.PermissionDenied},
		"a comma at the end":         {headers{enforce.Header, edge + ","}, codes.PermissionDenied},
		"a comma at the beginning":   {headers{enforce.Header, "," + edge}, codes.PermissionDenied},
		"a space":                    {headers{enforce.Header, edge + ", " + edge}, codes.PermissionDenied},
		"a name that is no ID":       {headers{enforce.Header, "edge"}, codes.PermissionDenied},
		"JSON":                       {headers{enforce.Header, `["` + edge + `"]`}, codes.PermissionDenied},
		"the header twice":           {headers{enforce.Header, edge, enforce.Header, edge}, codes.PermissionDenied},
		"somebody whom rules forbid": {headers{enforce.Header, path(edge, "spiffe://shop/evil")}, codes.PermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			c := *c
			c.t = t
			served, refused := c.expect(test.code, test.h)
			for _, p := range served {
				if want := append(strings.Split(test.h[1], ","), frontend); !slices.Equal(p, want) {
					t.Errorf("the service is told %v, want %v", p, want)
				}
			}
			for _, r := range refused {
				if kind := policy.KindOf(r.Err); r.Err != nil && kind != policy.BadRequest {
					t.Errorf("%s: %v", kind, r.Err)
				}
			}
		})
	}
}

// Nothing that a caller sends switches enforcement off.
func TestNoHeaderSetsReportOnly(t *testing.T) {
	d := newWorld(t).open(options{})
	for _, name := range []string{"report-only", "reportonly", "microwall-report-only", "x-microwall-report-only", "microwall-mode", "authorization"} {
		for _, value := range []string{"true", "1", "report-only"} {
			d.as(stranger).expect(codes.PermissionDenied, headers{name, value})
		}
	}
	if got := d.enforcer.Stats(); got.DeniedAndPassed+got.FailedAndPassed != 0 || got.Allowed != 0 {
		t.Errorf("counted %+v", got)
	}
}

// What is said before a handshake has ended may have been said before.
func TestAConnectionBeforeItsHandshakeHasEnded(t *testing.T) {
	w := newWorld(t)
	e, err := enforce.New(enforce.Config{Authorizer: w.wall, Namespace: "shop.cart"})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/cart/{id}", named("cart"))
	for complete, code := range map[bool]int{true: 200, false: 403} {
		r := httptest.NewRequest(http.MethodGet, "/cart/7", nil)
		state := connection(frontend)
		r.TLS, state.HandshakeComplete = &state, complete
		answer := httptest.NewRecorder()
		if e.HTTP(mux).ServeHTTP(answer, r); answer.Code != code {
			t.Errorf("complete %t: %d", complete, answer.Code)
		}
	}
}
