//go:build unix

package jetstream_test

import (
	"testing"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/testkit/cluster"
)

func TestTheHeadAlwaysHasItsBundleOnAClusterThatLosesItsLeaders(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a cluster")
	}
	c := cluster.Start(t, "")
	churn(t, 6, func() {
		lost := c.Leader("BLOBS")
		lost.Kill()
		lost.Start()
		c.Leader("KV_policy").Kill()
	}, func(events func(jetstream.Event)) *jetstream.Store {
		s, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, c.URL()), Domain: domain, Replicas: 3, Keep: 2, Events: events})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
