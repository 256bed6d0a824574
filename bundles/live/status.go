package live

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

// Status is what one namespace is at.
type Status struct {
	// Namespace that this is about.
	Namespace policy.Namespace
	// Version that decides; its Revision is 0 if none does.
	Version policy.Version
	// Retired is true if that version retired the namespace.
	Retired bool
	// Since is when the version was activated here.
	Since time.Time
	// Refused is why the newest release that was offered is not the one that
	// decides; nil if it is.
	Refused error
	// Proven is the time of the newest beacon that proves that the version was
	// not behind; zero if none does.
	Proven time.Time
	// Age is how long ago that was, or [Forever].
	Age time.Duration
	// Unproven is why the last beacon about the namespace did not prove the
	// version; nil if it did, or if there was none.
	Unproven error
	// MaxStaleness is the age up to which the version is believed, and
	// WhenStale what happens after that. They are zero if no version decides.
	MaxStaleness time.Duration
	WhenStale    bundles.WhenStale
	// Stale is true if the version is older than that. It never is where the
	// trust file lists no keys that sign beacons.
	Stale bool
	// Undecided is why no request is decided in the namespace although the version
	// is held: a guardrail is not loaded. Nil if nothing is wrong.
	Undecided error
	// Outpaced says that the version will be stale again and again, or for good, as
	// beacons are not asked for here often enough; see [Config.ProvenEvery]. Nil if
	// they are.
	Outpaced error
}

// String says it in a line, for logs.
func (s Status) String() string {
	text := fmt.Sprintf("%s: revision %d of epoch %d", s.Namespace, s.Version.Revision, s.Version.Epoch)
	if s.Version.Revision == 0 {
		text = fmt.Sprintf("%s: no release", s.Namespace)
	}
	if s.Retired {
		text += ", retired"
	}
	if s.Age == Forever {
		text += ", never proven"
	} else {
		text += fmt.Sprintf(", proven %s ago", s.Age.Truncate(time.Millisecond))
	}
	if s.Stale {
		text += ", stale"
	}
	for _, about := range []struct {
		what string
		err  error
	}{{"refused", s.Refused}, {"unproven", s.Unproven}, {"undecided", s.Undecided}, {"outpaced", s.Outpaced}} {
		if about.err != nil {
			text += fmt.Sprintf(", %s: %v", about.what, about.err)
		}
	}
	return text
}

// Beacons counts what beacons said of namespaces that are followed here. One
// that was not believed at all counts once.
type Beacons struct {
	// Taken was newer than what was said before.
	Taken uint64
	// Ignored was replayed, older than what is held, or not believed.
	Ignored uint64
}

// Beacons returns how many beacons there were since the start.
func (l *Live) Beacons() Beacons {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.beacons
}

// Status returns every namespace that is held, of which something was refused,
// or of which a beacon has named a head that is not held, sorted.
func (l *Live) Status() []Status {
	now := l.config.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []Status
	for n, h := range l.held {
		s := Status{
			Namespace: n, Version: h.signed.Version(), Retired: h.program == nil, Since: h.since, Refused: l.refused[n],
			Unproven: l.beats[n].err,
		}
		s.MaxStaleness, s.WhenStale = l.trust.Staleness(h.signed.Release())
		t := h.proof.Load()
		if t != nil {
			s.Proven = t.beacon.Time()
		}
		age := t.age(now)
		s.Age, s.Stale = age, age > s.MaxStaleness && l.enforced()
		s.Outpaced = l.outpaced(h.signed)
		if _, err := l.Snapshot().Path(n); policy.KindOf(err) == policy.Unavailable {
			s.Undecided = err
		}
		all = append(all, s)
	}
	for n, err := range l.refused {
		if l.held[n] == nil {
			all = append(all, Status{Namespace: n, Refused: err, Age: Forever, Unproven: l.beats[n].err})
		}
	}
	for n, b := range l.beats {
		if l.held[n] == nil && l.refused[n] == nil {
			all = append(all, Status{Namespace: n, Age: Forever, Unproven: b.err})
		}
	}
	slices.SortFunc(all, func(a, b Status) int { return cmp.Compare(a.Namespace, b.Namespace) })
	return all
}

// Heads returns the newest release of each of some namespaces that is known here to
// have been the head: the one that is held, or one that a beacon named. Nil asks
// for all; of which nothing is known, there is none.
func (l *Live) Heads(some []policy.Namespace) map[policy.Namespace]policy.Version {
	l.mu.Lock()
	defer l.mu.Unlock()
	heads := make(map[policy.Namespace]policy.Version)
	look := func(n policy.Namespace) {
		if v := l.knownHead(n); v.Revision > 0 {
			heads[n] = v
		}
	}
	for _, n := range some {
		look(n)
	}
	if some == nil {
		for n := range l.held {
			look(n)
		}
		for n := range l.beats {
			look(n)
		}
	}
	return heads
}

// enforced reports whether releases can become stale: somebody could prove that
// they are not. l.mu must be held.
func (l *Live) enforced() bool { return len(l.trust.Beacons()) > 0 }
