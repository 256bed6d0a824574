package cache

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/microwall/microwall/policy"
)

// Flight has many callers that miss the same decision at the same time make one
// call for it. The zero value is ready. It is safe for concurrent use.
//
// The call belongs to none of them: it runs with a deadline of its own, and ends
// early only when nobody waits for it any more. So a caller that gives up takes
// nothing from the others, and one whose time is up waits for nobody.
type Flight struct {
	mu        sync.Mutex
	calls     map[string]*call
	coalesced uint64
}

type call struct {
	waiting  int
	cancel   context.CancelFunc
	done     chan struct{}
	decision policy.Decision
	err      error
	alone    bool // it failed by its own deadline, or crashed: that is no answer
}

// Do returns what make returns, for this caller alone or for all that want the
// same key while it runs. It runs for at most timeout. If it has no answer by then
// but ctx has time left, make is called again, with ctx and for this caller
// alone. If ctx ends first, its error is returned.
func (f *Flight) Do(ctx context.Context, key []byte, timeout time.Duration, make func(context.Context) (policy.Decision, error)) (policy.Decision, error) {
	if err := ctx.Err(); err != nil {
		return policy.Decision{}, err
	}
	c := f.join(ctx, key, timeout, make)
	select {
	case <-c.done:
	case <-ctx.Done():
		f.leave(key, c)
		return policy.Decision{}, ctx.Err()
	}
	if c.alone && ctx.Err() == nil {
		return make(ctx)
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
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	c := &call{waiting: 1, cancel: cancel, done: make(chan struct{})}
	name := string(key)
	f.calls[name] = c
	go func() {
		defer cancel()
		c.run(own, run)
		f.mu.Lock()
		if f.calls[name] == c {
			delete(f.calls, name)
		}
		f.mu.Unlock()
		close(c.done)
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

// leave ends a call that nobody waits for any more.
func (f *Flight) leave(key []byte, c *call) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.waiting--; c.waiting > 0 {
		return
	}
	c.cancel()
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
