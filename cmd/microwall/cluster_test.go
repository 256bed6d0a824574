//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjetstream "github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/internal/testkit/cluster"
	"github.com/microwall/microwall/policy"
)

var faultsLong = flag.Bool("faults.long", false, "let faults of the cluster last as long as they do outside: a pause takes 15 s at least, and each comes three times")

const headStream, blobStream = "KV_policy", "BLOBS"

// clustered is a cluster under load.
type clustered struct {
	*load
	*cluster.Cluster
	way  *testkit.Way // of the client "far"
	pdp1 jetstream.Credentials
	// pdpKey is the file that has them.
	pdpKey string
	epoch  uint64
}

// users are those of the cluster: a PDP, and a client of the teams' namespaces.
func users(t *testing.T) (config string, pdp, client jetstream.Credentials) {
	t.Helper()
	var err error
	pdp, err = jetstream.NewCredentials("pdp-1")
	must(t, err)
	client, err = jetstream.NewCredentials("client-1")
	must(t, err)
	text, err := jetstream.Accounts{Domain: "shop", Users: []jetstream.User{
		{Principal: jetstream.Principal{Name: "pdp-1", Kind: jetstream.PDP}, Key: pdp.Key()},
		{Principal: jetstream.Principal{Name: "client-1", Kind: jetstream.Client, Namespaces: slices.Sorted(maps.Keys(teams)), Guardrails: []policy.Namespace{"shop"}}, Key: client.Key()},
	}}.Config()
	must(t, err)
	return string(text), pdp, client
}

func TestAClusterUnderLoadLosesNothingAndTakesNobodyBack(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs a cluster, PDPs and clients")
	}
	begun := time.Now()
	config, pdp, client := users(t)
	nodes := cluster.Start(t, config, pdp.Options()...)
	c := &clustered{Cluster: nodes, way: testkit.NewWay(t, nodes.URL()), load: newLoad(t, testkit.NewDomain(t)), pdp1: pdp, epoch: 1}
	c.nkey = filepath.Join(t.TempDir(), "client-1.nkey")
	c.pdpKey = filepath.Join(t.TempDir(), "pdp-1.nkey")
	must(t, errors.Join(pdp.Write(c.pdpKey), client.Write(c.nkey)))
	key := beaconKey(t, c.Domain, "beat")
	c.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}})
	c.pdp("pdp-a", t.TempDir(), "--nats", nodes.URL(), "--nats-creds", c.pdpKey, "--beacon-key", key)
	c.pdp("pdp-b", t.TempDir(), "--nats", nodes.URL(), "--nats-creds", c.pdpKey, "--beacon-key", key)
	c.begin()
	c.client("near", nodes.URL())
	c.client("far", c.way.URL())
	c.client("at-n1", nodes.Nodes[0].URL()) // and nowhere else
	c.run()
	c.attack(nodes.URL(), pdp) // even who has stolen what a PDP has
	c.converge(t, "from the start on", begun)

	rounds := 1
	if *faultsLong {
		rounds = 3
	}
	for range rounds {
		for _, fault := range []struct {
			name   string
			happen func(*testing.T)
		}{
			{"the leader is killed", func(t *testing.T) { c.loseServer(t, c.leader()) }},
			{"a follower is killed", func(t *testing.T) { c.leader(); c.loseServer(t, nodes.Follower(headStream)) }},
			{"a server is paused", c.pauseServer},
			{"a PDP is killed", c.losePDP},
			{"the publisher is killed between blob and head", c.losePublisher},
			{"a client is cut off", c.cutClient},
			{"all servers are killed", c.loseAll},
			{"the streams are removed", c.loseStreams},
		} {
			ok := t.Run(fault.name, func(t *testing.T) {
				c.rebuilding.Store(false)
				fault.happen(t)
				c.converge(t, "afterwards", time.Now())
				c.Settle(headStream, blobStream) // so that the next server may be lost
				c.check(t)
				if *faultsLong {
					c.proven(t, time.Now())
				}
			})
			if !ok {
				return
			}
		}
	}
	c.proven(t, time.Now())
}

// leader returns a server that leads both streams.
func (c *clustered) leader() *cluster.Node {
	n := c.Leader(headStream)
	c.Lead(blobStream, n)
	return n
}

