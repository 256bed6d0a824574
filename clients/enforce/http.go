package enforce

import (
	"net/http"
	"net/url"
	pathpkg "path"
	"strings"

	"github.com/microwall/microwall/policy"
)

// HTTP returns a handler that stands before next. The route is the pattern that
// matched: next is a [http.ServeMux], or a handler in one, or Config.Route names
// it. A request without a route is refused. A connection that next takes over, as
// for a WebSocket, is decided when it is opened, and not again.
func (e *Enforcer) HTTP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, refused := e.admit(r.Context(), &asked{Call: Call{HTTP: r}, next: next, leaf: verifiedLeaf(r.TLS), claims: r.Header.Values(Header)})
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

// route returns the action and the resource of a request, and its path.
func (e *Enforcer) route(c *asked) (string, policy.Entity, string, error) {
	path, cut, err := pathOf(c.HTTP)
	if err != nil {
		return "", policy.Entity{}, "", err
	}
	route := ""
	switch _, isMux := c.next.(*http.ServeMux); {
	case e.config.Route != nil:
		route = e.config.Route(c.HTTP)
	case isMux:
		route = match(c.next, c.HTTP, cut)
	case cut == "":
		route = withoutMethod(c.HTTP.Pattern)
	}
	if route == "" {
		return "", policy.Entity{}, "", policy.Errorf(policy.BadRequest,
			"no route is known of this request: it matches none, or the middleware stands neither before a ServeMux nor in one, or in one behind a http.StripPrefix; put it before the ServeMux, or set Config.Route")
	}
	return c.HTTP.Method, policy.Entity{Type: "route", ID: route}, path, nil
}

// pathOf returns the path that was asked for, decoded, and what of it was cut off
// before the request came here, as [http.StripPrefix] does: two handlers behind
// one each are not the same.
//
// A path that one reader takes for this and another one for that is refused: the
// policy and the service may be two such readers.
func pathOf(r *http.Request) (decoded, cut string, err error) {
	asked := r.URL
	if sent, _, _ := strings.Cut(r.RequestURI, "?"); sent != "" && sent != asked.EscapedPath() {
		// Compared as they are decoded: what a caller sends has many spellings.
		if u, err := url.ParseRequestURI(r.RequestURI); err == nil && strings.HasSuffix(u.Path, asked.Path) {
			asked, cut = u, strings.TrimSuffix(u.Path, asked.Path)
		}
	}
	decoded = asked.Path
	if escaped := asked.EscapedPath(); strings.Count(decoded, "/") != strings.Count(escaped, "/") {
		return "", "", policy.Errorf(policy.BadRequest, "a slash is encoded in the path %.300q, which some take for a slash and some for a part of a name; send such names in the query", escaped)
	}
	clean := pathpkg.Clean(decoded)
	if strings.HasSuffix(decoded, "/") && clean != "/" {
		clean += "/"
	}
	if decoded != clean && decoded != "" {
		return "", "", policy.Errorf(policy.BadRequest, "the path %.300q goes through an empty segment, . or ..; send it as %.300q", decoded, clean)
	}
	return decoded, cut, nil
}

// mostMuxes is how deep a ServeMux is looked for in others.
const mostMuxes = 16

// match returns the route that a request is going to take through a ServeMux, and
// through each that it leads to: with the host that one of them has asked for, and
// with what was cut off the path before.
func match(next http.Handler, r *http.Request, cut string) string {
	host, _ := splitHost(withoutMethod(r.Pattern))
	path := ""
	for range mostMuxes {
		mux, ok := next.(*http.ServeMux)
		if !ok {
			return host + cut + path
		}
		var pattern, finer string
		if next, pattern = mux.Handler(r); pattern == "" {
			return ""
		}
		if finer, path = splitHost(withoutMethod(pattern)); finer != "" {
			host = finer
		}
	}
	return ""
}

// withoutMethod cuts the method off a pattern, which is the action. A host stays:
// the same path is another route there.
func withoutMethod(pattern string) string {
	if i := strings.IndexAny(pattern, " \t"); i >= 0 {
		return strings.TrimLeft(pattern[i:], " \t")
	}
	return pattern
}

func splitHost(route string) (host, path string) {
	i := max(strings.IndexByte(route, '/'), 0)
	return route[:i], route[i:]
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
