package enforce_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/microwall/microwall/clients/enforce"
	"github.com/microwall/microwall/policy"
)

// A policy that opens some files, and routes of which others have the same end.
const paths = `
allow if {
	input.subject.id == "` + frontend + `"
	input.resource.id == "/files/"
	startswith(input.resource.properties.path, "/files/public/")
}

deny contains "a draft" if startswith(input.resource.properties.path, "/files/public/draft/")

allow if {
	input.subject.id == "` + frontend + `"
	input.action.name == "GET"
	input.resource.id in {"/open/cart/{id}", "/cart/{id}", "a.shop/cart/{id}"}
}
`

// site is an HTTP service behind an enforcer, with HTTP/2.
type site struct {
	w        *world
	enforcer *enforce.Enforcer
	server   *httptest.Server
	mu       sync.Mutex
	refused  []enforce.Refused
}

// site has an enforcer stand somewhere in a handler.
func (w *world) site(t *testing.T, build func(*enforce.Enforcer) http.Handler) *site {
	t.Helper()
	s := &site{w: w}
	var err error
	s.enforcer, err = enforce.New(enforce.Config{Authorizer: w.wall, Namespace: "shop.cart", Events: func(e enforce.Event) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.refused = append(s.refused, e.(enforce.Refused))
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.server = httptest.NewUnstartedServer(build(s.enforcer))
	s.server.EnableHTTP2 = true
	s.server.TLS = w.tlsConfig("spiffe://shop/ns/default/sa/cart")
	s.server.TLS.ClientAuth = tls.VerifyClientCertIfGiven
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	return s
}

// took returns what was refused since it was last asked.
func (s *site) took() []enforce.Refused {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.refused
	s.refused = nil
	return taken
}

// web returns a client that speaks HTTP/1.1 or HTTP/2.
func (s *site) web(t *testing.T, http2 bool, uris ...string) *http.Client {
	t.Helper()
	config := s.w.tlsConfig(frontend)
	if config.Certificates = nil; len(uris) > 0 {
		config = s.w.tlsConfig(uris...)
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: http2}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// ask returns the status and the body of an answer.
func (s *site) ask(t *testing.T, web *http.Client, method, path string, h headers) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(h); i += 2 {
		r.Header.Add(h[i], h[i+1])
		if h[i] == "Host" {
			r.Host = h[i+1]
		}
	}
	answer, err := web.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if want := map[bool]int{false: 1, true: 2}[web.Transport.(*http.Transport).ForceAttemptHTTP2]; answer.ProtoMajor != want {
		t.Fatalf("spoken is %s, want HTTP/%d", answer.Proto, want)
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// raw sends a request as it stands, by HTTP/1.1, and returns the status.
func (s *site) raw(t *testing.T, line string, header ...string) (int, *bufio.Reader, net.Conn) {
	t.Helper()
	conn, err := tls.Dial("tcp", s.server.Listener.Addr().String(), s.w.tlsConfig(frontend))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: shop\r\n%s\r\n", line, strings.Join(append(header, ""), "\r\n")); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	answer, err := http.ReadResponse(reader, nil) //nolint:bodyclose // what follows is read from the connection, which is closed
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, reader, conn
}

func named(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, name, " ", enforce.CallPath(r.Context()))
	})
}

// What the policy takes for one path, a file server takes for another one.
func TestAPathThatTwoReadersTakeForDifferentOnes(t *testing.T) {
	s := newWorldOf(t, paths).site(t, func(e *enforce.Enforcer) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/files/", http.FileServerFS(fstest.MapFS{
			"files/public/a":       {Data: []byte("open")},
			"files/public/draft/b": {Data: []byte("SECRET")},
			"files/secret":         {Data: []byte("SECRET")},
		}))
		return e.HTTP(mux)
	})
	for path, want := range map[string]int{
		"/files/public/a": 200, "/files/public/%61": 200, "/files/%70ublic/a?b=/../c": 200, "/files/public/": 200,
		"/files/secret":                  403,
		"/files/public/../secret":        403,
		"/files/public/%2e%2e/secret":    403,
		"/files/public/.%2E/secret":      403,
		"/files/public/..%2Fsecret":      403,
		"/files/public/..%2fsecret":      403,
		"/files/public%2F..%2Fsecret":    403,
		"/files/public/%2F../../secret":  403,
		"/files/public/./draft/b":        403,
		"/files/public/%2e/draft/b":      403,
		"/files/public//draft/b":         403,
		"/files/public/draft%2Fb":        403,
		"/files/public/%2Fdraft/b":       403,
		"/files/public/draft/b":          403,
		"/files/public/..":               403,
		"//files/public/a":               403,
		"/x/../files/secret":             403,
		"/files/public/a%2F..%2Fdraft/b": 403,
	} {
		for _, http2 := range []bool{false, true} {
			if got, body := s.ask(t, s.web(t, http2, frontend), http.MethodGet, path, nil); got != want || strings.Contains(body, "SECRET") {
				t.Errorf("HTTP/2 %t, %s: %d %q, want %d", http2, path, got, body, want)
			}
		}
		// A ServeMux leaves such paths as they are.
		if got, _, _ := s.raw(t, "CONNECT "+path); got != want {
			t.Errorf("CONNECT %s: %d, want %d", path, got, want)
		}
	}
	for _, r := range s.took() {
		if r.Err != nil && policy.KindOf(r.Err) != policy.BadRequest {
			t.Errorf("%v", r.Err)
		}
	}
}