// loseServer kills a server, and starts it again once all go on without it.
func (c *clustered) loseServer(t *testing.T, n *cluster.Node) {
	var pinned []string // who has nowhere else to go
	if n == c.Nodes[0] {
		pinned = []string{"at-n1"}
	}
	killed := time.Now()
	n.Kill()
	c.converge(t, "without "+n.Name(), killed, pinned...)
	n.Launch()
}

// pauseServer pauses the leader until the others have taken a release without it,
// at least. When it goes on, it does not know that yet, and hands out old heads.
func (c *clustered) pauseServer(t *testing.T) {
	n, others := c.Nodes[0], c.Nodes[1].URL()+","+c.Nodes[2].URL()
	ns := policy.Namespace(fmt.Sprintf("shop.paused-%d", c.epoch))
	store := storeAt(t, others, c.pdp1)
	first := c.Release("center", ns, nil, nil, func(r *bundles.Release) { r.Epoch = c.epoch })
	seq, err := store.Put(t.Context(), ns, first.Note(), nil, 0)
	must(t, err)
	c.Settle(headStream)
	c.Lead(headStream, n)
	// One that stays with a server that hangs, which those of Microwall leave.
	conn, err := nats.Connect(n.URL(), append(c.pdp1.Options(), nats.PingInterval(time.Hour))...)
	must(t, err)
	t.Cleanup(conn.Close)
	inbox := conn.NewInbox()
	answers, err := conn.SubscribeSync(inbox)
	must(t, errors.Join(err, conn.Flush()))
	ask := func() {
		t.Helper()
		must(t, conn.PublishRequest("$JS.API.DIRECT.GET."+headStream+".$KV.policy.shop."+strings.ReplaceAll(string(ns), ".", "_")+".head", inbox, nil))
	}
	atLeast := time.NewTimer(0)
	if *faultsLong {
		atLeast.Reset(15 * time.Second)
	}
	begun := time.Now()
	n.Pause()
	second := c.Release("center", ns, first.Signed, nil)
	_, err = store.Put(t.Context(), ns, second.Note(), nil, seq) // it tries until another one leads
	must(t, err)
	<-atLeast.C
	ask() // it is the first thing that it finds when it goes on
	n.Resume()
	t.Logf("%s leads, and was paused for %s", n.Name(), time.Since(begun).Round(time.Millisecond))

	// What it says itself, until it says the truth.
	resumed, old := time.Now(), 0
	for time.Since(resumed) < loadPatience {
		m, err := answers.NextMsg(time.Second)
		switch {
		case err != nil: // it does not answer yet
		case bytes.HasPrefix(m.Data, second.Note()):
			t.Logf("it handed out the head from before the pause %d times, for %s", old, time.Since(resumed).Round(time.Millisecond))
			return
		default:
			old++
		}
		ask()
	}
	t.Errorf("%s still hands out the head from before its pause", n.Name())
}

func (c *clustered) losePDP(t *testing.T) {
	p := c.pdps[0]
	killed := time.Now()
	p.kill()
	c.converge(t, "without it", killed, p.name)
	p.start(t)
	p.decide()
}

