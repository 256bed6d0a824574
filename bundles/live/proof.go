package live

import (
	"sync/atomic"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/staleness"
	"github.com/microwall/microwall/policy"
)

// Forever is the age of what was never proven.
const Forever = staleness.Forever

// taken is what a beacon that was taken says of one namespace.
type taken struct {
	beacon *bundles.SignedBeacon
	head   policy.Version
	// origin is when, by the clock here, its age was zero. It has the monotonic
	// reading of when it came.
	origin time.Time
}

// newTaken says that a beacon came now. One that is from the future has no age.
func newTaken(b *bundles.SignedBeacon, head policy.Version, now time.Time) *taken {
	return &taken{beacon: b, head: head, origin: staleness.Origin(b.Time(), now)}
}

// age returns how long it is since the beacon's time.
func (t *taken) age(now time.Time) time.Duration {
	if t == nil {
		return Forever
	}
	return staleness.Age(t.origin, now)
}

// covers reports whether no newer release than v was there at the beacon's
// time: v is the head that it names, or comes after it.
func (t *taken) covers(v policy.Version) bool {
	if t == nil {
		return false
	}
	return v.Reaches(t.head)
}

// proof is the newest beacon that covers one release; nil if none does. All
// paths that the release is part of share it, so that a beacon needs no new
// snapshot.
type proof struct{ atomic.Pointer[taken] }

// beat is what beacons say of one namespace, whatever is held of it.
type beat struct {
	// last is the newest that was taken; none older is.
	last *taken
	// proof is the newest that covers what is held. It is not last while a
	// newer release is known than the one that is held.
	proof *taken
	// err is why the last one that spoke of it proved nothing.
	err error
}

// proofOf returns the proof of a release that begins to decide: the newest
// beacon that covers it. l.mu must be held.
func (l *Live) proofOf(v policy.Version) *proof {
	b := l.beats[v.Namespace]
	switch {
	case b.last.covers(v):
		b.proof, b.err = b.last, nil
	case !b.proof.covers(v):
		b.proof = nil
	}
	if b.last != nil {
		l.beats[v.Namespace] = b
	}
	p := new(proof)
	p.Store(b.proof)
	return p
}

// reprove forgets the beacons that the trust file in force does not open, and
// those of namespaces that are not followed any more. l.mu must be held.
func (l *Live) reprove(followed func(policy.Namespace) bool) {
	l.beatsChanged = true
	for n, b := range l.beats {
		if !followed(n) {
			delete(l.beats, n)
			continue
		}
		if b.last == b.proof {
			b.last = l.reopen(b.last)
			b.proof = b.last
		} else {
			b.last, b.proof = l.reopen(b.last), l.reopen(b.proof)
		}
		if b.last == nil {
			b.last = b.proof
		}
		if b.last == nil {
			delete(l.beats, n)
			continue
		}
		l.beats[n] = b
	}
}

func (l *Live) reopen(t *taken) *taken {
	if t == nil {
		return nil
	}
	b, err := l.trust.OpenBeacon(t.beacon.Note())
	if err != nil {
		return nil
	}
	return &taken{beacon: b, head: t.head, origin: t.origin}
}
