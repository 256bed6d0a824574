package pdp

import (
	"bytes"
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

	mu    sync.Mutex
	trust *bundles.Trust // by which they were opened
	all   map[policy.Namespace]*head
	told  map[policy.Namespace]string // the last alarm of those that are doubted
}

// head is what is known of one namespace.
type head struct {
	// signed is the newest that opened and followed. It outlives a reading of
	// the log, so that none goes back.
	signed *bundles.Signed
	// here is true if this reading has delivered it.
	here bool
}

func newHeads(state *live.Live, alarm func(HeadDoubted)) *heads {
	return &heads{live: state, alarm: alarm, all: map[policy.Namespace]*head{}, told: map[policy.Namespace]string{}}
}

// begin begins a reading, in which everything is opened by the trust file that
// is in force now.
func (h *heads) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trust = h.live.Trust()
	for _, one := range h.all {
		one.here = false
	}
}

// take takes the note of a head that was delivered.
func (h *heads) take(ns policy.Namespace, note []byte) {
	h.mu.Lock()
	err := h.order(ns, note)
	h.mu.Unlock()
	h.tell(ns, err)
}

// order puts a head behind the one before it. h.mu must be held.
func (h *heads) order(ns policy.Namespace, note []byte) error {
	signed, err := h.trust.Open(note)
	if err != nil {
		return err
	}
	if got := signed.Release().Namespace; got != ns {
		return policy.Errorf(policy.BadRequest, "a release of %s was stored as the head of %s", got, ns)
	}
	one := h.all[ns]
	if one == nil {
		one = &head{}
		h.all[ns] = one
	}
	err = bundles.Follow(one.signed, signed)
	if err == nil || errors.Is(err, bundles.ErrSame) {
		one.signed, one.here = signed, true
		return nil
	}
	return err
}

// outdated reports whether another trust file is in force than the one that the
// heads were opened by.
func (h *heads) outdated() bool {
	trust := h.live.Trust()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.trust != nil && h.trust != trust
}

// held returns what this process decides by. It came from the store: whatever is
// committed to the log later comes after it.
func (h *heads) held() map[policy.Namespace]policy.Version {
	held := map[policy.Namespace]policy.Version{}
	for _, s := range h.live.Status() {
		if s.Version.Revision > 0 {
			held[s.Namespace] = s.Version
		}
	}
	return held
}

// now returns the heads, sorted: those that this reading has delivered, and that
// are none older or other than what was held when the tick was committed.
func (h *heads) now(held map[policy.Namespace]policy.Version) []policy.Version {
	var all []policy.Version
	doubts := map[policy.Namespace]error{}
	h.mu.Lock()
	for ns, one := range h.all {
		if !one.here {
			continue
		}
		v := one.signed.Version()
		has, ok := held[ns]
		switch order := v.Compare(has); {
		case ok && order < 0:
			doubts[ns] = policy.Errorf(policy.Conflict, "the head of %s in the store is revision %d of epoch %d, older than revision %d of epoch %d, which is held here: the store has lost releases, or hides them; push again, in a new epoch", ns, v.Revision, v.Epoch, has.Revision, has.Epoch)
		case ok && order == 0 && v.Digest != has.Digest:
			doubts[ns] = policy.Errorf(policy.Conflict, "fork: revision %d of %s is %s in the store, but %s is held here; find out who signed both, and release again on top of one of them", v.Revision, ns, v.Digest, has.Digest)
		default:
			all = append(all, v)
		}
	}
	for ns, has := range held {
		if one := h.all[ns]; one == nil || !one.here && doubts[ns] == nil {
			doubts[ns] = policy.Errorf(policy.Conflict, "the store has no head of %s that can be believed, but revision %d of epoch %d is held here; push again, in a new epoch", ns, has.Revision, has.Epoch)
		}
	}
	h.mu.Unlock()
	for _, v := range all {
		h.tell(v.Namespace, nil)
	}
	for ns, err := range doubts {
		h.tell(ns, err)
	}
	slices.SortFunc(all, func(a, b policy.Version) int { return bytes.Compare([]byte(a.Namespace), []byte(b.Namespace)) })
	return all
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