// Two handlers that have a prefix cut off their paths are not the same.
func TestARouteBehindAPrefixHasIt(t *testing.T) {
	cart := func(name string) *http.ServeMux {
		mux := http.NewServeMux()
		mux.Handle("GET /cart/{id}", named(name))
		return mux
	}
	s := newWorldOf(t, paths).site(t, func(e *enforce.Enforcer) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/open/", http.StripPrefix("/open", e.HTTP(cart("open"))))
		mux.Handle("/admin/", http.StripPrefix("/admin", e.HTTP(cart("admin"))))
		mux.Handle("/before/", e.HTTP(http.StripPrefix("/before", cart("before"))))
		behind := http.NewServeMux()
		behind.Handle("/cart/{id}", e.HTTP(named("behind")))
		mux.Handle("/behind/", http.StripPrefix("/behind", behind))
		return mux
	})
	for line, want := range map[string]struct {
		code        int
		route, path string
	}{
		"GET /open/cart/7":                   {200, "", ""},
		"GET /%6fpen/cart/7":                 {404, "", ""}, // as StripPrefix has it
		"GET https://shop/open/cart/7":       {200, "", ""},
		"GET /open/cart/7?x=/admin":          {200, "", ""},
		"GET /open/cart/a|b":                 {200, "", ""},
		"GET /admin/cart/7":                  {403, "/admin/cart/{id}", "/admin/cart/7"},
		"GET /admin/cart/a|b":                {403, "/admin/cart/{id}", "/admin/cart/a|b"},
		"GET /admin/cart/%7c":                {403, "/admin/cart/{id}", "/admin/cart/|"},
		"GET https://shop/admin/cart/7":      {403, "/admin/cart/{id}", "/admin/cart/7"},
		"GET https://shop/admin/cart/a|b?/7": {403, "/admin/cart/{id}", "/admin/cart/a|b"},
		"GET /before/cart/7":                 {403, "/before/", "/before/cart/7"}, // a coarse one
		"GET /behind/cart/7":                 {403, "", ""},
	} {
		code, _, _ := s.raw(t, line)
		refused := s.took()
		if code != want.code {
			t.Errorf("%s: %d, want %d", line, code, want.code)
		}
		if want.code != 403 {
			continue
		}
		if len(refused) != 1 {
			t.Fatalf("%s: %d events", line, len(refused))
		}
		r := refused[0].Request.Resource
		if path, _ := r.Properties.Get("path"); r.ID != want.route || path.Text() != want.path {
			t.Errorf("%s: asked for %q, %q; want %q, %q", line, r.ID, path.Text(), want.route, want.path)
		}
	}
}

