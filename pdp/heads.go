package pdp

import (
	"cmp"
	"errors"
	"slices"
	"sync"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/policy"
)

// heads are the releases that a log has delivered, as far as they were signed by
// those who may and follow each other. What is wrong is an alarm.
type heads struct {
	live  *live.Live
	alarm func(HeadDoubted)
	came  chan struct{} // has room for one: a namespace is new

	mu    sync.Mutex
	trust *bundles.Trust // by which they were opened
	all   map[policy.Namespace]*head
	told  map[policy.Namespace]string // the last alarm of those that are doubted
	// fresh are the namespaces that got their first head since all were looked at.
	fresh []policy.Namespace
}

// head is what is known of one namespace.
type head struct {
	// signed is the newest that opened and followed, nil if none has. It outlives
	// a reading of the log, so that none goes back.
	signed *bundles.Signed
	// here is true if this reading has delivered it.
	here bool
	// doubt is why it may not be the head: another was stored, which does not
	// open, and claims to come after it. claimed is where the highest of those
	// stands, by its own word.
	doubt   error
	claimed policy.Version
}

func newHeads(state *live.Live, alarm func(HeadDoubted)) *heads {
	return &heads{live: state, alarm: alarm, came: make(chan struct{}, 1), all: map[policy.Namespace]*head{}, told: map[policy.Namespace]string{}}
}

// begin begins a reading, in which everything is opened by the trust file that
// is in force now. What did not open by another one is no doubt any more: if it
// is the newest, it is delivered again.
func (h *heads) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := h.trust
	h.trust = h.live.Trust()
	for _, one := range h.all {
		one.here = false
		if last != h.trust {
			one.doubt = nil
		}
	}
}

// take takes the note of a head that was delivered.
func (h *heads) take(ns policy.Namespace, note []byte) {
	h.mu.Lock()
	one := h.all[ns]
	if one == nil {
		one = &head{}
		h.all[ns] = one
	}
	first := one.signed == nil
	err := one.order(h.trust, ns, note)
	if first && one.signed != nil {
		h.fresh = append(h.fresh, ns)
		select {
		case h.came <- struct{}{}:
		default: // it will be looked at already
		}
	}
	h.mu.Unlock()
	h.tell(ns, err)
}

// order puts a head behind the one before it.
func (one *head) order(trust *bundles.Trust, ns policy.Namespace, note []byte) error {
	signed, err := trust.Open(note)
	if err != nil {
		return one.unopened(trust, ns, err)
	}
	if got := signed.Release().Namespace; got != ns {
		return policy.Errorf(policy.BadRequest, "a release of %s was stored as the head of %s", got, ns)
	}
	err = bundles.Follow(one.signed, signed)
	if err != nil && !errors.Is(err, bundles.ErrSame) {
		return err
	}
	one.signed, one.here = signed, true
	if signed.Version().Compare(one.claimed) >= 0 {
		one.doubt = nil
	}
	return nil
}

// unopened takes a head that did not open. Another PDP may have a newer trust
// file, by which it does, and have told its author that it is the head: if it
// comes after the one before by its own word, or says nothing that can be read
// here, what is the head is not known until that place is taken by one that
// opens, or there is another trust file.
//
// Whoever may write to the head stream can make one up, and so have nothing said
// of a namespace. They can as well by what they may do besides: no release is
// taken on top of a head that does not open, and a process that starts then has
// nothing to say either; and they need only tick to keep everybody from issuing.
// The way out is the same, and is in the error.
func (one *head) unopened(trust *bundles.Trust, ns policy.Namespace, err error) error {
	claim := policy.Version{Epoch: 1, Revision: 1}
	if one.signed != nil {
		claim = one.signed.Version()
		claim.Revision++
	}
	if unverified, ok := errors.AsType[*bundles.UnverifiedError](err); ok {
		r := unverified.Release
		if r.Namespace != ns {
			return err // no author's, by whatever trust file
		}
		claim.Epoch, claim.Revision = r.Epoch, r.Revision
	}
	if one.signed != nil && claim.Compare(one.signed.Version()) <= 0 {
		return err // it was the head once, or never
	}
	if one.doubt == nil || claim.Compare(one.claimed) > 0 {
		one.claimed = claim
		one.doubt = policy.Errorf(policy.Unavailable, "what was stored as the head of %s, revision %d of epoch %d if its own word is true, does not open by the trust file in force here (version %d): what is the head is not known; put the newest trust file into place here, or, if nobody has released that, raise the epoch in the trust file and push again: %w", ns, claim.Revision, claim.Epoch, trust.Version(), err)
	}
	return one.doubt
}

