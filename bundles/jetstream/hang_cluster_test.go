//go:build unix

package jetstream_test

import (
	"slices"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/testkit/cluster"
	"github.com/microwall/microwall/policy"
)

// A server that hangs keeps its connections open, and says nothing on them.
func TestAClientWhoseServerHangsGoesToAnother(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a cluster")
	}
	t.Parallel() // it waits most of the time
	c := cluster.Start(t, "")
	followed := connect(t, c.URL())
	hangs := c.Nodes[slices.IndexFunc(c.Nodes, func(n *cluster.Node) bool { return n.URL() == followed.ConnectedUrl() })]
	others := slices.DeleteFunc(slices.Clone(c.Nodes), func(n *cluster.Node) bool { return n == hangs })
	s, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, others[0].URL()), Domain: domain, Replicas: 3})
	if err != nil {
		t.Fatal(err)
	}
	seq := mustPut(t, s, cart, note(cart, 1), []byte("one"), 0)
	// Without polls: what comes was pushed, or asked for because of another
	// connection. A question may get lost on the way to the server that hangs, and is
	// asked again.
	soon := func(d time.Duration) <-chan time.Time {
		if d > 5*time.Second {
			return nil
		}
		return time.After(d)
	}
	f := startFollower(t, "", jetstream.FollowConfig{Conn: followed, Namespaces: cartOnly, After: soon}, nil)
	f.wantOffer(t, note(cart, 1), []byte("one"))
	f.wantSynced(t)
	c.Lead("KV_policy", others[0])
	c.Settle("KV_policy")

	hangs.Pause()
	defer hangs.Resume()
	hung := time.Now()
	for { // the cluster may need to find itself
		_, err := s.Put(t.Context(), cart, []byte(note(cart, 2)), []byte("two"), seq)
		if err == nil {
			break
		}
		if policy.KindOf(err) != policy.Unavailable {
			t.Fatal(err)
		}
	}
	f.wantOffer(t, note(cart, 2), []byte("two"))
	took := time.Since(hung)
	t.Logf("the release was offered %s after the client's server hung", took.Round(100*time.Millisecond))
	// Three pings, an attempt at a server of 2 s, and a machine that has more to do.
	if took > 25*time.Second {
		t.Errorf("that took %s", took)
	}
	if now := followed.ConnectedUrl(); now == hangs.URL() {
		t.Error("it is still on the server that hangs")
	}
}
