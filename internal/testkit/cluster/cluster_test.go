//go:build unix

package cluster_test

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/internal/testkit/cluster"
)

func TestWhatIsStoredOutlivesItsLeader(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a cluster")
	}
	c := cluster.Start(t, "")
	way := testkit.NewWay(t, c.URL())
	conn, err := nats.Connect(way.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "s", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	c.Settle("S")
	lost := c.Leader("S")
	if lost == c.Follower("S") {
		t.Fatal("a server leads and follows")
	}
	lost.Kill()
	if next := c.Leader("S"); next == lost {
		t.Error("a dead server leads")
	}
	lost.Start()
	c.Settle("S")
	stream, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	if m, err := stream.GetLastMsgForSubject(t.Context(), "s"); err != nil || string(m.Data) != "kept" {
		t.Errorf("got %v, %v", m, err)
	}

	gone := conn.StatusChanged(nats.RECONNECTING)
	way.Cut()
	<-gone
	back := conn.StatusChanged(nats.CONNECTED)
	way.Mend()
	<-back
}
