package exactness_test

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// subject is a client that is asked by several at once, and held to its promises.
type subject struct {
	*model
	name  string
	clock *clock
	// own is how far its clock is from everybody else's: for near ones never more
	// than seconds. Others' are set to something else now and then.
	own  atomic.Int64
	near bool
	// Of an embedded client: its way to NATS and its folder.
	way *testkit.Way
	dir string
	// Of a remote client: the PDPs that it asks, and its cache.
	nodes []*node
	cache cache.Config

	using    sync.RWMutex // held for reading by those who ask
	embedded *embedded.Client
	remote   *remote.Client

	mu     sync.Mutex
	opened time.Time
	// floor is the newest version of each namespace that an answer named.
	floor map[policy.Namespace]policy.Version
	// evaluations of the last seconds that PDPs did for it, the newest last.
	evaluations []evaluation
	recent      []asking
	hits        uint64 // of clients that were closed
	coalesced   uint64
	misses      uint64
	evictions   uint64
}

// evaluation is one that a PDP did for a call.
type evaluation struct {
	call  *call
	stamp int64 // what policies were told that the time is
	end   time.Time
}

// call is one of a client.
type call struct {
	*subject
	id    uint64
	begin time.Time
	floor map[policy.Namespace]policy.Version // of calls that had ended before
	heads map[policy.Namespace]policy.Version // that were acknowledged before
	calm  uint64                              // what model.calm was
	want  freshness
	plain bool               // it has all the time there is, and asks for nothing
	along []policy.Namespace // all that may decide one of its requests

	// Under subject.mu.
	end    time.Time // zero while it is under way
	failed bool
}

// freshness is what a call asks for.
type freshness struct {
	policy.Freshness
	tokens []policy.Version
	madeUp bool // one of the tokens is
}

// madeUp is more than there ever are revisions.
const madeUp = 1_000_000

// recently is for how long evaluations are known.
const recently = 8 * time.Second

func (s *subject) isEmbedded() bool { return s.way != nil }

// asks returns who is asked, nil if nobody is open.
func (s *subject) asks() policy.Authorizer {
	switch {
	case s.embedded != nil:
		return s.embedded
	case s.remote != nil:
		return s.remote
	}
	return nil
}

