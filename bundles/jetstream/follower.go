package jetstream

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/microwall/microwall/policy"
)

const (
	// DefaultPoll is how often heads are asked for unless configured.
	DefaultPoll = 30 * time.Second
	// DefaultFetchJitter bounds the wait before chunks are fetched unless
	// configured.
	DefaultFetchJitter = 250 * time.Millisecond

	// workers is how many namespaces are offered at once: the callback
	// compiles.
	workers = 4
	// pendingMessages and pendingBytes bound what waits in a subscription. It
	// waits only for a lock; beyond that, dropping and asking again is better.
	pendingMessages = 1024
	pendingBytes    = 16 << 20
)

// FollowConfig configures a [Follower]. Conn, As, Domain, Offer and one of
// Namespaces and List are required.
type FollowConfig struct {
	// Conn is a connection that may subscribe to the followed namespaces' push
	// subjects and ask for their heads and chunks, best one made by [Connect].
	// It remains the caller's, and need not be connected yet.
	Conn *nats.Conn
	// As is the kind of principal whose connection it is: it says which account
	// of the broker Conn is in, and so under which names things are found.
	As Kind
	// Domain is the name of the trust domain.
	Domain string
	// Namespaces to follow. Nil follows all of the domain: those that List
	// returns.
	Namespaces []policy.Namespace
	// List returns the namespaces that have a head, as [Store.Namespaces] does,
	// over Conn or otherwise.
	// It is called on every poll and, up to twice a second or so, when one is
	// pushed that it has not returned before; it may be called twice at once.
	// It is used only if Namespaces is nil.
	List func(ctx context.Context) ([]policy.Namespace, error)
	// Offer takes a head: it verifies the note, and calls fetch, in its own
	// goroutine and before it returns, if it wants the packed bundle. It is
	// called for several namespaces at once, but never twice at once for one.
	// It must refuse what is older than what it has taken. If it fails with
	// policy.Unavailable or because a context ended, or if fetch failed, the
	// same head is offered again, after a while that grows up to Poll; any
	// other error stands until another head message comes.
	Offer func(ctx context.Context, note []byte, fetch func(context.Context) ([]byte, error)) error
	// Beacon takes the newest signed beacon of a namespace, in the order of its
	// arrival and not while Offer is called for the same one. It must ignore
	// what is older than what it has taken. Of kind policy.Unavailable, its
	// error has the head asked for at once; others say nothing to the follower.
	// Nil does without beacons.
	Beacon func(ctx context.Context, ns policy.Namespace, note []byte) error
	// Mode says how the follower hears of heads. Zero is [ByPush].
	Mode Mode
	// Poll is how often all heads are asked for, half of that more or less.
	// Zero is [DefaultPoll].
	Poll time.Duration
	// FetchJitter bounds a random wait before a bundle's chunks are fetched, so
	// that not everybody fetches at once. Bundles inside the head message do
	// not wait. Zero is [DefaultFetchJitter], below zero none.
	FetchJitter time.Duration
	// MaxPacked is how large a packed bundle may be, in bytes. Zero is
	// [DefaultMaxPacked].
	MaxPacked int64
	// After is the clock: it returns a channel that receives once that much
	// time has passed. Nil is [time.After].
	After func(time.Duration) <-chan time.Time
	// Events is told what arrives and what becomes of it; nil tells nobody.
	Events func(Event)
}

// Follower brings the heads of namespaces to a callback, as they are released,
// and beacons to another. What it promises is that the newest head reaches Offer
// in the end, at the latest one Poll after the broker can be reached; not that
// every one does, nor in order.
type Follower struct {
	config  FollowConfig
	names   names
	started atomic.Bool
	again   chan struct{} // ask for everything, soon
	synced  chan struct{}
	asked   chan struct{} // see checkAsked
	ignored *ignoring
	// tasks are all goroutines and the callbacks of nats.go that are running.
	tasks sync.WaitGroup

	mu        sync.Mutex
	listening []*listening
	wake      *sync.Cond // on mu: ready or stopped has changed
	stopped   bool
	// slots has all namespaces that are configured or were ever listed. No
	// push makes one.
	slots    map[policy.Namespace]*slot
	unlisted unlisted
	ready    []*slot
	// unanswered are the namespaces that Synced still waits for; nil before
	// they are known.
	unanswered map[policy.Namespace]bool
}