// The route is the finest that is going to match, with the host that was asked for.
func TestARouteThroughMuxesInMuxes(t *testing.T) {
	inner := func(name string) *http.ServeMux {
		mux := http.NewServeMux()
		mux.Handle("GET /cart/{id}", named(name))
		mux.Handle("/admin", named(name))
		mux.Handle("c.shop/cart/{id}", named(name))
		return mux
	}
	w := newWorldOf(t, paths)
	for name, build := range map[string]func(*enforce.Enforcer) http.Handler{
		"before the outer one": func(e *enforce.Enforcer) http.Handler {
			mux := http.NewServeMux()
			mux.Handle("/", inner("any"))
			mux.Handle("a.shop/", inner("a"))
			mux.Handle("b.shop/", inner("b"))
			return e.HTTP(mux)
		},
		"before the inner ones": func(e *enforce.Enforcer) http.Handler {
			mux := http.NewServeMux()
			mux.Handle("/", e.HTTP(inner("any")))
			mux.Handle("a.shop/", e.HTTP(inner("a")))
			mux.Handle("b.shop/", e.HTTP(inner("b")))
			return mux
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := w.site(t, build)
			web := s.web(t, true, frontend)
			for _, test := range []struct {
				host, path string
				code       int
				want       string
			}{
				{"shop", "/cart/7", 200, "any"},
				{"a.shop", "/cart/7", 200, "a"},
				{"b.shop", "/cart/7", 403, "b.shop/cart/{id}"},
				{"c.shop", "/cart/7", 403, "c.shop/cart/{id}"},
				{"shop", "/admin", 403, "/admin"},
				{"a.shop", "/admin", 403, "a.shop/admin"},
				{"shop", "/nothing", 403, ""},
			} {
				code, body := s.ask(t, web, http.MethodGet, test.path, headers{"Host", test.host})
				refused := s.took()
				if code != test.code || code == 200 && !strings.HasPrefix(body, test.want+" ") || code == 403 && (len(refused) != 1 || refused[0].Request.Resource.ID != test.want) {
					t.Errorf("%s%s: %d %q, refused %+v; want %d %s", test.host, test.path, code, body, refused, test.code, test.want)
				}
			}
		})
	}
	endless := w.site(t, func(e *enforce.Enforcer) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/", mux)
		return e.HTTP(mux)
	})
	if code, _ := endless.ask(t, endless.web(t, false, frontend), http.MethodGet, "/cart/7", nil); code != 403 {
		t.Errorf("a mux that leads to itself: %d", code)
	}
}

// Methods are as they are sent: a ServeMux serves HEAD by what is there for GET, and
// the policy has not opened it.
func TestMethodsThatAreAlmostTheSame(t *testing.T) {
	s := newWorldOf(t, paths).site(t, func(e *enforce.Enforcer) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("GET /cart/{id}", named("get"))
		mux.Handle("/cart/{id}", named("others"))
		return e.HTTP(mux)
	})
	for _, method := range []string{"HEAD", "get", "Get", "POST", "TRACE", "OPTIONS", "CONNECT", "GETS"} {
		if code, _, _ := s.raw(t, method+" /cart/7", "X-HTTP-Method-Override: GET", "X-HTTP-Method: GET"); code != 403 {
			t.Errorf("%s: %d", method, code)
		}
		for _, r := range s.took() {
			if r.Request.Action.Name != method {
				t.Errorf("asked for %q of %s", r.Request.Action.Name, method)
			}
		}
	}
	if code, _, _ := s.raw(t, "GET /cart/7"); code != 200 {
		t.Errorf("GET: %d", code)
	}
}

// HTTP/2 names who calls by the same certificate, and reads the same header.
func TestOverHTTP2(t *testing.T) {
	s := newWorldOf(t, paths).site(t, func(e *enforce.Enforcer) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("GET /cart/{id}", named("cart"))
		return e.HTTP(mux)
	})
	for name, test := range map[string]struct {
		who  []string
		h    headers
		code int
		body string
	}{
		"allowed":                        {[]string{frontend}, nil, 200, "cart [" + frontend + "]"},
		"with a path":                    {[]string{frontend}, headers{enforce.Header, edge}, 200, "cart [" + edge + " " + frontend + "]"},
		"a stranger":                     {[]string{stranger}, nil, 403, ""},
		"a stranger, who says otherwise": {[]string{stranger}, headers{enforce.Header, frontend}, 403, ""},
		"nobody":                         {nil, headers{enforce.Header, frontend}, 403, ""},
		"two URIs":                       {[]string{frontend, stranger}, nil, 403, ""},
		"two headers":                    {[]string{frontend}, headers{enforce.Header, edge, enforce.Header, edge}, 403, ""},
		"a list":                         {[]string{frontend}, headers{enforce.Header, edge + ", " + edge}, 403, ""},
		"a long path":                    {[]string{frontend}, headers{enforce.Header, strings.Repeat(edge+",", 32) + edge}, 403, ""},
		"a large header":                 {[]string{frontend}, headers{enforce.Header, strings.Repeat("a", 500_000)}, 403, ""},
		"a large element":                {[]string{frontend}, headers{enforce.Header, "spiffe://shop/" + strings.Repeat("a", 3000)}, 403, ""},
		"a trailer's name":               {[]string{frontend}, headers{"Trailer", enforce.Header}, 200, "cart [" + frontend + "]"},
	} {
		t.Run(name, func(t *testing.T) {
			code, body := s.ask(t, s.web(t, true, test.who...), http.MethodGet, "/cart/7", test.h)
			if code != test.code || code == 200 && body != test.body {
				t.Errorf("%d %s, want %d %s", code, body, test.code, test.body)
			}
			for _, r := range s.took() {
				if size := len(fmt.Sprint(r.Request, r.Err)); size > 4096 {
					t.Errorf("what is told of it has %d bytes", size)
				}
			}
		})
	}
}

