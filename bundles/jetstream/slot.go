package jetstream

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/microwall/microwall/policy"
)

// arrival is a head message as it came.
type arrival struct {
	data   []byte
	seq    uint64
	pushed bool
	digest policy.Digest // of data: which message it is
}

func newArrival(data []byte, seq uint64, pushed bool) *arrival {
	return &arrival{data: data, seq: seq, pushed: pushed, digest: policy.DigestOf(data)}
}

// slot is where the messages of one namespace wait. There are at most three:
// the newest that was pushed, the one that was asked for, and one that is to be
// offered again. They do not replace each other, because any of them may be
// forged or old: a wrong one must not keep the right one out.
type slot struct {
	ns policy.Namespace

	// Under the follower's mu: what a worker is to do.
	queued, busy bool
	pushed       *arrival
	beat         []byte // the newest beacon that was heard
	lastBeat     []byte // the same, when it was handed on
	ask          bool   // ask for the head
	askBeat      bool   // ask for the beacon
	heard        bool   // a beacon came since all were last asked for
	fresh        bool   // the answer may be behind
	due          bool   // offer waiting again
	forget       bool   // offer what was refused or taken once more
	asking       bool   // a timer will set ask
	ticking      bool   // a timer will set due

	// The worker's own while busy.
	waiting  *arrival // to be offered again when due
	offers   int      // how often waiting was offered
	failures int      // how often in a row the head could not be asked for
	answered bool     // and that is known
	looks    int      // how often more to ask, as the answer may be behind
	accepted policy.Digest
	refused  []policy.Digest // the last few
}

// rememberRefused is how many refused messages of a namespace are not offered
// once more when they come again.
const rememberRefused = 4

// work does what there is to do for a slot.
func (f *Follower) work(ctx context.Context, s *slot) {
	f.mu.Lock()
	pushed, ask, fresh, due, forget := s.pushed, s.ask, s.fresh, s.due, s.forget
	beat, askBeat := s.beat, s.askBeat && f.config.Beacon != nil
	s.pushed, s.ask, s.fresh, s.due, s.forget = nil, false, false, false, false
	s.beat, s.askBeat = nil, false
	f.mu.Unlock()

	if forget {
		s.accepted, s.refused = policy.Digest{}, nil
	}
	var heads []*arrival
	if pushed != nil && !s.settled(pushed) {
		heads = append(heads, pushed)
	}
	asked := false
	if ask {
		if fresh {
			s.failures, s.looks = 0, 3
		}
		var got *arrival
		if got, asked = f.askHead(ctx, s); got != nil && !s.settled(got) && (pushed == nil || got.digest != pushed.digest) {
			heads = append(heads, got)
		}
	}
	if due && s.waiting != nil {
		heads = append(heads, s.waiting)
	}
	// The newest first by the broker's count: if it is taken, the others are
	// old. If not, they may be the true ones.
	slices.SortStableFunc(heads, func(a, b *arrival) int { return cmp.Compare(b.seq, a.seq) })
	for _, a := range heads {
		if ctx.Err() != nil {
			return
		}
		if f.offer(ctx, s, a) {
			break
		}
	}
	// Beacons after heads: a push comes before the beacon that speaks of it.
	if beat != nil {
		f.prove(ctx, s, beat)
	} else if askBeat {
		f.askBeat(ctx, s)
	}
	if asked {
		f.answered(s.ns)
	}
}

// settled reports whether a message that has just come was dealt with already,
// or will be.
func (s *slot) settled(a *arrival) bool {
	return a.digest == s.accepted || slices.Contains(s.refused, a.digest) ||
		s.waiting != nil && a.digest == s.waiting.digest
}

// askHead asks for a head, and reports whether the broker answered. If not, or
// if the answer may be behind, it is asked for again later.
func (f *Follower) askHead(ctx context.Context, s *slot) (*arrival, bool) {
	m, err := f.names.get(ctx, f.config.Conn, f.names.askHead(token(s.ns)))
	if answered := err == nil || errors.Is(err, errAbsent); answered && !s.answered {
		f.config.Events(Answered{Namespace: s.ns})
		s.answered = true
	}
	switch {
	case err == nil:
		s.failures = 0
		if s.looks > 0 {
			// A replica that is behind catches up in a second or two.
			s.looks = 0
			f.askLater(ctx, s, jitter(3*time.Second))
		}
		return newArrival(m.data, m.seq, false), true
	case errors.Is(err, errAbsent):
		s.failures = 0
		if s.looks > 0 {
			s.looks--
			f.askLater(ctx, s, backoff(2-s.looks, time.Second))
		}
		return nil, true
	case ctx.Err() != nil:
		return nil, false
	}
	f.config.Events(AskFailed{Namespace: s.ns, Err: explainAsk(f.config.Domain, err)})
	s.answered = false
	// Without a connection there is nobody to ask; all is asked for when there
	// is one.
	if f.config.Conn.IsConnected() {
		f.askLater(ctx, s, backoff(s.failures, f.config.Poll))
		s.failures++
	}
	return nil, false
}

