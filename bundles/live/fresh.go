package live

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

// clockSkew is how far apart the clocks may be of those who confirm heads and of
// those who ask.
const clockSkew = 30 * time.Second

// errNoBeacons is why no head can be confirmed at all.
var errNoBeacons = errors.New("the trust file lists no beacons")

// Confirmable returns nil if the head of a namespace can be confirmed at all: the
// trust file in force lists keys that do so.
func (l *Live) Confirmable(n policy.Namespace) error {
	if len(l.Trust().Beacons()) > 0 {
		return nil
	}
	return policy.Errorf(policy.Unavailable, "nobody can confirm which release of %s is the newest: %w; list one (microwall keygen NAME --for beacons), and start PDPs with --beacon-key", n, errNoBeacons)
}

// Confirmed reads the answer to the question for the head of a namespace, which
// was asked at a time: it verifies the note, and that it is not from before the
// question, as far as clocks can tell. What it proves is not taken; that is for
// [Live.Prove].
func (l *Live) Confirmed(n policy.Namespace, note []byte, asked time.Time) (*bundles.SignedBeacon, policy.Version, error) {
	beacon, err := l.Trust().OpenBeacon(note)
	if err != nil {
		return nil, policy.Version{}, err
	}
	if age := asked.Sub(beacon.Time()); age > clockSkew {
		return nil, policy.Version{}, policy.Errorf(policy.Unavailable, "what confirms the head of %s is from %s before it was asked for: it was kept by somebody on the way, or the clocks differ; ask again", n, age.Round(time.Second))
	}
	head, ok := beacon.Head(n)
	if !ok {
		return nil, policy.Version{}, policy.Errorf(policy.Unavailable, "the beacon that confirms %s does not speak of it; ask again", n)
	}
	return beacon, head, nil
}

// patience is how long a request waits for releases that has no deadline.
const patience = 15 * time.Second

