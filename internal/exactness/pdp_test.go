package exactness_test

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// node is a PDP that is killed, held up, cut off and started again.
type node struct {
	*model
	name string // of the key that it issues beacons with
	dir  string
	way  *testkit.Way // to NATS

	mu   sync.Mutex
	pdp  *testkit.PDP  // nil while it is dead
	addr string        // always the same
	held chan struct{} // closed when it goes on; nil unless it is held up
}

// start starts it on what it left on disk. It must be dead.
func (n *node) start(ctx context.Context) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	p, err := n.d.RunPDP(ctx, testkit.PDPConfig{
		NATS: n.way.URL(), Dir: n.dir, Addr: n.addr, BeaconKey: n.name, BeaconInterval: beaconInterval, Now: n.clock.now,
		Decide: func(a policy.Authorizer) policy.Authorizer { return &door{node: n, decides: a} },
	})
	if err != nil {
		n.t.Fatalf("PDP %s does not start: %v", n.name, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pdp, n.addr = p, p.Addr
}

func (n *node) running() *testkit.PDP {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pdp
}

func (n *node) kill() {
	n.mu.Lock()
	p := n.pdp
	n.pdp = nil
	n.mu.Unlock()
	if p != nil {
		p.Kill()
	}
}

// hold keeps whatever it is asked waiting, or lets it go on.
func (n *node) hold(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case on && n.held == nil:
		n.held = make(chan struct{})
	case !on && n.held != nil:
		close(n.held)
		n.held = nil
	}
}

// door stands before what a PDP decides with: it notes who asked, and when what was
// decided.
type door struct {
	*node
	decides policy.Authorizer
}

// callHeader says which call it is that a PDP is asked by.
const callHeader = "exactness-call"

func withCall(ctx context.Context, id uint64) context.Context {
	return metadata.AppendToOutgoingContext(ctx, callHeader, strconv.FormatUint(id, 10))
}

func callOf(ctx context.Context) uint64 {
	m, _ := metadata.FromIncomingContext(ctx)
	for _, text := range m.Get(callHeader) {
		id, _ := strconv.ParseUint(text, 10, 64) // 0 is nobody's
		return id
	}
	return 0
}

func (d *door) Authorize(ctx context.Context, r policy.Request) (policy.Decision, error) {
	if err := d.wait(ctx); err != nil {
		return policy.Decision{}, err
	}
	begin := time.Now()
	decision, err := d.decides.Authorize(ctx, r)
	if err == nil {
		d.evaluated(ctx, decision.Evaluation.Time, begin)
	}
	if err := d.dawdle(ctx); err != nil {
		return policy.Decision{}, err
	}
	return decision, err
}

func (d *door) AuthorizeBatch(ctx context.Context, rs []policy.Request) ([]policy.Result, error) {
	if err := d.wait(ctx); err != nil {
		return nil, err
	}
	begin := time.Now()
	results, err := d.decides.AuthorizeBatch(ctx, rs)
	for _, r := range results {
		if r.Err == nil {
			d.evaluated(ctx, r.Decision.Evaluation.Time, begin)
			break // all have the same stamp
		}
	}
	return results, err
}

// wait keeps a question waiting while the PDP is held up.
func (d *door) wait(ctx context.Context) error {
	d.mu.Lock()
	held := d.held
	d.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return d.dawdle(ctx)
}

// dawdle takes its time now and then, so that others come to wait for the same.
func (d *door) dawdle(ctx context.Context) error {
	if rand.IntN(20) > 0 {
		return nil
	}
	select {
	case <-time.After(rand.N(15 * time.Millisecond)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// evaluated notes when the policies were told that it is for a call.
func (d *door) evaluated(ctx context.Context, at int64, begin time.Time) {
	now := time.Now()
	if !isOneOf(at, d.clock.between(begin, now)) {
		d.fail("PDP %s decided at %d, and its clock was from %v", d.name, at, d.clock.between(begin, now))
	}
	id := callOf(ctx)
	d.model.mu.Lock()
	c := d.calls[id]
	d.model.mu.Unlock()
	if c != nil {
		c.evaluated(evaluation{call: c, stamp: at, end: now})
	}
}