// open starts the client. It may fail while its NATS server is out of reach, and
// nothing is on its disk.
func (s *subject) open(ctx context.Context) bool {
	s.using.Lock()
	defer s.using.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	var err error
	if s.isEmbedded() {
		s.embedded, err = embedded.New(ctx, embedded.Config{
			NATS: s.way.URL(), TrustFile: s.d.TrustFile, Namespaces: namespaces[1:], Dir: filepath.Join(s.dir, s.name), Cache: s.cache, Now: s.clock.now,
			OnRelease: func(e live.Event) {
				if refused, ok := e.(live.Refused); ok {
					if _, old := errors.AsType[*bundles.OldError](refused.Err); old {
						s.note("old head refused")
					}
				}
			},
		})
	} else {
		var servers []string
		for _, n := range s.nodes {
			servers = append(servers, n.addr)
		}
		s.remote, err = remote.New(ctx, remote.Config{Servers: servers, Namespaces: namespaces[1:2], Cache: s.cache, Now: s.clock.now})
		s.mu.Lock()
		s.floor = map[policy.Namespace]policy.Version{} // it knows nothing of before
		s.mu.Unlock()
	}
	if err != nil {
		s.embedded = nil
		s.note("client that did not start")
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened = time.Now()
	return true
}

// close stops the client once nobody asks it any more.
func (s *subject) close() {
	s.using.Lock()
	defer s.using.Unlock()
	var counted cache.Stats
	var coalesced uint64
	switch {
	case s.embedded != nil:
		counted = s.embedded.Status().Cache
		s.embedded.Close()
		s.embedded = nil
	case s.remote != nil:
		status := s.remote.Status()
		counted, coalesced = status.Cache, status.Coalesced
		if err := s.remote.Close(); err != nil {
			s.fail("%s: Close: %v", s.name, err)
		}
		s.remote = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hits, s.misses, s.evictions, s.coalesced = s.hits+counted.Hits, s.misses+counted.Misses, s.evictions+counted.Evictions, s.coalesced+coalesced
}

// begun begins a call.
func (s *subject) begun(want freshness, plain bool) *call {
	c := &call{subject: s, want: want, plain: plain && want.IsZero(), calm: s.calm.Load()}
	s.model.mu.Lock()
	c.id = s.lastCall + 1
	s.lastCall = c.id
	c.heads = maps.Clone(s.heads)
	s.calls[c.id] = c
	delete(s.calls, c.id-rememberCalls)
	s.model.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	c.floor = maps.Clone(s.floor)
	c.begin = time.Now()
	return c
}

// rememberCalls is how many calls are known after they have ended.
const rememberCalls = 100_000

func (s *subject) ended(c *call, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.end, c.failed = time.Now(), err != nil
}

func (s *subject) evaluated(e evaluation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.evaluations = append(s.evaluations, e)
	if old := time.Now().Add(-recently); len(s.evaluations) > 64 && s.evaluations[32].end.Before(old) {
		s.evaluations = slices.Delete(s.evaluations, 0, 32)
	}
}

// wasAsked reports whether a PDP was asked by a call, or by one that it may have
// waited with, and evaluated at a time.
func (s *subject) wasAsked(c *call, stamp int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.evaluations, func(e evaluation) bool {
		if e.stamp != stamp {
			return false
		}
		lead := e.call
		// One that has given up may have left others who wait, and whom others joined.
		return lead == c || lead.end.IsZero() || !lead.end.Before(c.begin) || lead.failed && e.end.After(c.begin.Add(-2*time.Second))
	})
}

// work asks, again and again, until ctx ends.
func (s *subject) work(ctx context.Context, r *rand.Rand) {
	for ctx.Err() == nil {
		s.using.RLock()
		if asks := s.asks(); asks != nil {
			s.one(ctx, r, asks)
			s.using.RUnlock()
			continue
		}
		s.using.RUnlock()
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// one makes a call, or several.
func (s *subject) one(ctx context.Context, r *rand.Rand, asks policy.Authorizer) {
	switch n := r.IntN(200); {
	case n < 10:
		s.batch(ctx, r, asks)
	case n < 14:
		s.burst(ctx, r, asks)
	case n < 24:
		s.single(ctx, asks, s.question(r), s.freshness(r), min(hurry(r), ample/4))
	default:
		s.single(ctx, asks, s.question(r), freshness{}, hurry(r))
	}
}

// question returns a request: often one that was asked lately, or its twin.
func (s *subject) question(r *rand.Rand) asking {
	s.mu.Lock()
	defer s.mu.Unlock()
	made := newShape(r)
	if n := r.IntN(4); n < 2 && len(s.recent) > 0 {
		return oneOf(r, s.recent)
	} else if n < 3 && len(s.recent) > 0 {
		made = oneOf(r, s.recent).shape.twin(r)
	}
	a := made.request(r, s.traces.Add(1))
	if s.recent = append(s.recent, a); len(s.recent) > 100 {
		s.recent = slices.Delete(s.recent, 0, 50)
	}
	return a
}

// freshness returns what is asked for: tokens, real ones and made up ones, or the
// head.
func (s *subject) freshness(r *rand.Rand) (f freshness) {
	s.model.mu.Lock()
	defer s.model.mu.Unlock()
	if r.IntN(4) == 0 {
		s.counts["asked for the head"]++
		f.Freshness = policy.Head
		return f
	}
	s.counts["asked with a token"]++
	var tokens []policy.Token
	for range 1 + r.IntN(2) {
		v := s.pushed[max(len(s.pushed)-1-r.IntN(3), 0)]
		if r.IntN(10) == 0 {
			v.Revision += madeUp
			f.madeUp = true
		}
		f.tokens, tokens = append(f.tokens, v), append(tokens, v.Token())
	}
	f.Freshness = policy.AtLeast(tokens...)
	return f
}

// ample is how long callers wait who are in no hurry.
const ample = 10 * time.Second

// hurry returns how long a caller waits.
func hurry(r *rand.Rand) time.Duration {
	if r.IntN(12) == 0 {
		return time.Duration(r.IntN(4_000_000))
	}
	return ample
}

// patient returns a context that ends after a while: by its deadline, or, half of
// those that are in a hurry, as its caller cancels it.
func patient(ctx context.Context, wait time.Duration) (context.Context, context.CancelFunc) {
	if wait == ample || wait%2 == 0 {
		return context.WithTimeout(ctx, wait)
	}
	ctx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(wait, cancel)
	return ctx, func() {
		timer.Stop()
		cancel()
	}
}

func (s *subject) single(ctx context.Context, asks policy.Authorizer, a asking, want freshness, wait time.Duration) {
	c := s.begun(want, wait == ample)
	ctx, cancel := patient(withCall(ctx, c.id), wait)
	defer cancel()
	a.Freshness = want.Freshness
	d, err := asks.Authorize(ctx, a.Request)
	over := ctx.Err()
	s.ended(c, err)
	s.check(ctx, c, []asking{a}, []policy.Result{{Decision: d, Err: err}}, over)
}

func (s *subject) batch(ctx context.Context, r *rand.Rand, asks policy.Authorizer) {
	all := make([]asking, 1+r.IntN(5))
	var want freshness
	if r.IntN(5) == 0 {
		want = s.freshness(r)
	}
	for i := range all {
		all[i] = s.question(r)
		if r.IntN(3) > 0 { // mostly in one namespace, but not always
			all[i].Namespace = all[0].Namespace
		}
	}
	all[r.IntN(len(all))].Freshness = want.Freshness
	requests := make([]policy.Request, len(all))
	for i := range all {
		requests[i] = all[i].Request
	}
	wait := hurry(r)
	if !want.IsZero() {
		wait = min(wait, ample/4)
	}
	c := s.begun(want, wait == ample)
	ctx, cancel := patient(withCall(ctx, c.id), wait)
	defer cancel()
	results, err := asks.AuthorizeBatch(ctx, requests)
	over := ctx.Err()
	s.ended(c, err)
	s.note("batch")
	if err != nil {
		results = make([]policy.Result, len(all))
		for i := range results {
			results[i].Err = err
		}
	}
	if len(results) != len(all) {
		s.fail("%s: %d results of %d requests", s.name, len(results), len(all))
		return
	}
	s.check(ctx, c, all, results, over)
}

// burst has many ask the same at once, of whom some give up soon.
func (s *subject) burst(ctx context.Context, r *rand.Rand, asks policy.Authorizer) {
	s.note("burst")
	a := newShape(r).request(r, s.traces.Add(1))
	var all sync.WaitGroup
	for i := range 6 {
		wait := ample
		if i%3 == 0 {
			wait = time.Duration(200_000 + r.IntN(5_000_000))
		}
		all.Go(func() { s.single(ctx, asks, a, freshness{}, wait) })
	}
	all.Wait()
}
