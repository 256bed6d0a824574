package remote

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/internal/decisionkey"
	"github.com/microwall/microwall/internal/staleness"
	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

const (
	// silence is how long a PDP may take to tell the first namespace, and after how
	// long without news it is asked whether it is still there, which it may take
	// reply to say. A process that hangs keeps its connections: who trusted these would
	// decide by old releases until they end.
	silence = 5 * time.Second
	reply   = 3 * time.Second
	// lookEvery is how often a watch looks whether another PDP knows more, and
	// patience how often in a row it may do so.
	lookEvery = time.Second
	patience  = 3
	// gather is how long a namespace waits for others that are to be watched too.
	gather = 20 * time.Millisecond
	// A watch that ended is begun again after as long as quickPause if it has told
	// anything, or else a pause that doubles up to longPause; less a random half.
	quickPause = 200 * time.Millisecond
	longPause  = 10 * time.Second
)

// watcher has one PDP tell what decides in all namespaces that are watched.
type watcher struct {
	pool  *pool
	known *known
	now   func() time.Time

	at     atomic.Pointer[pdp] // who tells; nil if nobody does
	lost   atomic.Int64        // when the last one ended that told, as the time since sinceWhen; 0 while one tells
	ended  atomic.Pointer[error]
	rounds atomic.Uint64
}

// errMore ends a watch that another namespace is to be added to.
var errMore = errors.New("there is more to watch")

// run watches until ctx ends.
func (w *watcher) run(ctx context.Context) {
	//nolint:gosec // so that clients spread
	next, pause := rand.IntN(len(w.pool.pdps)), quickPause
	for ctx.Err() == nil {
		select {
		case <-w.known.added: // it is among those that follow
		default:
		}
		namespaces := w.known.watched()
		if len(namespaces) == 0 {
			select {
			case <-w.known.added:
				sleep(ctx, gather)
			case <-ctx.Done():
			}
			continue
		}
		next = w.pick(next)
		told, err := w.watch(ctx, w.pool.pdps[next], namespaces)
		if w.at.Swap(nil) != nil {
			w.lost.Store(int64(time.Since(sinceWhen)))
		}
		if errors.Is(err, errMore) {
			pause = quickPause
			continue // with the same one
		}
		w.ended.Store(&err)
		w.rounds.Add(1)
		if next++; told {
			pause = quickPause
		}
		sleep(ctx, pause/2+rand.N(pause/2)) //nolint:gosec // so that not all come at once
		pause = min(2*pause, longPause)
	}
}

// deaf reports whether nobody has told anything for so long that what is remembered may
// not be what decides any more.
func (w *watcher) deaf() bool {
	lost := w.lost.Load()
	return lost != 0 && time.Since(sinceWhen)-time.Duration(lost) > silence
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// pick returns the place of the first PDP from one on that answers; if none does,
// of that one.
func (w *watcher) pick(from int) int {
	n := len(w.pool.pdps)
	for i := range n {
		if open, _ := w.pool.pdps[(from+i)%n].breaker.state(); !open {
			return (from + i) % n
		}
	}
	return from % n
}

// watch has one PDP tell, until it ends that, does not answer any more, or is
// behind others. It reports whether it has told anything.
func (w *watcher) watch(ctx context.Context, p *pdp, namespaces []policy.Namespace) (told bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	messages, ended := make(chan *microwallv1.WatchResponse), make(chan error, 1)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	work.Go(func() { ended <- receive(ctx, p, namespaces, messages) })

	quiet, look := time.NewTimer(silence), time.NewTicker(lookEvery)
	defer quiet.Stop()
	defer look.Stop()
	alive := make(chan error, 1)
	var more <-chan time.Time
	behind := 0
	for {
		select {
		case m := <-messages:
			quiet.Reset(silence)
			told = true
			w.at.Store(p)
			w.lost.Store(0)
			if err := w.tell(m); err != nil {
				return told, err
			}
		case err := <-ended:
			return told, err
		case <-w.known.added:
			if more == nil {
				more = time.After(gather)
			}
		case <-more:
			return told, errMore
		case <-quiet.C:
			if !told {
				return told, fmt.Errorf("%s tells nothing", p.name())
			}
			work.Go(func() { alive <- p.alive(ctx) })
		case err := <-alive:
			if err != nil {
				return told, err
			}
			quiet.Reset(silence)
		case <-look.C:
			if open, _ := p.breaker.state(); open {
				return told, fmt.Errorf("%s does not answer", p.name())
			}
			if behind++; !w.known.behind() {
				behind = 0
			}
			if behind > patience && len(w.pool.pdps) > 1 {
				return told, fmt.Errorf("%s is behind others", p.name())
			}
		}
	}
}

// alive returns an error if a PDP says nothing any more, not even that it has no
// health service.
func (p *pdp) alive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reply)
	defer cancel()
	_, err := healthpb.NewHealthClient(p.conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if status.Code(err) == codes.DeadlineExceeded {
		return fmt.Errorf("%s has its connections and does not answer", p.name())
	}
	return nil
}

