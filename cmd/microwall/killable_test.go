package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjetstream "github.com/nats-io/nats.go/jetstream"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// killable is a domain with a server that is killed and started again on the
// same files.
type killable struct {
	*testkit.Domain
	t   *testing.T
	dir string
	// Arguments and credentials by which the test looks into the store.
	args  []string
	creds jetstream.Credentials

	// The server that runs, and who talks to it.
	server *serving
	conn   *grpc.ClientConn
	author *pap.Client
	ask    *remote.Client
}

func newKillable(t *testing.T) *killable { return newKillableOf(t, testkit.NewDomain(t)) }

// newKillableOf starts the server of a domain, with more arguments.
func newKillableOf(t *testing.T, d *testkit.Domain, args ...string) *killable {
	k := &killable{Domain: d, t: t, dir: t.TempDir()}
	k.args, k.creds = insider(t)
	k.args = append(k.args, args...)
	k.start()
	t.Cleanup(func() {
		_ = k.ask.Close()
		k.conn.Close()
	})
	k.push("center", "shop", k.Rego(`deny contains "never" if input.action.name == "Forbidden"`))
	return k
}

// start starts the server, for the first time or after it was killed.
func (k *killable) start() {
	k.t.Helper()
	if k.server != nil {
		k.must(errors.Join(k.conn.Close(), k.ask.Close()))
	}
	server, err := startServing(k.dir, append([]string{"--trust", k.TrustFile, "--data-dir", k.dir, "--decision-budget", "1m"}, k.args...)...)
	k.must(err)
	k.t.Cleanup(server.kill)
	k.server = server
	k.conn, err = grpc.NewClient(server.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	k.must(err)
	k.author = pap.New(k.conn, server.GRPC, k.Trust())
	k.ask, err = remote.New(k.t.Context(), remote.Config{Servers: []string{server.GRPC}, Cache: cache.Config{Entries: -1}})
	k.must(err)
}

// arrived waits for what has to come.
func arrived[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("no %T came", *new(T))
		panic("unreachable")
	}
}

func (k *killable) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

func (k *killable) draft(key string, n policy.Namespace, b *bundles.Bundle) pap.Draft {
	return pap.Draft{Namespace: n, Bundle: b, Signers: []note.Signer{k.Signer(key)}, Created: testkit.Created, Author: key}
}

func (k *killable) push(key string, n policy.Namespace, b *bundles.Bundle) *bundles.Signed {
	k.t.Helper()
	result, err := k.author.Push(k.t.Context(), k.draft(key, n, b))
	k.must(err)
	return result.Release
}

// allows is a bundle that allows one action, with data of so many random bytes.
func (k *killable) allows(action string, random int) *bundles.Bundle {
	k.t.Helper()
	data := make([]byte, random)
	_, err := rand.Read(data)
	k.must(err)
	return k.Bundle(map[string]string{
		"authz.rego": fmt.Sprintf("allow if input.action.name == %q", action),
		"data.json":  fmt.Sprintf(`{"ballast": %q}`, base64.StdEncoding.EncodeToString(data)),
	})
}

// decided asks the server, which must answer by a release of n.
func (k *killable) decided(n policy.Namespace, action string) (allowed bool, by policy.Version) {
	k.t.Helper()
	d, err := k.ask.Authorize(k.t.Context(), testkit.Request(n, action))
	k.must(err)
	return d.Allowed, d.Versions[len(d.Versions)-1]
}

// activated waits until the server decides by a release.
func (k *killable) activated(s *bundles.Signed) {
	k.t.Helper()
	k.server.taken = 0 // it may have been a while ago
	r := s.Release()
	_, err := k.server.waitFor(fmt.Sprintf(`"msg":"activated","namespace":%q,"epoch":%d,"revision":%d,`, r.Namespace, r.Epoch, r.Revision))
	k.must(err)
}

