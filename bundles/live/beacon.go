package live

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/staleness"
	"github.com/microwall/microwall/policy"
)

// quiet is how long a refused beacon is not followed by an event of another
// one: whoever can reach the subject can send as many as they like.
const quiet = time.Minute

// BeaconForkError says that a trusted beacon names another release than the
// one that is held, under the same revision. It carries both as evidence.
// Either two authors released at once through different stores, or somebody
// has an author's key, or the beacons'.
type BeaconForkError struct {
	Held   *bundles.Signed
	Beacon *bundles.SignedBeacon
}

// Error names both releases, who signed the one, and who vouched for the other.
func (e *BeaconForkError) Error() string {
	r := e.Held.Release()
	head, _ := e.Beacon.Head(r.Namespace)
	return fmt.Sprintf("fork: the beacon of %s by %s says that %s is %s, but %s (signed by %v) is held and stays; find out who signed both, and release again on top of one of them",
		e.Beacon.Time().Format(time.RFC3339), e.Beacon.Issuer(), r, head.Digest, e.Held.Digest(), e.Held.Signers())
}

// Unwrap returns an error of kind Conflict.
func (e *BeaconForkError) Unwrap() error {
	return &policy.Error{Kind: policy.Conflict, Message: e.Error()}
}

// Prove takes a signed beacon from wherever it comes. What it says of a
// namespace counts if its time is later than that of the last one, and no more
// than 30 seconds ahead of the clock here; then the release that is held is
// proven if it is the head that the beacon names. The same beacon again is no
// error.
//
// Otherwise nothing that decides changes. An error of kind policy.Unavailable
// says that a newer release is the head than the one that is held: ask for the
// head. The beacon is remembered, and proves that release when it comes. One
// of kind Conflict is a beacon that is older than the last one or names an older
// release than the one that is held or that the last one named, or a
// [*BeaconForkError]; Denied is one
// that is not trusted; BadRequest is anything else.
func (l *Live) Prove(note []byte) error {
	now := l.config.Now() // when it came
	events, err := l.prove(note, now)
	for _, e := range events {
		l.tell(e)
	}
	l.keepBeacons(now, false)
	return err
}

func (l *Live) prove(note []byte, now time.Time) ([]Event, error) {
	trust := l.Trust()
	b, err := trust.OpenBeacon(note)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && l.trust != trust { // it changed meanwhile
		b, err = l.trust.OpenBeacon(note)
	}
	if err != nil {
		return l.refuseBeacon(nil, "", err, now), err
	}
	return l.takeBeacon(b, now)
}

// ErrOlderTrust is in the error of a beacon that knows a newer trust file than the
// one in force here: whoever follows that asks for it.
var ErrOlderTrust = errors.New("the trust file in force here is not the newest")

// usable returns an error for a trusted beacon that can prove nothing here: one
// from the future, or of a time when a newer trust file had been pushed than the
// one in force here, as keys that this one lists may be gone, and guardrails may
// be missing. l.mu must be held.
func (l *Live) usable(b *bundles.SignedBeacon, now time.Time) error {
	at := b.Time().Format(time.RFC3339)
	if pushed, have := b.Trust(), l.trust.Version(); pushed > have {
		return policy.Errorf(policy.Unavailable, "%w: version %d of the trust file was pushed before %s, version %d is in force here; until it arrives, nothing is proven; if it does not, put it into place by hand (microwall trust pull)", ErrOlderTrust, pushed, at, have)
	}
	if ahead := b.Time().Sub(now); ahead > staleness.MaxAhead {
		return policy.Errorf(policy.BadRequest, "beacon of %s is %s ahead of the clock here, %s is the most; set the clock right, or that of the PDP", at, ahead.Round(time.Second), staleness.MaxAhead)
	}
	return nil
}

// takeBeacon takes what a beacon says. l.mu must be held.
func (l *Live) takeBeacon(b *bundles.SignedBeacon, now time.Time) (events []Event, _ error) {
	wanted := l.followed()
	useless := l.usable(b, now) // whatever it says
	var behind, wrong []error   // about the first, something can be done
	spoken := 0
	for _, head := range b.Heads() {
		if wanted != nil && !slices.Contains(wanted, head.Namespace) {
			continue
		}
		spoken++
		if useless != nil {
			beat := l.beats[head.Namespace]
			beat.err = useless
			l.beats[head.Namespace] = beat
			continue
		}
		var err error
		events, err = l.takeHead(events, b, head, now)
		switch {
		case err == nil:
		case policy.KindOf(err) == policy.Unavailable:
			behind = append(behind, err)
		default:
			wrong = append(wrong, err)
		}
	}
	switch {
	case spoken == 0:
		err := policy.Errorf(policy.BadRequest, "beacon of %s speaks of no namespace that is followed here", b.Time().Format(time.RFC3339))
		return l.refuseBeacon(events, "", err, now), err
	case useless != nil:
		return l.refuseBeacon(events, "", useless, now), useless
	}
	return events, one(append(behind, wrong...))
}