// HTTP/2 without TLS has no certificate, and so no subject.
func TestHTTP2InPlaintextHasNoSubject(t *testing.T) {
	w := newWorldOf(t, paths)
	e, err := enforce.New(enforce.Config{Authorizer: w.wall, Namespace: "shop.cart"})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/cart/{id}", named("cart"))
	server := httptest.NewUnstartedServer(e.HTTP(mux))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	defer server.Close()
	transport := &http.Transport{Protocols: server.Config.Protocols}
	defer transport.CloseIdleConnections()
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/cart/7", nil)
	r.Header.Set(enforce.Header, frontend)
	answer, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusForbidden || answer.ProtoMajor != 2 {
		t.Errorf("%s %s", answer.Proto, answer.Status)
	}
}

// A connection that a handler wants to take over: nothing of it is there before
// the decision, and all of it afterwards.
func TestAConnectionIsTakenOverOnlyWhenAllowed(t *testing.T) {
	s := newWorldOf(t, paths).site(t, func(e *enforce.Enforcer) http.Handler {
		take := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			conn, both, err := http.NewResponseController(w).Hijack()
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			defer conn.Close()
			_, _ = both.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: own\r\n\r\nhello\n")
			_ = both.Flush()
		})
		mux := http.NewServeMux()
		mux.Handle("GET /cart/{id}", take)
		mux.Handle("GET /admin/{id}", take)
		return e.HTTP(mux)
	})
	code, rest, _ := s.raw(t, "GET /cart/7", "Connection: Upgrade", "Upgrade: own")
	if line, err := rest.ReadString('\n'); code != http.StatusSwitchingProtocols || line != "hello\n" {
		t.Errorf("allowed: %d %q %v", code, line, err)
	}
	if code, _, _ = s.raw(t, "GET /admin/7", "Connection: Upgrade", "Upgrade: own"); code != 403 {
		t.Errorf("denied: %d", code)
	}
}

// Who waits to be told to send a body is not told so before the decision.
func TestABodyIsNotAskedForBeforeTheDecision(t *testing.T) {
	s := newWorldOf(t, paths).site(t, func(e *enforce.Enforcer) http.Handler {
		mux := http.NewServeMux()
		mux.HandleFunc("/cart/{id}", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
		return e.HTTP(mux)
	})
	if code, _, _ := s.raw(t, "POST /cart/7", "Expect: 100-continue", "Content-Length: 1000000"); code != 403 {
		t.Errorf("denied: %d", code)
	}
	if code, _, _ := s.raw(t, "GET /cart/7", "Expect: 100-continue", "Content-Length: 1000000"); code != 100 {
		t.Errorf("allowed: %d", code)
	}
}

// A resumed session is whose it was.
func TestAResumedSession(t *testing.T) {
	var mu sync.Mutex
	var resumed []bool
	s := newWorldOf(t, paths).site(t, func(e *enforce.Enforcer) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("GET /cart/{id}", named("cart"))
		inner := e.HTTP(mux)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			resumed = append(resumed, r.TLS.DidResume)
			mu.Unlock()
			inner.ServeHTTP(w, r)
		})
	})
	for who, code := range map[string]int{frontend: 200, stranger: 403} {
		config := s.w.tlsConfig(who)
		config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		resumed = nil
		for range 2 {
			transport := &http.Transport{TLSClientConfig: config}
			if got, body := s.ask(t, &http.Client{Transport: transport}, http.MethodGet, "/cart/7", headers{enforce.Header, edge}); got != code {
				t.Errorf("%s: %d %s, want %d", who, got, body, code)
			}
			transport.CloseIdleConnections()
		}
		if !slices.Equal(resumed, []bool{false, true}) {
			t.Fatalf("%s: resumed %v", who, resumed)
		}
	}
}

// The path is what was sent, and nothing that a callback makes of it.
func TestDescribeMakesAPath(t *testing.T) {
	w := newWorldOf(t, paths)
	e, err := enforce.New(enforce.Config{Authorizer: w.wall, Namespace: "shop.cart", Describe: func(context.Context, enforce.Call) (enforce.Properties, error) {
		return enforce.Properties{Resource: map[string]any{"path": "/files/public/a"}}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/cart/{id}", named("cart"))
	if code := w.serve(t, e.HTTP(mux), frontend); code != http.StatusForbidden {
		t.Errorf("%d", code)
	}
	if got := e.Stats(); got != (enforce.Stats{Failed: 1}) {
		t.Errorf("counted %+v", got)
	}
}