// outdated reports whether another trust file is in force than the one that the
// heads were opened by.
func (h *heads) outdated() bool {
	trust := h.live.Trust()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.trust != nil && h.trust != trust
}

// at returns what this reading has delivered as the head of a namespace, the zero
// Version if nothing. The error says why what is the head is not known: something
// else was stored that may be it, or the store has less than was known to be there
// (the zero Version if nothing was) before the tick was committed. h.mu must be
// held.
func (h *heads) at(ns policy.Namespace, known policy.Version) (policy.Version, error) {
	one := h.all[ns]
	if one != nil && one.doubt != nil {
		return policy.Version{}, one.doubt
	}
	if one == nil || !one.here {
		if known.Revision == 0 {
			return policy.Version{}, nil
		}
		return policy.Version{}, policy.Errorf(policy.Conflict, "the store has no head of %s that can be believed, but revision %d of epoch %d was there; push again, in a new epoch", ns, known.Revision, known.Epoch)
	}
	v := one.signed.Version()
	switch order := v.Compare(known); {
	case order < 0:
		return policy.Version{}, policy.Errorf(policy.Conflict, "the head of %s in the store is revision %d of epoch %d, older than revision %d of epoch %d, which was there: the store has lost releases, or hides them; push again, in a new epoch", ns, v.Revision, v.Epoch, known.Revision, known.Epoch)
	case order == 0 && v.Digest != known.Digest:
		return policy.Version{}, policy.Errorf(policy.Conflict, "fork: revision %d of %s is %s in the store, but %s was there; find out who signed both, and release again on top of one of them", v.Revision, ns, v.Digest, known.Digest)
	}
	return v, nil
}

// found is what is known of the heads at a tick.
type found struct {
	heads  []policy.Version // sorted
	doubts map[policy.Namespace]error
}

// now returns the heads of some namespaces, nil for all. known are those that
// were known before the tick was committed.
func (h *heads) now(some []policy.Namespace, known map[policy.Namespace]policy.Version) found {
	f := found{doubts: map[policy.Namespace]error{}}
	h.mu.Lock()
	look := func(ns policy.Namespace) {
		switch v, err := h.at(ns, known[ns]); {
		case err != nil:
			f.doubts[ns] = err
		case v.Revision > 0:
			f.heads = append(f.heads, v)
		}
	}
	for _, ns := range some {
		look(ns)
	}
	if some == nil {
		h.fresh = nil
		for ns := range h.all {
			look(ns)
		}
		for ns := range known {
			if h.all[ns] == nil {
				look(ns)
			}
		}
	}
	h.mu.Unlock()
	for _, v := range f.heads {
		h.tell(v.Namespace, nil)
	}
	for ns, err := range f.doubts {
		h.tell(ns, err)
	}
	slices.SortFunc(f.heads, func(a, b policy.Version) int { return cmp.Compare(a.Namespace, b.Namespace) })
	return f
}

// takeNew returns the namespaces that got their first head since all were looked
// at, or since it was called last.
func (h *heads) takeNew() []policy.Namespace {
	h.mu.Lock()
	defer h.mu.Unlock()
	fresh := h.fresh
	h.fresh = nil
	return fresh
}

// tell raises an alarm, once as long as it stays the same.
func (h *heads) tell(ns policy.Namespace, err error) {
	h.mu.Lock()
	told := h.told[ns]
	if err == nil {
		delete(h.told, ns)
	} else {
		h.told[ns] = err.Error()
	}
	h.mu.Unlock()
	if err != nil && told != err.Error() {
		h.alarm(HeadDoubted{Namespace: ns, Err: err})
	}
}