// NewFollower returns a follower that does nothing before Run.
func NewFollower(c FollowConfig) (*Follower, error) {
	switch {
	case c.Conn == nil:
		return nil, policy.Errorf(policy.BadRequest, "the follower has no connection; connect first")
	case c.Offer == nil:
		return nil, policy.Errorf(policy.BadRequest, "the follower has nobody to offer releases to")
	case c.Namespaces == nil && c.List == nil:
		return nil, policy.Errorf(policy.BadRequest, "the follower has neither namespaces nor a list of them; name at least one")
	}
	names, err := c.As.names(c.Domain)
	if err != nil {
		return nil, err
	}
	for _, ns := range c.Namespaces {
		if err := checkNamespace(c.Domain, ns); err != nil {
			return nil, err
		}
	}
	if c.Poll == 0 {
		c.Poll = DefaultPoll
	}
	if c.FetchJitter == 0 {
		c.FetchJitter = DefaultFetchJitter
	}
	if c.MaxPacked == 0 {
		c.MaxPacked = DefaultMaxPacked
	}
	if c.Poll < 0 || c.MaxPacked < 0 {
		return nil, policy.Errorf(policy.BadRequest, "the follower polls every %s and takes bundles of %d bytes; neither may be negative", c.Poll, c.MaxPacked)
	}
	if c.After == nil {
		c.After = time.After
	}
	if c.Events == nil {
		c.Events = func(Event) {}
	}
	c.Namespaces = slices.Clone(c.Namespaces)
	f := &Follower{
		config:   c,
		names:    names,
		again:    make(chan struct{}, 1),
		synced:   make(chan struct{}),
		asked:    make(chan struct{}, 1),
		ignored:  newIgnoring(),
		slots:    map[policy.Namespace]*slot{},
		unlisted: unlisted{names: map[policy.Namespace]bool{}, look: make(chan struct{}, 1)},
	}
	f.wake = sync.NewCond(&f.mu)
	for _, ns := range c.Namespaces {
		f.slot(ns)
	}
	return f, nil
}

// Synced is closed once the broker has answered for every followed namespace
// and what it answered, head and beacon, has been offered, whether it was taken
// or not. Which
// namespaces those are is asked once if all are followed.
func (f *Follower) Synced() <-chan struct{} { return f.synced }

// Refresh asks for all heads again, and offers also those that were refused or
// taken before: for when that which refused them, or has dropped them since, has
// changed, such as a trust file. It does not wait.
func (f *Follower) Refresh() {
	f.mu.Lock()
	for _, s := range f.slots {
		s.forget, s.lastBeat = true, nil
	}
	f.mu.Unlock()
	f.askSoon()
}