// history returns the releases of n that the server lists, the oldest first:
// each must verify, follow the one before, and have its bundle in the store.
func (k *killable) history(n policy.Namespace) []*bundles.Signed {
	k.t.Helper()
	entries, err := k.author.History(k.t.Context(), n)
	if policy.KindOf(err) == policy.NotFound {
		return nil
	}
	k.must(err)
	slices.Reverse(entries)
	broker := k.broker()
	defer broker.Close()
	store, err := jetstream.OpenStore(k.t.Context(), jetstream.StoreConfig{Conn: broker, Domain: "shop"})
	k.must(err)
	heads, err := store.History(k.t.Context(), n)
	k.must(err)
	slices.Reverse(heads)
	if len(heads) != len(entries) {
		k.t.Fatalf("%s has %d releases, of which %d are listed", n, len(heads), len(entries))
	}
	var all []*bundles.Signed
	for i, e := range entries {
		k.must(e.Err)
		if i > 0 {
			if r, last := e.Signed.Release(), all[i-1]; r.Revision != last.Release().Revision+1 || r.Previous != last.Digest() {
				k.t.Errorf("%v follows %v", e.Signed.Version(), last.Version())
			}
		}
		packed, err := store.Bundle(k.t.Context(), heads[i])
		if err == nil {
			_, err = e.Signed.Unpack(bytes.NewReader(packed), bundles.Limits{})
		}
		if err != nil || !bytes.Equal(heads[i].Note, e.Signed.Note()) {
			k.t.Errorf("the bundle of %v: %v", e.Signed.Version(), err)
		}
		all = append(all, e.Signed)
	}
	if err := k.fetch(all[len(all)-1]); err != nil {
		k.t.Errorf("the bundle of the head of %s: %v", n, err)
	}
	return all
}

// broker connects to the server's NATS.
func (k *killable) broker() *nats.Conn {
	k.t.Helper()
	conn, err := jetstream.Connect(k.t.Context(), k.server.NATS, jetstream.ConnectOptions{Credentials: k.creds})
	k.must(err)
	return conn
}

// fetch gets a release's bundle and verifies it.
func (k *killable) fetch(s *bundles.Signed) error { return fetchBundle(k.t.Context(), k.conn, s) }

func fetchBundle(ctx context.Context, conn *grpc.ClientConn, s *bundles.Signed) error {
	r := s.Release()
	stream, err := microwallv1.NewPolicyServiceClient(conn).GetBundle(ctx, &microwallv1.GetBundleRequest{
		Namespace: string(r.Namespace), Epoch: r.Epoch, Revision: r.Revision,
	})
	if err != nil {
		return err
	}
	var packed []byte
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			_, err = s.Unpack(bytes.NewReader(packed), bundles.Limits{})
			return err
		}
		if err != nil {
			return err
		}
		packed = append(packed, m.GetChunk()...)
	}
}

// chunks returns how many chunks the server has on disk.
func (k *killable) chunks() uint64 {
	k.t.Helper()
	broker := k.broker()
	defer broker.Close()
	api, err := natsjetstream.New(broker)
	k.must(err)
	stream, err := api.Stream(k.t.Context(), "BLOBS")
	k.must(err)
	return stream.CachedInfo().State.Msgs
}

// relay is an address that stays, in front of a server whose port changes with
// each start: a port that was given back may be somebody else's in a moment.
type relay struct {
	listener net.Listener
	work     sync.WaitGroup

	mu     sync.Mutex
	target string
	cut    bool
	conns  map[net.Conn]bool // from clients
}

func newRelay(t *testing.T, natsURL string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, conns: map[net.Conn]bool{}}
	r.to(natsURL)
	r.work.Go(r.accept)
	t.Cleanup(func() { // when clients and servers are gone
		l.Close()
		r.work.Wait()
	})
	return r
}

func (r *relay) url() string { return "nats://" + r.listener.Addr().String() }

func (r *relay) to(natsURL string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target = strings.TrimPrefix(natsURL, "nats://")
}

// cutOff ends all connections, and lets no more through, or does so again.
func (r *relay) cutOff(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = cut
	if cut {
		for c := range r.conns {
			c.Close()
		}
	}
}

func (r *relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		target, cut := r.target, r.cut
		r.mu.Unlock()
		server, err := net.Dial("tcp", target)
		if err != nil {
			client.Close()
			continue
		}
		r.mu.Lock()
		if cut || r.cut {
			client.Close()
		}
		r.conns[client] = true
		r.mu.Unlock()
		carry := func(to, from net.Conn) {
			_, _ = io.Copy(to, from)
			to.Close()
			from.Close()
			r.mu.Lock()
			delete(r.conns, client)
			r.mu.Unlock()
		}
		r.work.Go(func() { carry(client, server) })
		r.work.Go(func() { carry(server, client) })
	}
}
