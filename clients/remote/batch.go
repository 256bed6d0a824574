package remote

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/microwall/microwall/internal/decisionkey"
	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// AuthorizeBatch asks a PDP for many decisions in one call, so that they are
// made by one snapshot and one time stamp. If all are remembered that were made by
// what decides now in the one namespace that they are about, they are handed out
// instead. A request that cannot be sent has its error in its result, and the
// others are asked for. Errors are as with [Client.Authorize].
func (c *Client) AuthorizeBatch(ctx context.Context, rs []policy.Request) (results []policy.Result, err error) {
	defer func() {
		if r := recover(); r != nil {
			results, err = nil, crash(r)
		}
	}()
	if err := c.limits.CheckBatch(len(rs)); err != nil {
		return nil, err
	}
	b := &batch{rs: rs, results: make([]policy.Result, len(rs)), call: call{}}
	fresh := make([]policy.Freshness, 0, len(rs))
	for i := range rs {
		if b.check(i, c.limits) {
			fresh = append(fresh, rs[i].Freshness)
		}
	}
	b.fresh = b.fresh.And(fresh...)
	if len(b.sent) == 0 {
		return b.results, nil
	}
	now := c.now()
	s, ok := c.lookAll(b, now)
	if ok && !s.stale(now) && !c.watcher.deaf() {
		return b.results, nil
	}
	err = c.askAll(ctx, b)
	switch {
	case err == nil:
		return b.results, nil
	case !ok || !unreached(err):
		return nil, err
	}
	last := c.known.current(rs[b.sent[0]].Namespace)
	if last == nil || last.layout != s.layout {
		return nil, err
	}
	for _, i := range b.sent {
		b.results[i].Decision = last.judge(b.results[i].Decision, c.now())
	}
	return b.results, nil
}

// batch is a batch on its way.
type batch struct {
	rs      []policy.Request
	results []policy.Result
	sent    []int              // the places of those that are asked for
	seen    [][]policy.Version // what each of those must be made by,
	least   []policy.Version   // and all of them
	trust   []uint64           // the version of the trust file for each
	fresh   policy.Freshness   // what they ask for together
	call    call
}

// check refuses request i if it cannot be asked, and reports whether it can.
func (b *batch) check(i int, limits policy.Limits) bool {
	r := &b.rs[i]
	err := limits.Check(r)
	if err == nil {
		_, err = leastOf(r.Freshness, nil)
	}
	if err != nil {
		b.results[i].Err = err
		return false
	}
	b.sent = append(b.sent, i)
	return true
}

// lookAll looks all up, by one state and one time stamp. What decides in several
// namespaces was told one after the other, and may never have decided together.
func (c *Client) lookAll(b *batch, now time.Time) (s *state, ok bool) {
	n := b.rs[b.sent[0]].Namespace
	if s = c.known.current(n); s == nil || !s.satisfies(b.fresh) {
		return s, false
	}
	builder := c.keys.Get().(*decisionkey.Builder)
	defer c.keys.Put(builder)
	for _, i := range b.sent {
		r := &b.rs[i]
		if r.Namespace != n {
			return s, false
		}
		if b.results[i].Decision, ok = c.cache.Get(n, builder.Key(s.layout, r, now.Unix())); !ok {
			return s, false
		}
	}
	return s, true
}

// askAll asks a PDP for the whole batch. If it fails, what was looked up stands as
// it is.
func (c *Client) askAll(ctx context.Context, b *batch) error {
	items := make([]*microwallv1.AuthorizeRequest, 0, len(b.sent))
	kept := b.sent[:0]
	var err error
	if b.least, err = leastOf(b.fresh, nil); err != nil {
		return err
	}
	for _, i := range b.sent {
		r := b.rs[i]
		seen, trust := c.known.seenOf(r.Namespace)
		r.Freshness = r.Freshness.NotBefore(seen...)
		m, err := wire.RequestProto(&r)
		if err != nil {
			b.results[i] = policy.Result{Err: err}
			continue
		}
		items, kept, b.seen = append(items, m), append(kept, i), append(b.seen, seen)
		b.trust = append(b.trust, trust)
	}
	if b.sent = kept; len(items) == 0 {
		return nil
	}
	m := wire.BatchProto(items)
	if size, most := proto.Size(m), wire.MaxMessage(c.limits); size > most {
		return policy.Errorf(policy.Exhausted, "batch is %d bytes on its way, the limit is %d; split it", size, most)
	}
	if err := c.enter(); err != nil {
		return err
	}
	defer c.leave()
	c.asked.Add(uint64(len(items)))
	bounded, cancel := c.bounded(ctx)
	defer cancel()
	b.call.patient = b.fresh.IsHead() || len(b.fresh.Tokens()) > 0

	var answers []policy.Result
	p, err := c.pool.ask(bounded, b.call, func(ctx context.Context, p *pdp) (err error) {
		made := new(microwallv1.AuthorizeBatchResponse)
		if err = p.invoke(ctx, microwallv1.AuthorizationService_AuthorizeBatch_FullMethodName, m, made); err == nil {
			answers, err = c.readBatch(p, b, made)
		}
		return err
	})
	if err != nil {
		c.failed.Add(uint64(len(items)))
		return c.ended(ctx, failure(p, err))
	}
	for j, i := range b.sent {
		if answers[j].Err != nil {
			c.failed.Add(1)
			answers[j].Err = c.ended(ctx, answers[j].Err)
		} else if c.caches {
			c.file(&b.rs[i], answers[j].Decision)
		}
		b.results[i] = answers[j]
	}
	return nil
}

// readBatch reads the answer to a batch.
func (c *Client) readBatch(p *pdp, b *batch, m *microwallv1.AuthorizeBatchResponse) ([]policy.Result, error) {
	if got := len(m.GetResults()); got != len(b.sent) {
		return nil, senseless(p, fmt.Errorf("it has %d results for %d requests", got, len(b.sent)))
	}
	versions, err := wire.Versions(m.GetVersions())
	if err != nil {
		return nil, senseless(p, err)
	}
	made := wire.Evaluation(m.GetEvaluation())
	results := make([]policy.Result, len(b.sent))
	for j, result := range m.GetResults() {
		r := &results[j]
		if e := result.GetError(); e != nil {
			r.Err = itemFailure(p, e)
			if by, err := readPath(result, versions); err == nil {
				c.known.saw(by, 0)
			}
			continue
		}
		if r.Decision, err = readResult(b.rs[b.sent[j]].Namespace, result, versions); err != nil {
			*r = policy.Result{Err: senseless(p, err)}
			continue
		}
		r.Decision.Evaluation = made
		if err := c.accept(p, &r.Decision, b.trust[j], b.seen[j], b.least); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// itemFailure reads the error of one item. The end of the call may be told as
// that of the item that was decided then.
func itemFailure(p *pdp, e *microwallv1.BatchError) error {
	//nolint:gosec // a negative code is as unknown as a large one
	switch code := codes.Code(e.GetCode()); code {
	case codes.DeadlineExceeded:
		return fmt.Errorf("%s was asked: %w", p.name(), context.DeadlineExceeded)
	case codes.Canceled:
		return policy.Errorf(policy.Unavailable, "%s cancelled the call; ask again", p.name())
	}
	return wire.BatchError(p.name(), e)
}
