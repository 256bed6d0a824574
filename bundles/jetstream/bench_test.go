package jetstream_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/natsserver"
	"github.com/microwall/microwall/policy"
)

// BenchmarkPutToOffer measures from the call of Put to the call of Offer in a
// follower on another connection, with a bundle of 16 KB inside the head, and
// from the call of Put to its return. The broker syncs before it acknowledges.
func BenchmarkPutToOffer(b *testing.B) {
	server, err := natsserver.Start(b.Context(), natsserver.Config{Port: natsserver.AnyPort, StoreDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer server.Shutdown()
	dial := func() *jetstream.Store {
		nc, err := jetstream.Connect(b.Context(), server.URL(), jetstream.ConnectOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(nc.Close)
		s, err := jetstream.OpenStore(b.Context(), jetstream.StoreConfig{Conn: nc, Domain: domain})
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	store := dial()
	nc, err := jetstream.Connect(b.Context(), server.URL(), jetstream.ConnectOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	offered := make(chan time.Time, 1)
	f, err := jetstream.NewFollower(jetstream.FollowConfig{
		Conn: nc, As: jetstream.PDP, Domain: domain, Namespaces: []policy.Namespace{cart},
		Offer: func(ctx context.Context, _ []byte, fetch func(context.Context) ([]byte, error)) error {
			offered <- time.Now()
			_, err := fetch(ctx)
			return err
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}()
	<-f.Synced()

	packed := random(1, 16<<10)
	var seq uint64
	var toOffer, toReturn []time.Duration
	b.ResetTimer()
	for i := range b.N {
		start := time.Now()
		if seq, err = store.Put(b.Context(), cart, []byte(note(cart, i)), packed, seq); err != nil {
			b.Fatal(err)
		}
		toReturn = append(toReturn, time.Since(start))
		toOffer = append(toOffer, (<-offered).Sub(start))
	}
	b.StopTimer()
	for name, all := range map[string][]time.Duration{"offer": toOffer, "put": toReturn} {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds()), name+"-median-µs")
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), name+"-p99-µs")
	}
}
