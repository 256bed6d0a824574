package jetstream_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/natsserver"
	"github.com/microwall/microwall/policy"
)

// beats is the callback of a follower that takes beacons.
type beats struct {
	came chan string
	say  func(note string) error
}

func (b *beats) take(_ context.Context, ns policy.Namespace, note []byte) error {
	b.came <- fmt.Sprintf("%s: %s", ns, note)
	if b.say != nil {
		return b.say(string(note))
	}
	return nil
}

func TestBeaconsAreHeardAndAskedFor(t *testing.T) {
	server := serve(t)
	s := openStore(t, server.URL())
	mustPut(t, s, cart, note(cart, 1), nil, 0)
	putBeacons := func(texts ...string) {
		t.Helper()
		var all []jetstream.Beacon
		for _, text := range texts {
			all = append(all, jetstream.Beacon{Namespace: cart, Note: []byte(text)})
		}
		if err := s.PutBeacons(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	putBeacons("before")
	for name, c := range map[string]jetstream.FollowConfig{"one": {Namespaces: []policy.Namespace{cart}}, "all": {List: s.Namespaces}} {
		t.Run(name, func(t *testing.T) {
			putBeacons("before")
			b := &beats{came: make(chan string, 100)}
			c.Beacon = b.take
			f := startFollower(t, server.URL(), c, nil)
			f.wantSynced(t)
			select { // it was asked for before that
			case got := <-b.came:
				if got != "boutique.cart: before" {
					t.Errorf("got %q", got)
				}
			default:
				t.Error("synced without the beacon that was there")
			}
			putBeacons("1")
			for _, want := range []string{"boutique.cart: 1"} {
				if got := receive(t, b.came, want); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
	}
}

func TestABeaconThatNamesAnUnknownHeadHasItAskedFor(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	after := mustPut(t, s, cart, note(cart, 1), random(1, 10), 0)
	b := &beats{came: make(chan string, 100)}
	b.say = func(string) error { return policy.Errorf(policy.Unavailable, "behind") }
	f := startFollower(t, url, jetstream.FollowConfig{Namespaces: []policy.Namespace{cart}, Beacon: b.take, Poll: time.Hour, After: newClock().after}, nil)
	f.wantOffer(t, note(cart, 1), random(1, 10))
	f.wantSynced(t)
	// A push is lost.
	stream, err := admin(t, url).Stream(t.Context(), "KV_policy")
	if err != nil {
		t.Fatal(err)
	}
	c := stream.CachedInfo().Config
	c.RePublish = nil
	if _, err := admin(t, url).UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, cart, note(cart, 2), random(2, 10), after)
	if err := s.PutBeacons(t.Context(), []jetstream.Beacon{{Namespace: cart, Note: []byte("behind")}}); err != nil {
		t.Fatal(err)
	}
	receive(t, b.came, "the beacon")
	f.wantOffer(t, note(cart, 2), random(2, 10))
}

func TestABrokerThatHasLostTheBeaconsGetsNewOnes(t *testing.T) {
	dir := t.TempDir()
	server := serveAt(t, dir, natsserver.AnyPort)
	port := portOf(t, server.URL())
	s := openStore(t, server.URL())
	b := &beats{came: make(chan string, 10_000)}
	nc := connect(t, server.URL())
	f := startFollower(t, server.URL(), jetstream.FollowConfig{Conn: nc, Namespaces: []policy.Namespace{cart}, Beacon: b.take}, nil)
	f.wantSynced(t)
	again := nc.StatusChanged(nats.CONNECTED)
	server.Shutdown()
	server = serveAt(t, dir, port)
	receive(t, again, "the connection")
	var all []jetstream.Beacon
	for n := range 1200 { // more than one batch
		all = append(all, jetstream.Beacon{Namespace: policy.Namespace(fmt.Sprintf("boutique.n%d", n)), Note: []byte("a")})
	}
	all = append(all, jetstream.Beacon{Namespace: cart, Note: []byte("again")})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for { // the connection is made again in its time
		err := s.PutBeacons(ctx, all)
		if err == nil {
			break
		}
		if policy.KindOf(err) != policy.Unavailable || ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	for receive(t, b.came, "the beacon") != "boutique.cart: again" {
	}
	stream, err := admin(t, server.URL()).Stream(t.Context(), "BEAT")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := stream.Info(t.Context()); err != nil || info.State.Msgs != 1201 || info.Config.Storage != js.MemoryStorage {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestABeaconThatCannotBeOneIsRefused(t *testing.T) {
	s := openStore(t, serve(t).URL())
	for name, b := range map[string]jetstream.Beacon{
		"another domain": {Namespace: "other.cart", Note: []byte("a")},
		"a wildcard":     {Namespace: "boutique.*", Note: []byte("a")},
		"nothing":        {Namespace: cart},
	} {
		if err := s.PutBeacons(t.Context(), []jetstream.Beacon{b}); policy.KindOf(err) != policy.BadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.PutBeacons(t.Context(), nil); err != nil {
		t.Error(err)
	}
}
