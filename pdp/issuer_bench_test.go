package pdp_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/policy"
)

// BenchmarkRound is one round of beacons for a thousand namespaces: sign and
// store them, with the broker in the same process.
func BenchmarkRound(b *testing.B) {
	p, _, issued, rounds := issueMany(b, 1000)
	next := <-rounds
	size := 0
	if m, err := p.NATSConn.Request("$JS.API.DIRECT.GET.BEAT.pdp.beatin.shop.shop_team-1", nil, patience); err == nil {
		size = len(m.Data)
	}
	for b.Loop() {
		next <- time.Time{}
		<-issued
		next = <-rounds
	}
	b.ReportMetric(float64(size), "B/beacon")
}

// BenchmarkConfirm confirms the head of one of many namespaces: how many there
// are must not matter.
func BenchmarkConfirm(b *testing.B) {
	for _, many := range []int{1, 1000} {
		b.Run(fmt.Sprint(many), func(b *testing.B) {
			p, i, _, _ := issueMany(b, many)
			confirm := func() {
				if _, err := i.Confirm(b.Context(), "shop.team-0"); err != nil {
					b.Fatal(err)
				}
			}
			for p.Live.Beacons().Taken < uint64(many) { // it has enough to do until then
				confirm()
			}
			for b.Loop() {
				confirm()
			}
		})
	}
}

// issueMany starts an issuer of as many namespaces, and returns when the first
// round is done. rounds has who waits for the next one.
func issueMany(b *testing.B, namespaces int) (p *testkit.PDP, i *pdp.Issuer, issued chan pdp.Issued, rounds chan chan time.Time) {
	b.Helper()
	d := testkit.NewDomain(b)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}})
	url := testkit.NATS(b, b.TempDir()).URL()
	store := d.StartPDP(url, b.TempDir()).Store
	bundle := d.Rego("default allow := false")
	for n := range namespaces {
		ns := policy.Namespace(fmt.Sprintf("shop.team-%d", n))
		r := d.Release("center", ns, nil, bundle)
		if _, err := store.Put(b.Context(), ns, r.Note(), bundles.Pack(bundle.Tar()), 0); err != nil {
			b.Fatal(err)
		}
	}
	p = d.StartPDP(url, b.TempDir()) // which holds all of them
	rounds, issued = make(chan chan time.Time, 1), make(chan pdp.Issued, 1)
	i, err := pdp.NewIssuer(pdp.IssuerConfig{
		Live: p.Live, Store: p.Store, Key: d.Signer("beat"), Name: "bench",
		Events: func(e pdp.Event) {
			switch e := e.(type) {
			case pdp.Issued:
				issued <- e
			case pdp.IssueFailed:
				b.Error(e.Err)
			}
		},
		After: func(time.Duration) <-chan time.Time {
			c := make(chan time.Time, 1)
			rounds <- c
			return c
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	if e := <-issued; e.Namespaces != namespaces {
		b.Fatalf("beacons of %d namespaces", e.Namespaces)
	}
	return p, i, issued, rounds
}
