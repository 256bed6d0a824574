package remote

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/microwall/microwall/internal/decisionkey"
	"github.com/microwall/microwall/internal/mutant"
	"github.com/microwall/microwall/internal/staleness"
	"github.com/microwall/microwall/policy"
)

const (
	// maxWatched is how many namespaces are watched. Decisions of others are asked
	// for each time.
	maxWatched = 1000
	// maxSeen is of how many namespaces the newest version is known that was seen.
	maxSeen = 16 * maxWatched
)

// known is what a client knows of what decides: the newest version that it has
// seen of each namespace, by whomever, and what a watch says of some of them. It
// is safe for concurrent use.
type known struct {
	spaces atomic.Pointer[map[policy.Namespace]*space] // replaced whole
	added  chan struct{}                               // has one when there is another namespace to watch

	mu      sync.Mutex
	seen    map[policy.Namespace]policy.Version
	trust   map[string]uint64 // the newest version of the trust file, by domain
	ignored uint64
	closed  bool
}

// space is what is known of one namespace that is watched.
type space struct {
	namespace policy.Namespace
	// current is what decides there, nil if that is not known: nothing was told,
	// nothing decides, or a newer version was seen than what was told.
	current atomic.Pointer[state]

	// Of known.mu: what was told last, and before that with another layout.
	newest, before *state
	err            error // why nothing decides
	behind         bool  // what was told last is older than what was seen
}

// state is what decides in a namespace, as a watch said. It is immutable.
type state struct {
	trust  uint64 // version of the trust file
	layout *decisionkey.Layout
	limits []limit // of those versions that become stale
}

// limit is for how long a version is believed without proof.
type limit struct {
	namespace policy.Namespace
	most      time.Duration
	deny      bool
	// proven is the time of the newest beacon that proves it, and origin when,
	// by the clock here, that had no age; zero if none does.
	proven, origin time.Time
}

func (l *limit) age(now time.Time) time.Duration {
	if l.proven.IsZero() {
		return staleness.Forever
	}
	return staleness.Age(l.origin, now)
}

// stale reports whether anything has been without proof for too long.
func (s *state) stale(now time.Time) bool {
	for i := range s.limits {
		if l := &s.limits[i]; l.age(now) > l.most {
			return true
		}
	}
	return false
}

// judge returns what is handed out of a decision.
func (s *state) judge(d policy.Decision, now time.Time) policy.Decision {
	if !s.stale(now) {
		return d
	}
	path := make([]staleness.Believed, len(s.limits))
	for i := range s.limits {
		l := &s.limits[i]
		path[i] = staleness.Believed{Namespace: l.namespace, Age: l.age(now), Most: l.most, Deny: l.deny}
	}
	return staleness.Judge(d, s.layout.Versions(), path, now)
}

// made reports whether a decision is one by this state's versions and engine.
func (s *state) made(d *policy.Decision) bool {
	return s != nil && d.Evaluation.Engine == s.layout.Engine() && slices.Equal(d.Versions, s.layout.Versions())
}

// older returns one of the versions that is older than what is asked for of its
// namespace, and that.
func older(versions, least []policy.Version) (held, want policy.Version, ok bool) {
	for _, v := range versions {
		for _, w := range least {
			if v.Namespace == w.Namespace && !v.Reaches(w) {
				return v, w, true
			}
		}
	}
	return policy.Version{}, policy.Version{}, false
}

func newKnown() *known {
	k := &known{added: make(chan struct{}, 1), seen: map[policy.Namespace]policy.Version{}, trust: map[string]uint64{}}
	k.spaces.Store(&map[policy.Namespace]*space{})
	return k
}

// current returns what decides in a namespace, nil if that is not known.
func (k *known) current(n policy.Namespace) *state {
	if s := (*k.spaces.Load())[n]; s != nil {
		return s.current.Load()
	}
	return nil
}

// watch has a namespace watched, if there is room.
func (k *known) watch(n policy.Namespace) {
	if (*k.spaces.Load())[n] != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	all := *k.spaces.Load()
	if k.closed || all[n] != nil || len(all) >= maxWatched {
		return
	}
	all = maps.Clone(all)
	all[n] = &space{namespace: n}
	k.spaces.Store(&all)
	select {
	case k.added <- struct{}{}:
	default:
	}
}

// watched returns the namespaces that are to be watched, sorted.
func (k *known) watched() []policy.Namespace {
	return slices.Sorted(maps.Keys(*k.spaces.Load()))
}

// close forgets what decides, for good.
func (k *known) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	k.spaces.Store(&map[policy.Namespace]*space{})
}

