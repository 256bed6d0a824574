package cache

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/microwall/microwall/internal/mutant"
	"github.com/microwall/microwall/policy"
)

// Flight has many callers that miss the same decision at the same time make one
// call for it. The zero value is ready. It is safe for concurrent use.
//
// The call belongs to none of them: it runs with a deadline of its own, and ends
// early only when nobody waits for it any more: the cause of its context is then
// the error by which the last one left. So a caller that gives up takes
// nothing from the others, and one whose time is up waits for nobody.
type Flight struct {
	mu        sync.Mutex
	calls     map[string]*call
	running   int
	idle      chan struct{} // closed once nothing runs; nil if nobody waits for that
	coalesced uint64
}

type call struct {
	waiting  int
	cancel   context.CancelCauseFunc
	done     chan struct{}
	decision policy.Decision
	err      error
	alone    bool // it failed by its own deadline, or crashed: that is no answer
}

// Do returns what run returns, for this caller alone or for all that want the
// same key while it runs. It runs for at most timeout. If it has no answer by then
// but ctx has time left, run is called again, with ctx and for this caller
// alone. If ctx ends first, its error is returned.
func (f *Flight) Do(ctx context.Context, key []byte, timeout time.Duration, run func(context.Context) (policy.Decision, error)) (policy.Decision, error) {
	if err := ctx.Err(); err != nil {
		return policy.Decision{}, err
	}
	c := f.join(ctx, key, timeout, run)
	select {
	case <-c.done:
	case <-ctx.Done():
		f.leave(key, c, ctx.Err())
		return policy.Decision{}, ctx.Err()
	}
	if c.alone && ctx.Err() == nil {
		return run(ctx)
	}
	return c.decision, c.err
}

// join waits for the call that is under way, or begins one.
func (f *Flight) join(ctx context.Context, key []byte, timeout time.Duration, run func(context.Context) (policy.Decision, error)) *call {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.calls[string(key)]; c != nil {
		c.waiting++
		f.coalesced++
		return c
	}
	if f.calls == nil {
		f.calls = map[string]*call{}
	}
	left, leave := context.WithCancelCause(context.WithoutCancel(ctx))
	own, cancel := context.WithTimeout(left, timeout)
	c := &call{waiting: 1, cancel: leave, done: make(chan struct{})}
	name := string(key)
	f.calls[name] = c
	if mutant.CancellationShared {
		asks := run
		run = func(context.Context) (policy.Decision, error) { return asks(ctx) }
	}
	f.running++
	go func() {
		defer leave(nil)
		defer cancel()
		c.run(own, run)
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.calls[name] == c {
			delete(f.calls, name)
		}
		close(c.done)
		if f.running--; f.running == 0 && f.idle != nil {
			close(f.idle)
			f.idle = nil
		}
	}()
	return c
}

func (c *call) run(own context.Context, run func(context.Context) (policy.Decision, error)) {
	defer func() {
		if r := recover(); r != nil {
			c.decision, c.err, c.alone = policy.Decision{}, policy.Errorf(policy.Internal, "asking crashed: %w", fmt.Errorf("%v", r)), true
		}
	}()
	c.decision, c.err = run(own)
	c.alone = c.err != nil && own.Err() != nil
}

// leave ends a call that nobody waits for any more. Its context's cause is why the
// last one left.
func (f *Flight) leave(key []byte, c *call, why error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.waiting--; c.waiting > 0 {
		return
	}
	c.cancel(why)
	// Whoever comes now must not wait for what was ended.
	if f.calls[string(key)] == c {
		delete(f.calls, string(key))
	}
}

// Coalesced returns how many callers did not have to call themselves.
func (f *Flight) Coalesced() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.coalesced
}

// Wait returns once nothing runs.
func (f *Flight) Wait() {
	f.mu.Lock()
	if f.running == 0 {
		f.mu.Unlock()
		return
	}
	if f.idle == nil {
		f.idle = make(chan struct{})
	}
	idle := f.idle
	f.mu.Unlock()
	<-idle
}