// losePublisher kills a PDP that has stored a bundle and not yet its head.
func (c *clustered) losePublisher(t *testing.T) {
	n := policy.Namespace(fmt.Sprintf("shop.audit-%d", c.epoch))
	way := testkit.NewWay(t, c.URL())
	publisher, err := startServing(t.TempDir(), "--trust", c.TrustFile, "--data-dir", t.TempDir(), "--nats", way.URL(), "--nats-creds", c.pdpKey)
	must(t, err)
	defer publisher.kill()
	_, err = publisher.waitFor(`"msg":"ready"`)
	must(t, err)
	way.OnSaying("PUB $KV.policy.shop."+strings.ReplaceAll(string(n), ".", "_")+".head", publisher.kill)
	draft := c.Draft("center", n, "")
	draft.Bundle = c.Bundle(map[string]string{"authz.rego": "allow := true", "data.json": `{"ballast": "` + ballast(70<<10) + `"}`})
	conn, err := grpc.NewClient(publisher.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer conn.Close()
	_, err = pap.New(conn, publisher.GRPC, c.Trust()).Push(t.Context(), draft)
	if policy.KindOf(err) != policy.Unavailable {
		t.Errorf("the author is told %v", err)
	}
	store := storeAt(t, c.URL(), c.pdp1)
	_, err = store.Head(t.Context(), n)
	if policy.KindOf(err) != policy.NotFound {
		t.Errorf("the head is there already: %v", err)
	}
	chunks := c.chunks(t, n)
	if chunks == 0 {
		t.Error("no chunk is there, so the publisher was killed too early")
	}

	// The same push again, by another PDP, finds them and goes on.
	_, err = c.pdps[0].author().Push(t.Context(), draft)
	must(t, err)
	head, err := store.Head(t.Context(), n)
	must(t, err)
	if _, err := store.Bundle(t.Context(), head); err != nil {
		t.Error(err)
	}
	if again := c.chunks(t, n); again != chunks {
		t.Errorf("%d chunks, and after the same push again %d", chunks, again)
	}
}

// chunks returns how many chunks of a namespace are stored.
func (c *clustered) chunks(t *testing.T, n policy.Namespace) int {
	t.Helper()
	stream, err := c.api(t).Stream(t.Context(), blobStream)
	must(t, err)
	info, err := stream.Info(t.Context(), natsjetstream.WithSubjectFilter("pdp.blob.shop."+strings.ReplaceAll(string(n), ".", "_")+".*"))
	must(t, err)
	return len(info.State.Subjects)
}

func (c *clustered) cutClient(t *testing.T) {
	c.way.Cut()
	c.converge(t, "without it", time.Now(), "far")
	c.way.Mend()
}

func (c *clustered) loseAll(*testing.T) {
	for _, n := range c.Nodes {
		n.Kill()
	}
	for _, n := range c.Nodes {
		n.Launch()
	}
}

// loseStreams removes the streams. What is held decides on; what is pushed again
// has to be of a new epoch, or nobody would take it.
func (c *clustered) loseStreams(t *testing.T) {
	c.rebuilding.Store(true)
	for _, name := range []string{headStream, blobStream, "BEAT"} {
		c.removeStream(t, name)
	}
	c.mu.Lock()
	clear(c.acked)
	c.mu.Unlock()
	c.epoch++
	removed := time.Now()
	c.WriteTrust(testkit.TrustOptions{Version: c.epoch, Epoch: c.epoch, Beacons: []string{"beat"}})
	c.converge(t, "in the new epoch", removed)
	c.guard(t)
	c.client(fmt.Sprintf("late-%d", c.epoch), c.URL()) // knows nothing of the old one
}

// removeStream removes a stream, as soon as the servers agree on who of them may.
func (c *clustered) removeStream(t *testing.T, name string) {
	t.Helper()
	api := c.api(t)
	ctx, cancel := context.WithTimeout(t.Context(), loadPatience)
	defer cancel()
	for {
		attempt, end := context.WithTimeout(ctx, time.Second)
		err := api.DeleteStream(attempt, name)
		end()
		switch {
		case err == nil, errors.Is(err, natsjetstream.ErrStreamNotFound): // by an attempt whose answer was lost
			return
		case !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil:
			t.Fatal(err)
		}
	}
}

// api is JetStream as an operator has it.
func (c *clustered) api(t *testing.T) natsjetstream.JetStream {
	t.Helper()
	api, err := natsjetstream.New(connectTo(t, c.URL(), c.pdp1))
	must(t, err)
	return api
}

// storeAt is where releases are.
func storeAt(t *testing.T, natsURL string, as jetstream.Credentials) *jetstream.Store {
	t.Helper()
	store, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connectTo(t, natsURL, as), Domain: "shop"})
	must(t, err)
	return store
}

// connectTo returns a connection that ends with t.
func connectTo(t *testing.T, natsURL string, as jetstream.Credentials) *nats.Conn {
	t.Helper()
	conn, err := jetstream.Connect(t.Context(), natsURL, jetstream.ConnectOptions{Credentials: as})
	must(t, err)
	t.Cleanup(conn.Close)
	return conn
}