// seenOf returns the newest versions that were seen of a namespace and those above
// it, each of which may decide there, and that of the trust file.
func (k *known) seenOf(n policy.Namespace) (all []policy.Version, trust uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	trust = k.trust[n.Domain()]
	for ; n != ""; n = n.Parent() {
		if v, ok := k.seen[n]; ok {
			all = append(all, v)
		}
	}
	return all, trust
}

// saw says which versions have decided, and by which version of the trust file, 0 if
// that is not known.
func (k *known) saw(versions []policy.Version, trust uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(versions) > 0 {
		k.advance(versions[0].Namespace, versions, trust)
	}
}

// advance is saw, of what was said of a namespace. k.mu must be held.
func (k *known) advance(n policy.Namespace, versions []policy.Version, trust uint64) {
	moved := false
	// One trust file is that of all namespaces on a path.
	if last, ok := k.trust[n.Domain()]; trust > last && (ok || len(k.trust) < maxSeen) {
		k.trust[n.Domain()] = trust
		moved = true
	}
	for _, v := range versions {
		// Those that nobody released, and folders decide by, have no order.
		last, ok := k.seen[v.Namespace]
		if v.Revision == 0 || ok && v.Compare(last) <= 0 || !ok && len(k.seen) >= maxSeen {
			continue
		}
		k.seen[v.Namespace] = v
		moved = true
	}
	if !moved {
		return
	}
	for _, s := range *k.spaces.Load() {
		if now := s.current.Load(); now != nil && k.outdated(s.namespace, now.layout.Versions(), now.trust) {
			s.behind = true
			s.current.Store(nil)
		}
	}
}

// outdated reports whether a newer version was seen than one of these, by which a
// namespace is decided, or another one of the same number, or a newer version of the
// trust file. k.mu must be held.
func (k *known) outdated(n policy.Namespace, versions []policy.Version, trust uint64) bool {
	if trust < k.trust[n.Domain()] {
		return true
	}
	for _, v := range versions {
		if last, ok := k.seen[v.Namespace]; ok && !v.Reaches(last) {
			return true
		}
	}
	return false
}

// fail takes why nothing decides in a namespace, as a watch says by a version of the
// trust file.
func (k *known) fail(n policy.Namespace, why error, trust uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := (*k.spaces.Load())[n]
	if s == nil {
		return // forgotten
	}
	s.err, s.behind = why, false
	s.current.Store(nil)
	k.advance(n, policy.VersionsOf(why), trust)
}

// tell takes what decides in a namespace, as a watch says.
func (k *known) tell(n policy.Namespace, told *state) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := (*k.spaces.Load())[n]
	if s == nil {
		return // forgotten
	}
	if k.outdated(n, told.layout.Versions(), told.trust) {
		// The PDP is behind others. What was told before stands as it is.
		k.ignored++
		s.behind = true
		return
	}
	told.keepProofs(s.newest)
	switch last := s.newest; {
	case last == nil:
	case last.layout.Equal(told.layout):
		told.layout = last.layout
	default:
		s.before = last
		if mutant.OldPathsFiled {
			told.layout = decisionkey.New(told.layout.Engine(), told.layout.Versions(), last.layout.Reads())
		}
	}
	k.advance(n, told.layout.Versions(), told.trust)
	s.newest, s.err, s.behind = told, nil, false
	s.current.Store(told)
}

// keepProofs takes over what a state before knew of the same versions: what was
// proven once stays so, and its age does not shrink when it is told again. Another trust
// file may not believe who has proven it.
func (s *state) keepProofs(last *state) {
	if last == nil || s.trust != last.trust || !slices.Equal(s.layout.Versions(), last.layout.Versions()) {
		return
	}
	for i := range s.limits {
		l := &s.limits[i]
		at := slices.IndexFunc(last.limits, func(m limit) bool { return m.namespace == l.namespace })
		if at < 0 || last.limits[at].proven.IsZero() || last.limits[at].proven.Before(l.proven) {
			continue
		}
		if m := last.limits[at]; m.proven.After(l.proven) || m.origin.Before(l.origin) {
			l.proven, l.origin = m.proven, m.origin
		}
	}
}

// maker returns the state by whose versions and engine a decision of a namespace
// was made: the newest that was told, or the one before.
func (k *known) maker(n policy.Namespace, d *policy.Decision) *state {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := (*k.spaces.Load())[n]
	switch {
	case s == nil:
		return nil
	case s.newest.made(d):
		return s.newest
	case s.before.made(d):
		return s.before
	}
	return nil
}

// behind reports whether anything that was told last is older than what was seen.
func (k *known) behind() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range *k.spaces.Load() {
		if s.behind {
			return true
		}
	}
	return false
}
