package enforce_test

import (
	"context"
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
