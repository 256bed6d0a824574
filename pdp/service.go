package pdp

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// Config of a [Service]. Source is required; every other field may be zero.
type Config struct {
	// Source of the snapshots to decide by.
	Source live.Source
	// Limits on what is asked.
	Limits policy.Limits
	// Confirm returns what the head of a namespace was after it was called, for
	// requests that ask for the newest releases. It is called by many at once. Nil:
	// nobody can say, and such requests are policy.Unavailable.
	Confirm func(context.Context, policy.Namespace) (policy.Version, error)
	// Concurrency is how many requests are evaluated at once. Zero is twice
	// the processors.
	Concurrency int
	// Queue is how many requests may wait for their turn, and of how many namespaces
	// releases may be waited for; more are refused at once. Zero is 4,096.
	Queue int
	// Watches is how many namespaces are watched at once, by all who watch; more
	// are refused at once. Zero is 10,000.
	Watches int
	// Events is told of every decision; nil tells nobody.
	Events func(Event)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Service decides requests by the newest snapshot of its source. It is safe for
// concurrent use.
type Service struct {
	config  Config
	slots   chan struct{}
	waiting atomic.Int64
	patient atomic.Int64 // namespaces of which releases are waited for
	watches atomic.Int64
}

var _ policy.Authorizer = (*Service)(nil)

// New returns a service.
func New(config Config) *Service {
	if config.Concurrency == 0 {
		config.Concurrency = 2 * runtime.GOMAXPROCS(0)
	}
	if config.Queue == 0 {
		config.Queue = 4096
	}
	if config.Watches == 0 {
		config.Watches = 10_000
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Service{config: config, slots: make(chan struct{}, config.Concurrency)}
}

// Authorize decides one request. An error of kind policy.Exhausted means that
// too many wait already.
func (s *Service) Authorize(ctx context.Context, r policy.Request) (policy.Decision, error) {
	var snapshot *live.Snapshot
	if !r.Freshness.IsZero() {
		var err error
		if snapshot, err = s.fresh(ctx, []policy.Request{r}); err != nil {
			return policy.Decision{}, err
		}
	}
	if err := s.admit(ctx); err != nil {
		return policy.Decision{}, err
	}
	defer s.leave()
	if snapshot == nil {
		snapshot = s.config.Source.Snapshot()
	}
	now := s.config.Now()
	d, err := decide(ctx, snapshot, s.config.Limits, &r, now, now)
	if s.config.Events != nil {
		s.tell(new(Decided), &r, &d, err, now)
	}
	return d, err
}

// AuthorizeBatch decides requests one after the other by one snapshot and one
// time stamp. Whether what decides is stale is judged for each when it is begun: a
// batch may take longer than it is believed.
func (s *Service) AuthorizeBatch(ctx context.Context, rs []policy.Request) ([]policy.Result, error) {
	if err := s.config.Limits.CheckBatch(len(rs)); err != nil {
		return nil, err
	}
	snapshot, err := s.fresh(ctx, rs)
	if err != nil {
		return nil, err
	}
	if err := s.admit(ctx); err != nil {
		return nil, err
	}
	defer s.leave()
	if snapshot == nil {
		snapshot = s.config.Source.Snapshot()
	}
	now := s.config.Now()
	results := make([]policy.Result, len(rs))
	var events []Decided
	if s.config.Events != nil {
		events = make([]Decided, len(rs))
	}
	for i := range rs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		begun := s.config.Now()
		r := &results[i]
		r.Decision, r.Err = decide(ctx, snapshot, s.config.Limits, &rs[i], now, begun)
		if events != nil {
			s.tell(&events[i], &rs[i], &r.Decision, r.Err, begun)
		}
	}
	return results, nil
}

// tell reports a decision that was begun at a time, as the event e.
func (s *Service) tell(e *Decided, r *policy.Request, d *policy.Decision, err error, begun time.Time) {
	*e = Decided{Request: r, Decision: d, Err: err, Took: s.config.Now().Sub(begun)}
	s.config.Events(e)
}

// decide decides a request whose policy is told that it is stamp, and which is
// begun at a time.
func decide(ctx context.Context, snapshot *live.Snapshot, limits policy.Limits, r *policy.Request, stamp, begun time.Time) (policy.Decision, error) {
	if err := limits.Check(r); err != nil {
		return policy.Decision{}, err
	}
	path, err := snapshot.Path(r.Namespace)
	if err != nil {
		return policy.Decision{}, err
	}
	d, err := path.Decide(ctx, rego.NewInput(r, rego.NewStamp(stamp)))
	if err != nil {
		return policy.Decision{}, err
	}
	return path.Judge(d, begun), nil
}

// admit waits for a slot, which leave gives back. Whoever finds the queue full
// is refused at once: a caller that is told so can go elsewhere, one that waits
// cannot.
func (s *Service) admit(ctx context.Context) error {
	select {
	case s.slots <- struct{}{}:
		return nil
	default:
	}
	if s.waiting.Add(1) > int64(s.config.Queue) {
		s.waiting.Add(-1)
		return policy.Errorf(policy.Exhausted, "%d requests wait already; ask again later, or ask another PDP", s.config.Queue)
	}
	defer s.waiting.Add(-1)
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Service) leave() { <-s.slots }
