//go:build unix

package jetstream_test

import (
	"testing"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/testkit/cluster"
)

func TestTheHeadAlwaysHasItsBundleOnAClusterThatLosesALeader(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a cluster")
	}
	t.Parallel()
	c := cluster.Start(t, "")
	churn(t, 4, func() {
		c.Leader("BLOBS").Kill()
	}, func(events func(jetstream.Event)) *jetstream.Store {
		s, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, c.URL()), Domain: domain, Replicas: 3, Keep: 2, Events: events})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
