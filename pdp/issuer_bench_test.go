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
	const namespaces = 1000
	d := testkit.NewDomain(b)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}})
	p := d.StartPDP(testkit.NATS(b, b.TempDir()).URL(), b.TempDir())
	bundle := d.Rego("default allow := false")
	for n := range namespaces {
		ns := policy.Namespace(fmt.Sprintf("shop.team-%d", n))
		r := d.Release("center", ns, nil, bundle)
		if _, err := p.Store.Put(b.Context(), ns, r.Note(), bundles.Pack(bundle.Tar()), 0); err != nil {
			b.Fatal(err)
		}
	}
	rounds, issued := make(chan chan time.Time), make(chan pdp.Issued, 1)
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
	if e := <-issued; e.Namespaces != namespaces {
		b.Fatalf("beacons of %d namespaces", e.Namespaces)
	}
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
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