// one makes one error of several; its kind is that of the first one.
func one(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// takeHead takes what a beacon says of one namespace, and appends the events.
// l.mu must be held.
func (l *Live) takeHead(events []Event, b *bundles.SignedBeacon, head policy.Version, now time.Time) ([]Event, error) {
	n := head.Namespace
	beat, h := l.beats[n], l.held[n]
	again := false
	if beat.last != nil {
		switch order := b.Time().Compare(beat.last.beacon.Time()); {
		case order == 0 && head == beat.last.head:
			again = true
		case order <= 0:
			l.beacons.Ignored++
			return events, policy.Errorf(policy.Conflict, "beacon of %s about %s is not later than the last one, of %s", b.Time().Format(time.RFC3339), n, beat.last.beacon.Time().Format(time.RFC3339))
		}
	}
	order := 1
	if h != nil {
		order = head.Compare(h.signed.Version())
	}
	switch before := l.knownHead(n); {
	case head.Compare(before) < 0:
		// Whoever signed it does not know what was the head already.
		beat.err = policy.Errorf(policy.Conflict, "beacon of %s names revision %d of epoch %d as the head of %s, which is older than revision %d of epoch %d, which was the head before", b.Time().Format(time.RFC3339), head.Revision, head.Epoch, n, before.Revision, before.Epoch)
		l.beats[n] = beat
		l.beacons.Ignored++
		return events, beat.err
	case order == 0 && head.Digest != h.signed.Digest():
		beat.err = &BeaconForkError{Held: h.signed, Beacon: b}
		l.beats[n] = beat
		return l.refuseBeacon(events, n, beat.err, now), beat.err
	}
	known := beat.last != nil && beat.last.head == head
	if !again {
		beat.last = newTaken(b, head, now)
		l.beatsChanged = true
		l.beacons.Taken++
	}
	if order > 0 {
		beat.err = policy.Errorf(policy.Unavailable, "revision %d of epoch %d is the head of %s since %s or before; it is not loaded yet", head.Revision, head.Epoch, n, b.Time().Format(time.RFC3339))
		l.beats[n] = beat
		if !known {
			e := Behind{Head: head}
			if h != nil {
				e.Held = h.signed.Version()
			}
			events = append(events, e)
		}
		return events, beat.err
	}
	most, _ := l.trust.Staleness(h.signed.Release())
	if stale := h.proof.Load().age(now) > most; !h.proven || stale && beat.last.age(now) <= most {
		events = append(events, Proven{Version: head, Time: b.Time()})
	}
	h.proven = true
	beat.proof, beat.err = beat.last, nil
	l.beats[n] = beat
	h.proof.Store(beat.proof)
	return events, nil
}

// knownHead returns the newest release of n that is known to have been the head:
// the one that is held, or the one that the last beacon named. Its Revision is 0
// if there is none. l.mu must be held.
func (l *Live) knownHead(n policy.Namespace) (v policy.Version) {
	if h := l.held[n]; h != nil {
		v = h.signed.Version()
	}
	if t := l.beats[n].last; t != nil && t.head.Compare(v) > 0 {
		v = t.head
	}
	return v
}

// Beacon returns the note of the newest beacon that was taken of n, if it names
// what [Live.Heads] does, and else nil: with it, others learn what the head was.
func (l *Live) Beacon(n policy.Namespace) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.beats[n].last; t != nil && t.head == l.knownHead(n) {
		return t.beacon.Note()
	}
	return nil
}

// muted says when an event told last that beacons were refused, and how many
// were since.
type muted struct {
	told time.Time
	more int
}

// refuseBeacon counts a beacon that is not believed, and appends an event
// unless there was one lately. n is "" if it is not known whom the beacon is
// about. l.mu must be held.
func (l *Live) refuseBeacon(events []Event, n policy.Namespace, err error, now time.Time) []Event {
	l.beacons.Ignored++
	m := l.muted[n]
	if !m.told.IsZero() && now.Sub(m.told) < quiet {
		m.more++
		l.muted[n] = m
		return events
	}
	l.muted[n] = muted{told: now}
	return append(events, BeaconRefused{Namespace: n, Err: err, More: m.more})
}
