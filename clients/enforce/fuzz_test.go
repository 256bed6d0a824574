package enforce_test

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	pathpkg "path"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/microwall/microwall/clients/enforce"
)

// Whatever a peer sends as its call path: the call is refused, or the path is what
// was sent, spelled as it was, and the peer's proven name.
func FuzzHeader(f *testing.F) {
	w := newWorld(f)
	e, err := enforce.New(enforce.Config{Authorizer: w.wall, Namespace: "shop.cart"})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"", edge, path(edge, edge), edge + ",", "," + edge, "spiffe://", "spiffe://a/../b", "spiffe://A/b", "spiffe://a//b", "\x00", strings.Repeat(edge+",", 32) + edge} {
		f.Add(seed)
	}
	interceptor := e.UnaryServer()
	info := &grpc.UnaryServerInfo{FullMethod: "/grpc.health.v1.Health/Check"}
	f.Fuzz(func(t *testing.T, header string) {
		var got []string
		_, err := interceptor(verified(t.Context(), frontend, header), nil, info, func(ctx context.Context, _ any) (any, error) {
			got = enforce.CallPath(ctx)
			return nil, nil
		})
		if err != nil {
			if got != nil {
				t.Error("refused, and served")
			}
			return
		}
		if want := append(strings.Split(header, ","), frontend); !slices.Equal(got, want) || len(got) > 32 {
			t.Errorf("header %q became %q", header, got)
		}
		for _, id := range got {
			rest, ok := strings.CutPrefix(id, "spiffe://")
			if !ok || strings.ContainsAny(rest, " ,?#%@:\x00\"\\") || strings.Contains(rest, "/..") || strings.HasSuffix(rest, "/") {
				t.Errorf("%q is taken for a SPIFFE ID", id)
			}
		}
	})
}

// Whatever method is called: only those that the policy names get through.
func FuzzMethod(f *testing.F) {
	w := newWorld(f)
	e, err := enforce.New(enforce.Config{Authorizer: w.wall, Namespace: "shop.cart"})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"/grpc.health.v1.Health/Check", "grpc.health.v1.Health/Check", "//grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Check/", "/grpc.health.v1.Health//Check", "", "/", "/a"} {
		f.Add(seed)
	}
	interceptor := e.UnaryServer()
	f.Fuzz(func(t *testing.T, method string) {
		served := false
		_, err := interceptor(verified(t.Context(), frontend), nil, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) {
			served = true
			return nil, nil
		})
		named := method == "/grpc.health.v1.Health/Check" || method == "/grpc.health.v1.Health/Watch"
		if served != named || (err == nil) != named {
			t.Errorf("%q: served %t, %v", method, served, err)
		}
	})
}

// Whatever path is sent, and however it is spelled: what is served is what the
// policy opens, by whichever way a service reads paths.
func FuzzPath(f *testing.F) {
	w := newWorldOf(f, paths)
	e, err := enforce.New(enforce.Config{Authorizer: w.wall, Namespace: "shop.cart"})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"/files/public/a", "/files/public/../secret", "/files/public%2F..%2Fsecret", "//files/public/", "/x/files/public/a", "https://a/files/public/%2e", "/x/files/./", "*", "/files/public/a|b?c", "/x/files/public/draft/b"} {
		f.Add("GET", seed)
	}
	var served *http.Request
	mux, outer := http.NewServeMux(), http.NewServeMux()
	mux.HandleFunc("/files/", func(_ http.ResponseWriter, r *http.Request) { served = r })
	outer.Handle("/x/", http.StripPrefix("/x", e.HTTP(mux)))
	outer.Handle("/", e.HTTP(mux))
	f.Fuzz(func(t *testing.T, method, uri string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(method + " " + uri + " HTTP/1.1\r\nHost: a\r\n\r\n")))
		if err != nil {
			return
		}
		state := connection(frontend)
		r.TLS, served = &state, nil
		outer.ServeHTTP(httptest.NewRecorder(), r)
		if served == nil {
			return
		}
		escaped := served.URL.EscapedPath()
		once, err := url.PathUnescape(pathpkg.Clean(escaped))
		if err != nil {
			t.Fatal(err)
		}
		for _, reading := range []string{served.URL.Path, pathpkg.Clean(served.URL.Path) + "/", once + "/", pathpkg.Clean(once) + "/"} {
			if !strings.HasPrefix(reading, "/files/public/") || strings.HasPrefix(reading, "/files/public/draft/") && reading != "/files/public/draft/" {
				t.Errorf("%s %q is served, and may be read as %q", method, uri, reading)
			}
		}
		if strings.HasPrefix(r.URL.Path, "/x/") {
			t.Errorf("%s %q is served behind a prefix that the policy does not open", method, uri)
		}
	})
}
