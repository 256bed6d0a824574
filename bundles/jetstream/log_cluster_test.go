//go:build unix

package jetstream_test

import (
	"context"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/testkit/cluster"
	"github.com/microwall/microwall/policy"
)

// While the leader of the stream is killed, no tick comes before what was released
// before it.
func TestTicksOnAClusterThatLosesItsLeader(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a cluster")
	}
	c := cluster.Start(t, "")
	three := func(r *reader, l *jetstream.LogConfig) {
		store, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, c.URL()), Domain: domain, Replicas: 3})
		if err != nil {
			t.Fatal(err)
		}
		r.store, l.Store = store, store
	}
	one := startLog(t, connect(t, c.URL()), "one", three)
	two := startLog(t, connect(t, c.URL()), "two", three)
	c.Settle("KV_policy")
	n, after := 0, uint64(0)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	// push releases once, and has both confirm it, however long that takes.
	push := func() {
		t.Helper()
		n++
		for {
			seq, err := one.store.Put(ctx, cart, []byte(note(cart, n)), nil, after)
			if err == nil {
				after = seq
				break
			}
			if policy.KindOf(err) != policy.Unavailable || ctx.Err() != nil {
				t.Fatal(err)
			}
		}
		for name, r := range map[string]*reader{"one": one, "two": two} {
			head, begun := "", time.Now()
			for {
				err := r.Tick(ctx, nil, func(time.Time) {
					r.mu.Lock()
					defer r.mu.Unlock()
					head = r.heads[cart]
				})
				if err == nil {
					break
				}
				if policy.KindOf(err) != policy.Unavailable || ctx.Err() != nil {
					t.Fatal(err)
				}
			}
			if head != note(cart, n) {
				t.Errorf("%s: at a tick after %q was released, %q is the head", name, note(cart, n), head)
			}
			if took := time.Since(begun); took > time.Second {
				t.Logf("%s: release %d was confirmed after %s", name, n, took.Round(time.Millisecond))
			}
		}
	}
	for range 5 {
		push()
	}
	c.Leader("KV_policy").Kill()
	for range 5 {
		push()
	}
	if err := one.tick(ctx, issues, func(time.Time) {}); err != nil {
		t.Error(err)
	}
}

// While the followers of the stream hang, an issuer tries to tick again and again.
// What is committed when they are back is the first of these: that was its own as
// well, though it has given it up long ago.
func TestAnIssuerKnowsATickThatItHasGivenUp(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a cluster")
	}
	c := cluster.Start(t, "")
	open := func(url string) *jetstream.Store {
		store, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, url), Domain: domain, Replicas: 3})
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	open(c.URL())
	c.Settle("KV_policy")
	leader := c.Leader("KV_policy")
	l := startLog(t, connect(t, leader.URL()), "one", func(r *reader, l *jetstream.LogConfig) {
		r.store = open(leader.URL())
		l.Store = r.store
	})
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	if err := l.tick(ctx, issues, func(time.Time) {}); err != nil {
		t.Fatal(err)
	}
	before, err := l.LastTick(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Nodes {
		if n != leader {
			n.Pause()
			defer n.Resume()
		}
	}
	for range 3 {
		short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		if err := l.Tick(short, &before, func(time.Time) {}); err == nil {
			t.Error("a tick was committed without the followers")
		}
		cancel()
	}
	for _, n := range c.Nodes {
		if n != leader {
			n.Resume()
		}
	}
	// What was committed before this one was read before it.
	if err := l.Tick(ctx, nil, func(time.Time) {}); err != nil {
		t.Fatal(err)
	}
	last, err := l.LastTick(ctx)
	switch {
	case err != nil:
		t.Fatal(err)
	case !last.At.After(before.At):
		t.Fatal("none of the ticks was committed: nothing was tried here")
	case last.Issuer != "one" || !last.Own:
		t.Errorf("the newest tick is of %q, and own: %t", last.Issuer, last.Own)
	}
}
