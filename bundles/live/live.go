package live

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/mutant"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// Config of a [Live] state. Trust is required.
type Config struct {
	// Trust says who may sign what. If newer versions were offered and kept in
	// Dir, those count; see [Live.OfferTrust].
	Trust *bundles.Trust
	// Namespaces that are decided here; their guardrails are loaded with
	// them. Nil is every namespace of the domain.
	Namespaces []policy.Namespace
	// Dir is where the last good releases are kept. It belongs to this
	// process alone. "" keeps none.
	Dir string
	// Bundles limits what is unpacked.
	Bundles bundles.Limits
	// Policy limits evaluations.
	Policy rego.Options
	// ProvenEvery is how old a beacon may be at most when the next one comes, by the
	// way that they come here. Zero is soon enough for any release, and [Forever]
	// says that none comes.
	ProvenEvery time.Duration
	// Events is told what happens; nil tells nobody.
	Events func(Event)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Live holds the newest verified release of each namespace and hands out
// snapshots of them. It is safe for concurrent use.
type Live struct {
	config Config
	keep   *keep
	events sync.Mutex // one event at a time
	// unpacking bounds the bytes of all bundles that are unpacked and compiled
	// at once to what one may have.
	unpacking *semaphore.Weighted

	trusting sync.Mutex // held while a trust file is put in force and kept

	mu    sync.Mutex // guards what follows; never held while compiling
	trust *bundles.Trust
	// pushed is the newest version of the trust file that was pushed.
	pushed uint64
	held   map[policy.Namespace]*held
	// dropped are releases that a trust file stopped from deciding: what takes
	// their place must still be no older.
	dropped map[policy.Namespace]*bundles.Signed
	refused map[policy.Namespace]error
	beats   map[policy.Namespace]beat
	beacons Beacons
	// beatsChanged is true if beats are not what was written to disk last.
	beatsChanged bool
	muted        map[policy.Namespace]muted
	turns        map[policy.Namespace]*sync.Mutex // see turn
	synced       bool

	newest

	keeping     sync.Mutex // one writer of beacons at a time; it guards what follows
	keptBeacons time.Time
	keptErr     error
}

// held is a release that was verified and compiled.
type held struct {
	signed  *bundles.Signed
	program *rego.Program // nil if retired
	since   time.Time
	proof   *proof
	proven  bool // by a beacon that names this very release
}

// New returns a state that decides by the last good releases in config.Dir,
// each verified and compiled again; one that fails is an event and is left out.
// ctx bounds the loading. The error is about the configuration: a trust file
// older than the one of an earlier run, or a directory that cannot be used.
func New(ctx context.Context, config Config) (*Live, error) {
	if config.Trust == nil {
		return nil, policy.Errorf(policy.BadRequest, "no trust file: nothing is accepted without one")
	}
	if config.Events == nil {
		config.Events = func(Event) {}
	}
	config.Bundles = config.Bundles.WithDefaults()
	if config.Now == nil {
		config.Now = time.Now
	}
	for _, n := range config.Namespaces {
		if _, err := policy.ParseNamespace(string(n)); err != nil {
			return nil, err
		}
		if n.Domain() != config.Trust.Domain() {
			return nil, policy.Errorf(policy.BadRequest, "namespace %s is not in the domain %s of the trust file", n, config.Trust.Domain())
		}
	}
	keep, err := openKeep(config.Dir)
	if err != nil {
		return nil, err
	}
	trust, stopped := keep.newestTrust(config.Trust)
	if err := keep.trust(trust); err != nil {
		return nil, errors.Join(err, stopped)
	}
	l := &Live{
		config:    config,
		unpacking: semaphore.NewWeighted(config.Bundles.Unpacked),
		keep:      keep,
		trust:     trust,
		held:      make(map[policy.Namespace]*held),
		dropped:   make(map[policy.Namespace]*bundles.Signed),
		refused:   make(map[policy.Namespace]error),
		beats:     make(map[policy.Namespace]beat),
		muted:     make(map[policy.Namespace]muted),
		turns:     make(map[policy.Namespace]*sync.Mutex),
	}
	if note, err := keep.readTrustNote(trust.Version()); err == nil && config.Dir != "" {
		l.wasPushed(trust, note)
	}
	if stopped != nil {
		l.tell(Refused{Err: fmt.Errorf("trust file kept on disk: %w", stopped)})
	}
	l.swap()
	l.loadBeacons()
	return l, l.load(ctx)
}

// Limits returns the limits on bundles that are taken.
func (l *Live) Limits() bundles.Limits { return l.config.Bundles }

// Trust returns the trust file in force.
func (l *Live) Trust() *bundles.Trust {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trust
}

// Namespaces returns the namespaces to be followed: the configured ones and
// their guardrails, sorted. Nil is every namespace of the domain.
func (l *Live) Namespaces() []policy.Namespace {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.followed()
}

// followed is Namespaces with l.mu held.
func (l *Live) followed() []policy.Namespace {
	if l.config.Namespaces == nil {
		return nil
	}
	all := make(map[policy.Namespace]bool)
	for _, n := range l.config.Namespaces {
		all[n] = true
		for _, g := range l.trust.Guardrails(n) {
			all[g] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// Synced says that every followed namespace has been asked for: from now on one
// that is not there has no release, where before it was only not loaded yet.
func (l *Live) Synced() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.synced {
		l.synced = true
		l.swap()
	}
}

// Fetch gets the packed bundle of a release that was found worth having.
type Fetch func(ctx context.Context) ([]byte, error)

// Candidate is a release that was verified and compiled, and may be activated.
type Candidate struct {
	signed  *bundles.Signed
	bundle  *bundles.Bundle // nil if retired
	program *rego.Program
	packed  []byte
	trust   *bundles.Trust
	arrived time.Time
	// fromDisk is true for one that was kept.
	fromDisk bool
	// proven is the beacon that named it as the head before it came.
	proven *taken
}

// Signed returns the verified release.
func (c *Candidate) Signed() *bundles.Signed { return c.signed }

// Bundle returns the verified bundle, nil if the release retires its namespace.
func (c *Candidate) Bundle() *bundles.Bundle { return c.bundle }

// Packed returns the bytes that the bundle was unpacked from.
func (c *Candidate) Packed() []byte { return c.packed }

// Offer takes a signed release from wherever it comes: it is verified, and
// decides if it is newer than what is held. One that is held already is no
// error. ctx bounds the fetch; a refusal changes nothing.
func (l *Live) Offer(ctx context.Context, note []byte, fetch Fetch) error {
	c, err := l.prepare(ctx, note, fetch)
	if err == nil {
		err = l.Activate(c)
	}
	if err == nil || errors.Is(err, bundles.ErrSame) {
		return nil
	}
	if ctx.Err() == nil {
		l.refuse(namespaceOf(c, err), err)
	}
	return err
}

// Prepare does the first half of [Live.Offer] and changes nothing: it verifies,
// fetches and compiles beside what decides. A release that is held already is
// [bundles.ErrSame].
func (l *Live) Prepare(ctx context.Context, note []byte, fetch Fetch) (*Candidate, error) {
	c, err := l.prepare(ctx, note, fetch)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// prepare returns as much of a candidate as it got to know beside an error.
func (l *Live) prepare(ctx context.Context, note []byte, fetch Fetch) (*Candidate, error) {
	c := &Candidate{arrived: l.config.Now(), trust: l.Trust()}
	var err error
	if c.signed, err = c.trust.Open(note); err != nil {
		return c, err
	}
	if err := l.follows(c.signed); err != nil {
		return c, err
	}
	return c, l.open(ctx, c, fetch)
}

// follows reports whether a release may replace what is held.
func (l *Live) follows(next *bundles.Signed) error {
	n := next.Release().Namespace
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isFollowed(n) {
		return notFollowed(n)
	}
	return l.order(next)
}

// isFollowed reports whether releases of n are taken. l.mu must be held.
func (l *Live) isFollowed(n policy.Namespace) bool {
	wanted := l.followed()
	return wanted == nil || slices.Contains(wanted, n)
}

func notFollowed(n policy.Namespace) error {
	return policy.Errorf(policy.BadRequest, "namespace %s is not followed here", n)
}

// order reports whether a release may replace what is held, or come back after
// it was dropped. l.mu must be held.
func (l *Live) order(next *bundles.Signed) error {
	if mutant.OldHeadApplied {
		return nil
	}
	n := next.Release().Namespace
	if h := l.held[n]; h != nil {
		return bundles.Follow(h.signed, next)
	}
	err := bundles.Follow(l.dropped[n], next)
	if errors.Is(err, bundles.ErrSame) {
		return nil
	}
	return err
}

// open fetches and compiles what a verified release speaks of.
func (l *Live) open(ctx context.Context, c *Candidate, fetch Fetch) error {
	r := c.signed.Release()
	if r.Canary != 0 || !r.Patch.IsZero() {
		return policy.Errorf(policy.BadRequest, "release %d of %s is a canary or a patch, which this version does not know; upgrade it, or release without", r.Revision, r.Namespace)
	}
	if r.Retired() {
		return nil
	}
	var err error
	if c.packed, err = fetch(ctx); err != nil {
		return fmt.Errorf("bundle of release %d of %s: %w", r.Revision, r.Namespace, err)
	}
	// More than one bundle may have is refused by Unpack; it waits for all.
	share := min(r.Size, l.config.Bundles.Unpacked)
	if err := l.unpacking.Acquire(ctx, share); err != nil {
		return err
	}
	defer l.unpacking.Release(share)
	if c.bundle, err = c.signed.Unpack(bytes.NewReader(c.packed), l.config.Bundles); err != nil {
		return err
	}
	if n := c.bundle.Namespace(); n != "" && n != r.Namespace {
		return policy.Errorf(policy.BadRequest, "release %d of %s carries a bundle that names the namespace %s in its .manifest", r.Revision, r.Namespace, n)
	}
	c.program, err = rego.Compile(ctx, SourceOf(c.bundle), l.config.Policy)
	return err
}

// Activate does the second half of [Live.Offer]: the candidate decides from now
// on, unless something newer came first. It is kept on disk before it does, so
// that a crash takes nobody back who was answered by it; if it cannot be kept,
// it decides all the same, and the failure is an event.
//
// If the same release or a newer one came first, the error says so when that
// one has been kept: whoever then tells an author that it decides does not take
// it back by a crash.
func (l *Live) Activate(c *Candidate) error {
	turn := l.turn(c.signed.Release().Namespace)
	turn.Lock()
	defer turn.Unlock()
	if err := l.mayHold(c); err != nil {
		return err
	}
	notKept := l.keep.write(c.signed, c.packed)
	if err := l.activate(c); err != nil {
		return err
	}
	l.activated(c)
	if notKept != nil {
		l.tell(NotKept{Version: c.signed.Version(), Err: notKept})
	}
	return nil
}

// mayHold is what hold checks.
func (l *Live) mayHold(c *Candidate) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.takes(c)
}

// activated tells that a candidate decides.
func (l *Live) activated(c *Candidate) {
	l.tell(Activated{Version: c.signed.Version(), Bundle: c.signed.Release().Bundle, FromDisk: c.fromDisk, Took: l.config.Now().Sub(c.arrived)})
	l.mu.Lock()
	slow := l.outpaced(c.signed)
	l.mu.Unlock()
	if slow != nil {
		l.tell(Outpaced{Version: c.signed.Version(), Err: slow})
	}
	if c.proven != nil {
		l.tell(Proven{Version: c.signed.Version(), Time: c.proven.beacon.Time()})
	}
}

// outpaced returns an error if a release becomes stale before the next beacon has
// to have come. l.mu must be held.
func (l *Live) outpaced(r *bundles.Signed) error {
	most, when := l.trust.Staleness(r.Release())
	every, n := l.config.ProvenEvery, r.Release().Namespace
	then := "its decisions say so"
	if when == bundles.Deny {
		then = "everything is denied"
	}
	switch {
	case every <= most || !l.enforced():
		return nil
	case every == Forever:
		return policy.Errorf(policy.BadRequest, "beacons do not go on coming here, and the release of %s is believed for %s after its last one: then %s; follow NATS, or let its authors and the trust file allow more (max-staleness)", n, most, then)
	}
	return policy.Errorf(policy.BadRequest, "beacons are asked for so seldom here that the last one may be %s old, and the release of %s is believed for %s after it: then %s until the next one; ask more often, or follow NATS", every, n, most, then)
}

// turn is held while a release of n is activated and kept: one at a time, or an
// older one might be written over a newer one.
func (l *Live) turn(n policy.Namespace) *sync.Mutex {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.turns[n] == nil {
		l.turns[n] = new(sync.Mutex)
	}
	return l.turns[n]
}

func (l *Live) activate(c *Candidate) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.hold(c); err != nil {
		return err
	}
	l.swap()
	return nil
}

// hold makes a candidate the release of its namespace that the next snapshot
// has. l.mu must be held.
func (l *Live) hold(c *Candidate) error {
	if err := l.takes(c); err != nil {
		return err
	}
	n := c.signed.Release().Namespace
	delete(l.dropped, n)
	h := &held{signed: c.signed, program: c.program, since: l.config.Now(), proof: l.proofOf(c.signed.Version())}
	if t := h.proof.Load(); t != nil && t.head == c.signed.Version() && !c.fromDisk {
		h.proven, c.proven = true, t
	}
	l.held[n] = h
	delete(l.refused, n)
	return nil
}

// takes reports whether a candidate may be held by the trust file in force and
// beside what is held. l.mu must be held.
func (l *Live) takes(c *Candidate) error {
	if l.trust != c.trust {
		// The trust file changed while this was compiled.
		signed, err := l.trust.Open(c.signed.Note())
		if err != nil {
			return err
		}
		if n := signed.Release().Namespace; !l.isFollowed(n) {
			return notFollowed(n)
		}
		c.signed, c.trust = signed, l.trust
	}
	return l.order(c.signed)
}

// swap makes a snapshot of what is held. l.mu must be held, or l be new.
func (l *Live) swap() {
	units := make(map[policy.Namespace]unit, len(l.held))
	for n, h := range l.held {
		u := unit{version: h.signed.Version(), program: h.program}
		if l.enforced() {
			u.limit = &limit{namespace: n, proof: h.proof}
			u.limit.most, u.limit.when = l.trust.Staleness(h.signed.Release())
		}
		units[n] = u
	}
	refused := maps.Clone(l.refused)
	synced, domain, wanted := l.synced, l.trust.Domain(), l.config.Namespaces
	decides := func(n policy.Namespace) bool { return wanted == nil || slices.Contains(wanted, n) }
	l.replace(newSnapshot(l.trust.Version(), units, decides, l.trust.Guardrails, func(n policy.Namespace) error {
		switch {
		case n.Domain() != domain:
			return policy.Errorf(policy.NotFound, "namespace %s is not in the domain %s that is decided here", n, domain)
		case !decides(n):
			return policy.Errorf(policy.BadRequest, "namespace %s is not one of those that this client was configured to decide", n)
		case refused[n] != nil:
			return policy.Errorf(policy.Unavailable, "no release of namespace %s could be loaded: %w", n, refused[n])
		case !synced:
			return policy.Errorf(policy.Unavailable, "namespace %s is not loaded yet; ask again", n)
		}
		return unknown(n)
	}))
}

// maxRefused bounds how many namespaces that are not held are remembered as
// refused: their names may come from whoever can reach the head subject.
const maxRefused = 1024

// refuse records why a release was not accepted.
func (l *Live) refuse(n policy.Namespace, err error) {
	if n != "" && !isOld(err) {
		l.mu.Lock()
		if l.held[n] != nil || len(l.refused) < maxRefused {
			l.refused[n] = err
		}
		if l.held[n] == nil {
			l.swap() // the reason is part of what a request is told
		}
		l.mu.Unlock()
	}
	l.tell(Refused{Namespace: n, Err: err})
}

func (l *Live) tell(e Event) {
	l.events.Lock()
	defer l.events.Unlock()
	l.config.Events(e)
}

// namespaceOf returns the namespace that a refused release was meant for, as
// far as it is known. Of one that did not open it is the release's own claim.
func namespaceOf(c *Candidate, err error) policy.Namespace {
	if c.signed != nil {
		return c.signed.Release().Namespace
	}
	if unverified, ok := errors.AsType[*bundles.UnverifiedError](err); ok {
		return unverified.Release.Namespace
	}
	return ""
}