// receive hands over what a PDP tells, until it ends that.
func receive(ctx context.Context, p *pdp, namespaces []policy.Namespace, to chan<- *microwallv1.WatchResponse) error {
	m := &microwallv1.WatchRequest{}
	for _, n := range namespaces {
		m.Namespaces = append(m.Namespaces, string(n))
	}
	stream, err := microwallv1.NewPolicyServiceClient(p.conn).Watch(ctx, m)
	for err == nil {
		var told *microwallv1.WatchResponse
		if told, err = stream.Recv(); err == nil {
			select {
			case to <- told:
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
	}
	return wire.Error(p.name(), err)
}

// tell takes a message. An error says that it makes no sense; what was told of
// its namespace counts no more then.
func (w *watcher) tell(m *microwallv1.WatchResponse) error {
	n := policy.Namespace(m.GetNamespace())
	if e := m.GetError(); e != nil {
		why := &policy.Error{Kind: wire.Kind(codes.Code(e.GetCode())), Message: wire.Message(e.GetMessage())} //nolint:gosec // a negative code is as unknown as a large one
		for _, p := range m.GetPath() {
			if v, err := wire.Version(p.GetVersion()); err == nil {
				why.Versions = append(why.Versions, v)
			}
		}
		w.known.fail(n, why, m.GetTrust())
		return nil
	}
	s, err := readState(n, m, w.now())
	if err != nil {
		err = policy.Errorf(policy.Internal, "what decides in %s was told in a way that makes no sense: %w", n, err)
		w.known.fail(n, err, 0)
		return err
	}
	w.known.tell(n, s)
	return nil
}

// readState reads what decides in a namespace.
func readState(n policy.Namespace, m *microwallv1.WatchResponse, now time.Time) (*state, error) {
	if m.GetEngine() == "" {
		return nil, errors.New("it names no engine")
	}
	s := &state{trust: m.GetTrust()}
	versions := make([]policy.Version, len(m.GetPath()))
	for i, p := range m.GetPath() {
		var err error
		if versions[i], err = wire.Version(p.GetVersion()); err != nil {
			return nil, err
		}
		if p.GetMaxStaleness() == nil {
			continue
		}
		if err := p.GetMaxStaleness().CheckValid(); err != nil {
			return nil, err
		}
		l := limit{namespace: versions[i].Namespace, most: p.GetMaxStaleness().AsDuration(), deny: p.GetDenyWhenStale()}
		if p.GetTime() != nil {
			if err := p.GetTime().CheckValid(); err != nil {
				return nil, err
			}
			if proven := p.GetTime().AsTime(); proven.Sub(now) <= staleness.MaxAhead {
				l.proven, l.origin = proven, staleness.Origin(proven, now)
			}
		}
		s.limits = append(s.limits, l)
	}
	if err := checkPath(n, versions); err != nil {
		return nil, err
	}
	s.layout = decisionkey.New(m.GetEngine(), versions, wire.Reads(m.GetReads()))
	return s, nil
}
