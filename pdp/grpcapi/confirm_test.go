package grpcapi_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/pdp/grpcapi"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

func TestAConfirmedHeadIsTheOneThatWasPushedBefore(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}})
	p := d.StartPDP(testkit.NATS(t, t.TempDir()).URL(), t.TempDir())
	issuer, err := pdp.NewIssuer(pdp.IssuerConfig{Live: p.Live, Store: p.Store, Key: d.Signer("beat"), Name: "one"})
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	work.Go(func() { _ = issuer.Run(ctx) }) // ends with ctx
	defer work.Wait()
	defer cancel()
	s := serve(t, grpcapi.Config{Decide: p.Service, Confirm: func(ctx context.Context, n policy.Namespace) (*bundles.SignedBeacon, error) {
		note, err := issuer.Confirm(ctx, n)
		if err != nil {
			return nil, err
		}
		return d.Trust().OpenBeacon(note)
	}})
	c := microwallv1.NewPolicyServiceClient(s.conn)

	shop := d.Push(p, "center", "shop", "deny contains \"no\" if false").Release
	for _, module := range []string{"allow := false", "allow := true"} {
		cart := d.Push(p, "cart", "shop.cart", module).Release
		m, err := c.Confirm(t.Context(), &microwallv1.ConfirmRequest{Namespaces: []string{"shop", "shop.cart"}})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []*bundles.Signed{shop, cart} {
			head := m.GetHeads()[i]
			beacon, err := d.Trust().OpenBeacon(head.GetBeacon())
			if err != nil {
				t.Fatal(err)
			}
			signed, _ := beacon.Head(want.Release().Namespace)
			if head.GetVersion().GetDigest() != want.Digest().String() || signed != want.Version() || !beacon.Time().Equal(head.GetTime().AsTime()) {
				t.Errorf("got %v, signed %v, want %v", head, signed, want.Version())
			}
		}
	}
	for name, test := range map[string]struct {
		namespaces []string
		code       codes.Code
	}{
		"of nothing":                     {nil, codes.InvalidArgument},
		"of no namespace":                {[]string{"shop.>"}, codes.InvalidArgument},
		"of a namespace without release": {[]string{"shop", "shop.pay"}, codes.NotFound},
	} {
		if m, err := c.Confirm(t.Context(), &microwallv1.ConfirmRequest{Namespaces: test.namespaces}); m != nil || status.Code(err) != test.code {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
}

func TestAServerOfFoldersConfirmsNothing(t *testing.T) {
	s := serve(t, grpcapi.Config{Decide: pdp.New(pdp.Config{Source: snapshot(t)})})
	_, err := microwallv1.NewPolicyServiceClient(s.conn).Confirm(t.Context(), &microwallv1.ConfirmRequest{Namespaces: []string{"shop"}})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestWhoAsksForTooManyConfirmedHeadsDoesNotFillTheServer(t *testing.T) {
	const most = 4096
	var waiting, worst atomic.Int64
	full, free := make(chan struct{}), make(chan struct{})
	s := serve(t, grpcapi.Config{Decide: pdp.New(pdp.Config{Source: snapshot(t)}), Confirm: func(ctx context.Context, _ policy.Namespace) (*bundles.SignedBeacon, error) {
		n := waiting.Add(1)
		defer waiting.Add(-1)
		if worst.Store(max(worst.Load(), n)); n == most {
			close(full)
		}
		select { // no PDP issues
		case <-free:
		case <-ctx.Done():
		}
		return nil, policy.Errorf(policy.Unavailable, "nobody issues")
	}})
	c := microwallv1.NewPolicyServiceClient(s.conn)
	names := make([]string, most/8)
	for i := range names {
		names[i] = "shop.cart"
	}
	ask := func() error {
		_, err := c.Confirm(t.Context(), &microwallv1.ConfirmRequest{Namespaces: names})
		return err
	}
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			if err := ask(); status.Code(err) != codes.Unavailable {
				t.Errorf("one of those that there is room for: %v", err)
			}
		})
	}
	<-full
	for range 20 {
		if err := ask(); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("one too many: %v", err)
		}
	}
	close(free)
	work.Wait()
	if n := worst.Load(); n > most {
		t.Errorf("%d were confirmed at once, %d may be", n, most)
	}
	if err := ask(); status.Code(err) != codes.Unavailable {
		t.Errorf("when there is room again: %v", err)
	}
}
