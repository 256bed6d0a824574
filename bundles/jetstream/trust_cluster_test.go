//go:build unix

package jetstream_test

import (
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/testkit/cluster"
)

// Versions are pushed while a cluster loses the leader of both streams. None is
// lost, and everybody arrives at the newest, by way of every other.
func TestTheTrustFileTravelsWhileAClusterLosesItsLeader(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a cluster")
	}
	const newest = 20
	c := cluster.Start(t, "")
	s, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, c.URL()), Domain: domain, Replicas: 3})
	if err != nil {
		t.Fatal(err)
	}
	c.Settle("KV_policy", "BLOBS")
	c.Lead("KV_policy", c.Leader("BLOBS"))
	var all []*trustFollow
	for _, n := range c.Nodes {
		all = append(all, followTrust(t, connect(t, n.URL()+","+c.URL()), jetstream.PDP, nil))
	}
	for v := uint64(2); v <= newest; v++ {
		if v == 10 {
			c.Leader("BLOBS").Kill()
		}
		putTrust(t, s, v)
	}
	start := time.Now()
	for _, f := range all {
		for v := uint64(2); v <= newest; v++ {
			f.wants(t, trustNote(v))
		}
	}
	t.Logf("everybody has the newest %s after it was pushed", time.Since(start))
}
