package grpcapi_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/pdp/grpcapi"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

func watch(t *testing.T, conn *grpc.ClientConn, namespaces ...string) grpc.ServerStreamingClient[microwallv1.WatchResponse] {
	t.Helper()
	stream, err := microwallv1.NewPolicyServiceClient(conn).Watch(t.Context(), &microwallv1.WatchRequest{Namespaces: namespaces})
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// next returns what a watch says next, in short: the revisions along the path,
// with a star if a beacon has proven them, or the code of the error.
func next(t *testing.T, stream grpc.ServerStreamingClient[microwallv1.WatchResponse]) string {
	t.Helper()
	m, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if e := m.GetError(); e != nil {
		return fmt.Sprintf("%s: %s", m.GetNamespace(), codes.Code(e.GetCode()))
	}
	text := m.GetNamespace() + ":"
	for _, p := range m.GetPath() {
		text += fmt.Sprintf(" %d", p.GetVersion().GetRevision())
		if p.GetTime() != nil {
			text += "*"
		}
		if p.GetMaxStaleness() != nil {
			text += " " + p.GetMaxStaleness().AsDuration().String()
		}
		if p.GetDenyWhenStale() {
			text += "!"
		}
	}
	return text
}

func TestAWatchTellsReleasesTrustFilesAndBeacons(t *testing.T) {
	d := testkit.NewDomain(t)
	p := d.StartPDP(testkit.NATS(t, t.TempDir()).URL(), t.TempDir())
	says := func(stream grpc.ServerStreamingClient[microwallv1.WatchResponse], want string) {
		t.Helper()
		if got := next(t, stream); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	cart := watch(t, p.Conn, "shop.cart")
	says(cart, "shop.cart: NotFound")
	first := d.Push(p, "cart", "shop.cart", "allow := false").Release
	says(cart, "shop.cart: Unavailable") // its guardrail is missing
	shop := d.Push(p, "center", "shop", "deny contains \"no\" if false").Release
	says(cart, "shop.cart: 1 1")

	o := testkit.TrustOptions{Version: 2, Beacons: []string{"beat"}, More: map[policy.Namespace]string{"shop": "max-staleness: 30s, when-stale: deny"}}
	d.WriteTrust(o)
	if err := p.Live.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	says(cart, "shop.cart: 1 30s! 1 30s!")
	if err := p.Live.Prove(d.Beacon("beat", time.Now(), shop.Version(), first.Version())); err != nil {
		t.Fatal(err)
	}
	says(cart, "shop.cart: 1* 30s! 1* 30s!")
	d.Push(p, "cart", "shop.cart", "allow := true")
	says(cart, "shop.cart: 1* 30s! 2* 30s!")

	// Whoever comes later is told the same at once, of each namespace.
	both := watch(t, p.Conn, "shop.pay", "shop.cart")
	says(both, "shop.pay: NotFound")
	says(both, "shop.cart: 1* 30s! 2* 30s!")
}

func TestWatchesThatAreRefused(t *testing.T) {
	d := testkit.NewDomain(t)
	p := d.StartPDP(testkit.NATS(t, t.TempDir()).URL(), t.TempDir())
	many := make([]string, 1001)
	for i := range many {
		many[i] = fmt.Sprintf("shop.n%d", i)
	}
	for name, test := range map[string]struct {
		namespaces []string
		code       codes.Code
	}{
		"of nothing":          {nil, codes.InvalidArgument},
		"of no namespace":     {[]string{"shop.>"}, codes.InvalidArgument},
		"of too many at once": {many, codes.ResourceExhausted},
	} {
		if m, err := watch(t, p.Conn, test.namespaces...).Recv(); m != nil || status.Code(err) != test.code {
			t.Errorf("%s: %v, %v, want %v", name, m, err, test.code)
		}
	}
}

func TestMoreNamespacesThanMayBeWatchedAreRefused(t *testing.T) {
	decide := pdp.New(pdp.Config{Source: snapshot(t), Watches: 3})
	s := serve(t, grpcapi.Config{Decide: decide, Watch: decide})
	// Each costs memory and time, by whatever watch it is watched.
	two := watch(t, s.conn, "shop.cart", "shop.pay")
	if _, err := two.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := watch(t, s.conn, "shop.cart", "shop.pay").Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("four: %v", err)
	}
	if _, err := watch(t, s.conn, "shop.cart").Recv(); err != nil {
		t.Errorf("three: %v", err)
	}
}

func TestAServerThatStopsEndsItsWatchesAtOnce(t *testing.T) {
	decide := pdp.New(pdp.Config{Source: snapshot(t)})
	s := serve(t, grpcapi.Config{Decide: decide, Watch: decide})
	stream := watch(t, s.conn, "shop.cart")
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	s.Shutdown(t.Context()) // without an end of its own
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
}

// snapshot decides nothing, and stays.
func snapshot(t *testing.T) *live.Snapshot {
	t.Helper()
	s, err := live.NewLocal(t.Context(), nil, nil, rego.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