// Run follows until ctx ends, which is no error, or the connection is closed; or,
// of a follower that asks once, until there is nothing left to ask for. It may be called once. When it returns, no callback runs any more.
func (f *Follower) Run(ctx context.Context) error {
	if f.started.Swap(true) {
		return policy.Errorf(policy.Internal, "a follower runs once; make another")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer f.hush()
	defer f.tasks.Wait()
	defer f.stop()
	defer cancel()
	status := f.config.Conn.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer f.config.Conn.RemoveStatusListener(status)
	// Subscribe first: what is released while the heads are asked for arrives
	// as a push.
	if f.config.Mode == ByPush {
		defer f.unsubscribe()
		if err := f.subscribe(); err != nil {
			return err
		}
	}
	for range workers {
		f.tasks.Go(func() { f.workLoop(ctx) })
	}
	f.tasks.Go(func() { f.lookLoop(ctx) })
	f.tasks.Go(func() { f.ignored.run(ctx, f.config.After, f.config.Events) })

	failures := 0
	for fresh := true; ; {
		wait := jitter(f.config.Poll)
		if f.config.Conn.IsConnected() {
			if err := f.askAll(ctx, fresh); err == nil {
				fresh, failures = false, 0
			} else if ctx.Err() == nil {
				f.config.Events(AskFailed{Err: err})
				wait = backoff(failures, f.config.Poll)
				failures++
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case s := <-status:
			if s == nats.CLOSED {
				return policy.Errorf(policy.Unavailable, "the connection to NATS was closed; no release arrives any more")
			}
			fresh = true
		case <-f.again:
			fresh = true
		case <-f.asked:
			return nil
		case <-f.config.After(wait):
		}
	}
}

// stop lets no worker take another slot, and no callback begin.
func (f *Follower) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
	f.wake.Broadcast()
}

func (f *Follower) askSoon() {
	select {
	case f.again <- struct{}{}:
	default: // already asked to
	}
}

// askAll asks for the heads of all followed namespaces. fresh says that the
// answers may be behind, because something has just changed.
func (f *Follower) askAll(ctx context.Context, fresh bool) error {
	// First, as in Run.
	if err := f.listenAgain(); err != nil {
		return err
	}
	all := f.config.Namespaces
	if all == nil {
		if fresh {
			if err := f.heard(ctx); err != nil {
				return err
			}
		}
		var err error
		if all, err = f.config.List(ctx); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unanswered == nil {
		f.unanswered = make(map[policy.Namespace]bool, len(all))
		for _, ns := range all {
			f.unanswered[ns] = true
		}
		f.checkSynced()
	}
	for _, ns := range all {
		s := f.slot(ns)
		s.ask = true
		s.fresh = s.fresh || fresh
		s.askBeat = s.askBeat || fresh || !s.heard
		s.heard = false
		f.enqueue(s)
	}
	f.checkAsked()
	return nil
}

// heard waits until the broker has the subscriptions. The list may come over
// another connection, and overtake them: what is released in between would be
// neither in it nor pushed. A head that is asked for on this connection cannot.
func (f *Follower) heard(ctx context.Context) error {
	if err := attempt(ctx, f.config.Conn, f.config.Conn.FlushWithContext); err != nil {
		return policy.Errorf(policy.Unavailable, "cannot subscribe to the heads of %s: the broker does not answer (%w); it is tried again", f.config.Domain, err)
	}
	return nil
}

// answered says that what the broker knows of a namespace has been offered.
func (f *Follower) answered(ns policy.Namespace) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unanswered[ns] {
		delete(f.unanswered, ns)
		f.checkSynced()
	}
}

// checkSynced runs under mu, when unanswered has changed.
func (f *Follower) checkSynced() {
	if len(f.unanswered) == 0 {
		close(f.synced)
	}
}

// slot returns the slot of a namespace that is configured or listed. It runs
// under mu.
func (f *Follower) slot(ns policy.Namespace) *slot {
	s := f.slots[ns]
	if s == nil {
		s = &slot{ns: ns}
		f.slots[ns] = s
	}
	return s
}

// enqueue has a worker look at the slot. It runs under mu.
func (f *Follower) enqueue(s *slot) {
	if s.queued || s.busy || f.stopped {
		return // a busy slot is looked at again when its worker is done
	}
	s.queued = true
	f.ready = append(f.ready, s)
	f.wake.Signal()
}

// workLoop takes slots one by one until the follower stops.
func (f *Follower) workLoop(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		for len(f.ready) == 0 && !f.stopped {
			f.wake.Wait()
		}
		if f.stopped {
			return
		}
		s := f.ready[0]
		f.ready = f.ready[1:]
		s.queued, s.busy = false, true
		f.mu.Unlock()
		f.work(ctx, s)
		f.mu.Lock()
		s.busy = false
		if s.pushed != nil || s.beat != nil || s.ask || s.due {
			f.enqueue(s)
		}
		f.checkAsked()
	}
}

// later calls do, under mu, after a while, unless the follower stops before.
func (f *Follower) later(ctx context.Context, d time.Duration, do func()) {
	f.tasks.Go(func() {
		if f.wait(ctx, d) == nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			do()
		}
	})
}

// wait waits for d, or returns the error of a ctx that ended first.
func (f *Follower) wait(ctx context.Context, d time.Duration) error {
	select {
	case <-f.config.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
