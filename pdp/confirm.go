package pdp

import (
	"context"
	"slices"
	"time"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/policy"
)

// confirmation is somebody who waits to be confirmed.
type confirmation struct {
	ns   policy.Namespace
	note []byte
	err  error
	done chan struct{} // closed when note or err is there
}

// Confirm returns a beacon whose tick was committed after Confirm was called: a
// release of the namespace that was acknowledged before then is the head that it
// names, or comes before it. All who wait share one tick.
//
// It is policy.NotFound if the namespace has no head, policy.Unavailable if this
// process cannot say, policy.Exhausted if too many wait already, or ctx's error.
func (i *Issuer) Confirm(ctx context.Context, ns policy.Namespace) ([]byte, error) {
	c := &confirmation{ns: ns, done: make(chan struct{})}
	i.mu.Lock()
	if len(i.waiting) >= i.config.Waiting {
		i.mu.Unlock()
		return nil, policy.Errorf(policy.Exhausted, "%d wait for a confirmed head here already; ask again later, or another PDP", i.config.Waiting)
	}
	i.waiting = append(i.waiting, c)
	i.mu.Unlock()
	select {
	case i.wake <- struct{}{}:
	default: // it wakes already
	}
	select {
	case <-c.done:
		return c.note, c.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-i.ended:
		return nil, policy.Errorf(policy.Unavailable, "this PDP is stopping; ask another one")
	}
}

// confirmLoop confirms until ctx ends.
func (i *Issuer) confirmLoop(ctx context.Context) {
	for {
		select {
		case <-i.wake:
		case <-ctx.Done():
			return
		}
		i.mu.Lock()
		waiting := i.waiting
		i.waiting = nil
		i.mu.Unlock()
		if len(waiting) > 0 {
			i.confirm(ctx, waiting)
		}
	}
}

// confirm answers those who wait, by one tick.
func (i *Issuer) confirm(ctx context.Context, waiting []*confirmation) {
	type answer struct {
		note []byte
		err  error
	}
	answers := map[policy.Namespace]answer{}
	err := i.ready()
	if err == nil {
		some := make([]policy.Namespace, 0, len(waiting))
		for _, c := range waiting {
			some = append(some, c.ns)
		}
		slices.Sort(some)
		var at time.Time
		var now found
		at, now, err = i.tick(ctx, slices.Compact(some), func() (*jetstream.IssuerTick, error) { return nil, i.learnOnce(ctx) })
		for _, v := range now.heads {
			signed, err := i.sign(at, v)
			answers[v.Namespace] = answer{signed, err}
		}
		for ns, doubt := range now.doubts {
			answers[ns] = answer{err: cannotConfirm(ns, doubt)}
		}
	}
	for _, c := range waiting {
		a, ok := answers[c.ns]
		switch {
		case err != nil:
			c.err = cannotConfirm(c.ns, err)
		case !ok:
			c.err = policy.Errorf(policy.NotFound, "namespace %s has no head that this PDP can confirm; see its log, or push one: microwall push DIR --namespace %s", c.ns, c.ns)
		default:
			c.note, c.err = a.note, a.err
		}
		close(c.done)
	}
}

func cannotConfirm(ns policy.Namespace, why error) error {
	return policy.Errorf(policy.Unavailable, "this PDP cannot confirm the head of %s; ask another one: %w", ns, why)
}
