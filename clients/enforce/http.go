package enforce

import (
	"net/http"
	"strings"

	"github.com/microwall/microwall/policy"
)

// HTTP returns a handler that stands before next. The route is the pattern that
// matched: next is a [http.ServeMux], or a handler in one, or Config.Route names
// it. A request without a route is refused.
func (e *Enforcer) HTTP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, refused := e.admit(r.Context(), &asked{Call: Call{HTTP: r}, next: next, tls: r.TLS, claims: r.Header.Values(Header)})
		if refused != nil {
			code := http.StatusForbidden
			if refused.passing() {
				code = http.StatusServiceUnavailable
			}
			http.Error(w, refused.told(e.config.Explain), code)
			return
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// route returns the action and the resource of a request.
func (e *Enforcer) route(c *asked) (string, policy.Entity, error) {
	pattern := c.HTTP.Pattern
	if e.config.Route != nil {
		pattern = e.config.Route(c.HTTP)
	} else if mux, ok := c.next.(*http.ServeMux); ok { // which is going to match what is finer
		_, pattern = mux.Handler(c.HTTP)
	}
	// The method is the action. A host stays: the same path is another route there.
	if i := strings.IndexAny(pattern, " \t"); i >= 0 && e.config.Route == nil {
		pattern = strings.TrimLeft(pattern[i:], " \t")
	}
	if pattern == "" {
		return "", policy.Entity{}, policy.Errorf(policy.BadRequest,
			"no route is known of this request: it matches none, or the middleware stands neither before a ServeMux nor in one; put it there, or set Config.Route")
	}
	return c.HTTP.Method, policy.Entity{Type: "route", ID: pattern}, nil
}

// Transport returns a transport that sends the call path with requests, by base;
// nil is [http.DefaultTransport].
func Transport(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return transport{base}
}

type transport struct{ base http.RoundTripper }

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	claims := writeClaims(r.Context())
	if claims == "" && len(r.Header.Values(Header)) == 0 {
		return t.base.RoundTrip(r)
	}
	// A transport must not change the request that it is given.
	r = r.WithContext(r.Context())
	if r.Header = r.Header.Clone(); r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header.Del(Header)
	if claims != "" {
		r.Header.Set(Header, claims)
	}
	return t.base.RoundTrip(r)
}