// Fresh returns the snapshot of a source by which requests are decided, as fresh
// as all of them ask for together: at once if they ask for nothing, or if what is
// held has it; otherwise once it has arrived.
//
// confirm returns what the head of a namespace was after it was called, and ends with
// its context. Nil is for a source that nobody can be asked about. It is called for
// several namespaces at once. What a token asks for may arrive while it is being
// confirmed, which ends that, and also where [Live.Confirmable] says that nothing can be.
//
// The error is of kind policy.Failed for a token of a release that there never was,
// policy.Unavailable if it did not arrive before ctx ended (or within 15 s, if ctx has
// no deadline), and otherwise that of confirm. What only keeps one of the requests from
// being decided is no error: one with what is no token asks for nothing here, and
// policy.Limits refuses it.
func Fresh(ctx context.Context, source Source, rs []policy.Request, confirm func(context.Context, policy.Namespace) (policy.Version, error)) (*Snapshot, error) {
	s := source.Snapshot()
	f := together(rs)
	if f.IsZero() {
		return s, nil
	}
	var namespaces []policy.Namespace
	asked := make(map[policy.Namespace]bool, 1)
	for i := range rs {
		n := rs[i].Namespace
		if _, err := policy.ParseNamespace(string(n)); err == nil && !asked[n] {
			asked[n] = true
			namespaces = append(namespaces, n)
		}
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	w := wanted{namespaces: namespaces, asked: asked, confirm: confirm, heads: map[policy.Namespace]policy.Version{}, least: map[policy.Namespace]policy.Version{}}
	if v, ok := w.behind(s, f.Seen()); ok {
		return nil, policy.Errorf(policy.Unavailable, "release %d of %s has not arrived here yet, and is known to be there; ask another PDP, or again", v.Revision, v.Namespace)
	}
	tokens, all, err := w.sort(s, f)
	if err != nil {
		return nil, err
	}
	if len(tokens) > 0 {
		if s, err = w.await(ctx, source, s, tokens); err != nil {
			return nil, err
		}
	}
	for {
		if all {
			// Another trust file may name other guardrails, which were not confirmed.
			if err := w.confirmAll(ctx, w.along(s), w.held(s)); err != nil {
				return nil, err
			}
		}
		missing, ok := w.missing(s, all)
		if !ok {
			return s, nil
		}
		select {
		case <-s.Superseded():
			s = source.Snapshot()
		case <-ctx.Done():
			return nil, policy.Errorf(policy.Unavailable, "release %d of %s was asked for, or a newer one, and has not arrived here in time (%w); ask again, or see the log for why it is refused", missing.Revision, missing.Namespace, ctx.Err())
		}
	}
}

// together returns what all requests ask for that can be decided.
func together(rs []policy.Request) policy.Freshness {
	all := make([]policy.Freshness, 0, len(rs))
	for i := range rs {
		if f := rs[i].Freshness; f.Check() == nil {
			all = append(all, f)
		}
	}
	return policy.Freshness{}.And(all...)
}

// wanted is what requests ask for. A batch may name tens of thousands of releases:
// nothing here takes more time than in proportion to that.
type wanted struct {
	namespaces []policy.Namespace
	asked      map[policy.Namespace]bool // the same
	confirm    func(context.Context, policy.Namespace) (policy.Version, error)

	heads map[policy.Namespace]policy.Version // confirmed
	least map[policy.Namespace]policy.Version // must be held, or newer ones
}

// held returns what decides in the namespaces, by namespace.
func (w *wanted) held(s *Snapshot) map[policy.Namespace]policy.Version {
	all := map[policy.Namespace]policy.Version{}
	for _, n := range w.namespaces {
		if p := s.paths[n]; p != nil {
			for _, v := range p.versions {
				all[v.Namespace] = v
			}
		}
	}
	return all
}

// behind returns a release that was seen elsewhere, of which an older one decides
// here. Of what decides nothing there is none.
func (w *wanted) behind(s *Snapshot, seen []policy.Version) (policy.Version, bool) {
	if len(seen) == 0 {
		return policy.Version{}, false
	}
	held := w.held(s)
	for _, v := range seen {
		if h, ok := held[v.Namespace]; ok && !h.Reaches(v) {
			return v, true
		}
	}
	return policy.Version{}, false
}

// along returns the namespaces, and all that are on their paths.
func (w *wanted) along(s *Snapshot) []policy.Namespace {
	all := slices.Clone(w.namespaces)
	for n := range w.held(s) {
		if !w.asked[n] {
			all = append(all, n)
		}
	}
	return all
}

// sort returns the releases of tokens that what is held does not satisfy, and
// whether all heads are asked for.
func (w *wanted) sort(s *Snapshot, f policy.Freshness) (tokens []policy.Version, all bool, err error) {
	all = f.IsHead()
	held := w.held(s)
	for _, t := range f.Tokens() {
		v, err := t.Version()
		if err != nil {
			return nil, false, err
		}
		switch h, ok := held[v.Namespace]; {
		case !ok && !w.asked[v.Namespace], ok && v.Epoch < h.Epoch:
			all = true
		case !ok || !h.Reaches(v):
			tokens = append(tokens, v)
		}
	}
	return tokens, all, nil
}

// await returns once all releases of tokens have arrived, or it was found out that
// they are there, and are to be waited for. What has arrived needs nobody to confirm it.
func (w *wanted) await(ctx context.Context, source Source, s *Snapshot, tokens []policy.Version) (*Snapshot, error) {
	checking, stop := context.WithCancel(ctx)
	checked := make(chan error, 1)
	var work sync.WaitGroup
	work.Go(func() { checked <- w.check(checking, tokens) })
	defer work.Wait() // it writes to w
	defer stop()
	var ended <-chan struct{} // check ends with ctx, and says more
	for {
		select {
		case err := <-checked:
			if !errors.Is(err, errNoBeacons) {
				return s, err
			}
			ended = ctx.Done()
		case <-s.Superseded():
			if s = source.Snapshot(); w.arrived(s, tokens) {
				return s, nil
			}
		case <-ended:
			return nil, policy.Errorf(policy.Unavailable, "release %d of %s was asked for, or a newer one, and has not arrived here in time (%w); whether there is one nobody can say, as %v", tokens[0].Revision, tokens[0].Namespace, ctx.Err(), errNoBeacons)
		}
	}
}

// arrived reports whether the releases of all tokens decide, or newer ones of the same
// epoch: what a token of an earlier one asks for, check says.
func (w *wanted) arrived(s *Snapshot, tokens []policy.Version) bool {
	held := w.held(s)
	for _, v := range tokens {
		if h, ok := held[v.Namespace]; !ok || h.Epoch != v.Epoch || !h.Reaches(v) {
			return false
		}
	}
	return true
}

// check finds out which of the tokens are of releases that there are.
func (w *wanted) check(ctx context.Context, tokens []policy.Version) error {
	var namespaces []policy.Namespace
	for _, v := range tokens {
		namespaces = append(namespaces, v.Namespace)
	}
	if err := w.confirmAll(ctx, namespaces, nil); err != nil {
		return err
	}
	for _, v := range tokens {
		head := w.heads[v.Namespace]
		if !head.Reaches(v) {
			return policy.Errorf(policy.Failed, "there is no release %d of %s with that digest in epoch %d, whose newest is %d in epoch %d; use a token that a push has returned", v.Revision, v.Namespace, v.Epoch, head.Revision, head.Epoch)
		}
		if v.Epoch < head.Epoch {
			v = head
		}
		if v.Compare(w.least[v.Namespace]) > 0 {
			w.least[v.Namespace] = v
		}
	}
	return nil
}

// confirmAll has the heads of namespaces confirmed that were not yet. Of one that is
// not held, and does not exist, there is no head to wait for.
func (w *wanted) confirmAll(ctx context.Context, namespaces []policy.Namespace, held map[policy.Namespace]policy.Version) error {
	var left []policy.Namespace
	twice := make(map[policy.Namespace]bool)
	for _, n := range namespaces {
		if _, ok := w.heads[n]; !ok && !twice[n] {
			twice[n] = true
			left = append(left, n)
		}
	}
	if len(left) > 0 && w.confirm == nil {
		return policy.Errorf(policy.Unavailable, "what decides here does not follow NATS, so that nobody can say which release of %s is the newest; ask a PDP that does (microwall serve without --dir), or ask for no freshness", left[0])
	}
	heads := make([]policy.Version, len(left))
	group, ctx := errgroup.WithContext(ctx)
	for i, n := range left {
		group.Go(func() (err error) {
			heads[i], err = w.confirm(ctx, n)
			if _, decides := held[n]; held != nil && !decides && (policy.KindOf(err) == policy.NotFound || policy.KindOf(err) == policy.BadRequest) {
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, n := range left {
		w.heads[n] = heads[i]
	}
	return nil
}

// missing returns a release that must be held and is not, nor a newer one.
func (w *wanted) missing(s *Snapshot, all bool) (policy.Version, bool) {
	held := w.held(s)
	for n, least := range w.least {
		if _, ok := held[n]; !ok && !w.asked[n] {
			continue // no guardrail any more
		}
		if !held[n].Reaches(least) {
			return least, true
		}
	}
	if !all {
		return policy.Version{}, false
	}
	for n, h := range held {
		if head := w.heads[n]; !h.Reaches(head) {
			return head, true
		}
	}
	for _, n := range w.namespaces {
		if _, ok := held[n]; !ok && w.heads[n] != (policy.Version{}) {
			return w.heads[n], true
		}
	}
	return policy.Version{}, false
}
