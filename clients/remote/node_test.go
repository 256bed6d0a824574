package remote_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/pdp/grpcapi"
	"github.com/microwall/microwall/policy"
)

// node is a PDP that has the releases which a test hands it.
type node struct {
	t       testing.TB
	d       *testkit.Domain
	state   *live.Live
	service *pdp.Service
	server  server
	asked   atomic.Int64 // requests
	// before, if set, is called before a request is decided.
	before atomic.Pointer[func(context.Context)]
}

func startNode(t testing.TB, d *testkit.Domain, now func() time.Time) *node {
	t.Helper()
	state, err := live.New(t.Context(), live.Config{Trust: d.Trust(), Now: now})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, d: d, state: state, service: pdp.New(pdp.Config{Source: state, Now: now})}
	n.serve("127.0.0.1:0")
	return n
}

func (n *node) serve(address string) {
	n.server = serve(n.t, address, grpcapi.New(grpcapi.Config{Decide: n, Watch: n.service}))
}

func (n *node) Authorize(ctx context.Context, r policy.Request) (policy.Decision, error) {
	n.asked.Add(1)
	if f := n.before.Load(); f != nil {
		(*f)(ctx)
	}
	return n.service.Authorize(ctx, r)
}

func (n *node) AuthorizeBatch(ctx context.Context, rs []policy.Request) ([]policy.Result, error) {
	n.asked.Add(int64(len(rs)))
	return n.service.AuthorizeBatch(ctx, rs)
}

// offer brings releases.
func (n *node) offer(all ...testkit.Release) {
	n.t.Helper()
	for _, r := range all {
		if err := n.state.Offer(n.t.Context(), r.Note(), func(context.Context) ([]byte, error) { return r.Packed, nil }); err != nil {
			n.t.Fatal(err)
		}
	}
}

// prove brings a beacon.
func (n *node) prove(at time.Time, heads ...testkit.Release) {
	n.t.Helper()
	for _, h := range heads {
		if err := n.state.Prove(n.d.Beacon("beat", at, h.Version())); err != nil {
			n.t.Fatal(err)
		}
	}
}

// remembers waits until a client looks decisions of a namespace up by a version of it.
func remembers(t *testing.T, c *remote.Client, v policy.Version) {
	t.Helper()
	testkit.Until(t, func() bool {
		for _, n := range c.Status().Namespaces {
			if n.Namespace == v.Namespace {
				return n.Remembered && n.Versions[len(n.Versions)-1] == v
			}
		}
		return false
	})
}

// full says all that a decision says, but when it was made.
func full(d policy.Decision, err error) string {
	return fmt.Sprintf("%s stale %v %v by %s", spelling(d, err), d.Stale, d.StaleDenied, d.Evaluation.Engine)
}

// remembering returns a client of nodes, by a clock, that remembers what a version of
// shop.cart decides.
func remembering(t *testing.T, now func() time.Time, v policy.Version, nodes ...*node) *remote.Client {
	t.Helper()
	config := remote.Config{Namespaces: []policy.Namespace{"shop.cart"}, Now: now}
	for _, n := range nodes {
		config.Servers = append(config.Servers, n.server.addr)
	}
	c := client(t, config)
	remembers(t, c, v)
	return c
}

// mustHit asks, and fails if a PDP was asked.
func mustHit(t *testing.T, c *remote.Client, r policy.Request) policy.Decision {
	t.Helper()
	before := c.Status()
	d, err := c.Authorize(t.Context(), r)
	if after := c.Status(); err != nil || after.Asked != before.Asked {
		t.Fatalf("a PDP was asked, it says %v", spelling(d, err))
	}
	return d
}

// mustAsk asks, and fails if no PDP was asked.
func mustAsk(t *testing.T, c *remote.Client, r policy.Request) policy.Decision {
	t.Helper()
	before := c.Status()
	d, err := c.Authorize(t.Context(), r)
	if after := c.Status(); err != nil || after.Asked == before.Asked {
		t.Fatalf("no PDP was asked, or it failed: %v", spelling(d, err))
	}
	return d
}