// askLater asks for the head of a slot after a while.
func (f *Follower) askLater(ctx context.Context, s *slot, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.asking {
		return
	}
	s.asking = true
	f.later(ctx, d, func() {
		s.asking, s.ask = false, true
		f.enqueue(s)
	})
}

// offer hands one message to the callback, and reports whether it was taken.
func (f *Follower) offer(ctx context.Context, s *slot, a *arrival) bool {
	m, err := parseMessage(a.data)
	if err != nil {
		s.refuse(a)
		f.config.Events(Ignored{Subject: f.names.hearHead(token(s.ns)), Err: err})
		return false
	}
	if a != s.waiting {
		f.config.Events(HeadSeen{Namespace: s.ns, Seq: a.seq, Pushed: a.pushed})
	}
	fetch := &fetcher{follower: f, ns: s.ns, message: m}
	err = f.config.Offer(ctx, m.note, fetch.packed)
	again := false
	switch {
	case err == nil:
		s.accepted = a.digest
		if s.waiting != nil && s.waiting.seq <= a.seq {
			s.waiting = nil
		}
	case ctx.Err() != nil:
		return false
	case policy.KindOf(err) == policy.Unavailable, policy.Ended(err), fetch.failed.Load():
		again = f.keep(ctx, s, a)
	default:
		s.refuse(a)
	}
	f.config.Events(Offered{Namespace: s.ns, Seq: a.seq, Err: err, Again: again})
	return err == nil
}

// refuse remembers a message that is not to be offered again.
func (s *slot) refuse(a *arrival) {
	if s.waiting == a {
		s.waiting = nil
	}
	s.refused = append(s.refused, a.digest)
	if n := len(s.refused); n > rememberRefused {
		s.refused = slices.Clone(s.refused[n-rememberRefused:])
	}
}

// keep has a message offered again later, and reports whether it will be: only
// the newest of a namespace is.
func (f *Follower) keep(ctx context.Context, s *slot, a *arrival) bool {
	if s.waiting != nil && s.waiting.seq > a.seq {
		return false
	}
	if s.waiting != a {
		s.waiting, s.offers = a, 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !s.ticking {
		s.ticking = true
		f.later(ctx, backoff(s.offers, f.config.Poll), func() {
			s.ticking, s.due = false, true
			f.enqueue(s)
		})
	}
	s.offers++
	return true
}

// fetcher gets the packed bundle that a head message names.
type fetcher struct {
	follower *Follower
	ns       policy.Namespace
	message  message
	failed   atomic.Bool // and another attempt may do better
}

// packed is the fetch that Offer is given.
func (f *fetcher) packed(ctx context.Context) ([]byte, error) {
	chunks := f.message.chunks
	switch {
	case len(f.message.packed) > 0:
		return f.message.packed, nil
	case len(chunks) == 0:
		return nil, policy.Errorf(policy.NotFound, "this head of %s names no bundle", f.ns)
	}
	if most := f.follower.config.FetchJitter; most > 0 {
		if err := f.follower.wait(ctx, below(most)); err != nil {
			return nil, err
		}
	}
	packed, err := collect(ctx, chunks, f.follower.config.MaxPacked, f.chunk)
	if err != nil && policy.KindOf(err) != policy.Exhausted {
		f.failed.Store(true)
	}
	return packed, err
}

// chunk gets one chunk. A replica may not have it yet, so it is asked for a few
// times.
func (f *fetcher) chunk(ctx context.Context, i int) ([]byte, error) {
	const attempts = 5
	chunks, names := f.message.chunks, f.follower.names
	for n := 0; ; n++ {
		m, err := names.getAgain(ctx, f.follower.config.Conn, n, names.askBlob(token(f.ns), chunks[i].Hex()))
		if err == nil {
			err = checkChunk(chunks, i, m.data)
		}
		switch {
		case err == nil:
			return m.data, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case n == attempts-1:
			return nil, policy.Errorf(policy.Unavailable, "chunk %d of %d of the bundle of %s cannot be fetched: %w; it is tried again", i+1, len(chunks), f.ns, err)
		}
		if err := f.follower.wait(ctx, backoff(n, 2*time.Second)); err != nil {
			return nil, err
		}
	}
}
