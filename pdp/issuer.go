package pdp

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/policy"
)

const (
	// DefaultInterval is how often beacons are issued unless configured.
	DefaultInterval = 5 * time.Second
	// silence is for how many intervals there is no tick before an issuer that
	// stands by takes over.
	silence = 3
	// newIn is how many parts of an interval lie between two rounds for what is
	// new, at least.
	newIn = 20
	// maxAhead is how far from the broker's clock an issuer's may be.
	maxAhead = 30 * time.Second
	// leaveTimeout bounds the word that this issuer stops.
	leaveTimeout = time.Second
)

// IssuerConfig configures an [Issuer]. Live, Store and Key are required.
type IssuerConfig struct {
	// Live has the trust file in force, and what this process holds.
	Live *live.Live
	// Store is where ticks are committed and beacons stored.
	Store *jetstream.Store
	// Key signs beacons. The trust file must list it under beacons, see
	// [CheckBeaconKey]; while it does not, nothing is issued.
	Key note.Signer
	// Name under which this process issues: the same after a restart, and no
	// other's. Whoever reads the head stream can see it.
	Name string
	// Interval between beacons. Zero is [DefaultInterval].
	Interval time.Duration
	// Waiting is how many may wait in [Issuer.Confirm] at once; more are
	// refused. Zero is 4,096.
	Waiting int
	// Events is told what was issued and what is wrong, NATS what happens to
	// the log; nil tells nobody.
	Events func(Event)
	NATS   func(jetstream.Event)
	// Now is the clock, After that of the intervals; nil are time.Now and
	// time.After.
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time
}

// Issuer signs beacons: the statements that at a time these releases were the
// heads of their namespaces, one beacon a namespace. Of several issuers in a
// domain one issues; the others stand by until there was no tick for three
// intervals, by their own clocks, or the one has said that it stops. One whose
// clock is more than 30 seconds from the broker's says so after every round, so
// that it goes on only if there is no other.
//
// Every interval there is a beacon of each namespace, and of one that is new
// without waiting for that.
//
// It believes signatures, and the order in which its own log delivers the head
// stream. What does not follow the head before it is no head and an alarm; the one
// before stays the head. Of a namespace where something was stored that does not
// open, and that may come after what does, it says nothing: the trust file in
// force here may not be the newest. Nor of one whose head in the store is older or
// another than what this process knew before the tick, as it held it or heard it
// from another issuer: then the store is not to be believed. So that whoever takes
// over knows better as well, whatever is on their disk, it stores the newest beacon
// that it has of such a namespace again, every interval; and before it signs
// anything, and whenever it takes over, it reads those that there are. It says
// nothing at all while a newer trust file was pushed than the one in force.
type Issuer struct {
	config IssuerConfig
	heads  *heads
	log    *jetstream.Log
	wake   chan struct{} // has room for one: somebody waits to be confirmed
	ended  chan struct{} // closed when Run has returned
	off    bool          // the clock is; of the loop that issues
	reigns bool          // no other has issued since the beacons were read; of that loop

	mu      sync.Mutex
	checked *bundles.Trust // lists the key
	told    string         // what the last event was about
	learned bool           // the beacons that there were have been read
	waiting []*confirmation
}

// NewIssuer returns an issuer that does nothing before Run.
func NewIssuer(c IssuerConfig) (*Issuer, error) {
	if c.Live == nil || c.Store == nil || c.Key == nil {
		return nil, policy.Errorf(policy.BadRequest, "the issuer of beacons needs a state, a store and a key")
	}
	if c.Interval == 0 {
		c.Interval = DefaultInterval
	}
	if c.Waiting == 0 {
		c.Waiting = 4096
	}
	if c.Interval < 0 || c.Waiting < 0 {
		return nil, policy.Errorf(policy.BadRequest, "beacons are issued every %s, and %d may wait for one; neither may be negative", c.Interval, c.Waiting)
	}
	if c.Events == nil {
		c.Events = func(Event) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.After == nil {
		c.After = time.After
	}
	i := &Issuer{config: c, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	i.heads = newHeads(c.Live, func(e HeadDoubted) { c.Events(e) })
	var err error
	i.log, err = jetstream.NewLog(jetstream.LogConfig{
		Store: c.Store, Issuer: c.Name, Begin: i.heads.begin, Take: i.heads.take, Now: c.Now, Events: c.NATS,
	})
	return i, err
}

// CheckBeaconKey returns nil if the trust file opens beacons that the key signs,
// and otherwise a policy.Denied error that says how to list it.
func CheckBeaconKey(trust *bundles.Trust, key note.Signer) error {
	signed, err := bundles.SignBeacon(bundles.Beacon{Domain: trust.Domain(), Time: time.Unix(0, 0)}, key)
	if err == nil {
		_, err = trust.OpenBeacon(signed)
	}
	if err != nil {
		return policy.Errorf(policy.Denied, "the trust file (version %d) does not list the key %s under beacons, or another one of that name; add its public key under keys, %q to the list beacons, and raise version: %w",
			trust.Version(), key.Name(), key.Name(), err)
	}
	return nil
}

// Run issues, or stands by, until ctx ends, which is no error, or the
// connection to NATS is closed. It may be called once.
func (i *Issuer) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer close(i.ended)
	defer work.Wait()
	defer cancel()
	work.Go(func() { i.issueLoop(ctx) })
	work.Go(func() { i.confirmLoop(ctx) })
	return i.log.Run(ctx)
}

// issueLoop issues until ctx ends, and says then that it stops.
func (i *Issuer) issueLoop(ctx context.Context) {
	for {
		next, err := i.issue(ctx, nil)
		if err != nil && ctx.Err() == nil {
			i.tell(err.Error(), IssueFailed{Err: err})
		}
		if i.issueNew(ctx, i.config.After(next)) != nil {
			_ = i.leave(ctx) // or the others notice by themselves
			return
		}
	}
}

// leave says that this process issues no more.
func (i *Issuer) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	return i.log.Leave(ctx)
}

// issueNew waits until the next round is due, or ctx ends. A namespace that gets
// its first release meanwhile is not left without proof until then: it may deny
// all that time.
func (i *Issuer) issueNew(ctx context.Context, due <-chan time.Time) error {
	came := i.heads.came
	var pause <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-due:
			return nil
		case <-pause:
			came = i.heads.came
		case <-came:
			some := i.heads.takeNew()
			if len(some) == 0 {
				continue
			}
			// If it fails, so does the next round, which says so.
			_, _ = i.issue(ctx, some)
			came, pause = nil, i.config.After(i.config.Interval/newIn)
		}
	}
}

// issue does one round for some namespaces, nil for all, and returns when the next
// one for all is due.
func (i *Issuer) issue(ctx context.Context, some []policy.Namespace) (next time.Duration, err error) {
	begun := i.config.Now()
	if err := i.ready(); err != nil {
		return i.config.Interval / 5, err
	}
	var wait time.Duration // for another issuer
	at, now, err := i.tick(ctx, some, func() (*jetstream.IssuerTick, error) {
		last, err := i.log.LastTick(ctx)
		if err != nil {
			return nil, err
		}
		i.reigns = i.reigns && last.Own
		if wait = i.yieldsTo(last); wait > 0 {
			return nil, errStandsBy
		}
		if !i.reigns {
			if err := i.learn(ctx); err != nil {
				return nil, err
			}
			i.reigns = true
		}
		return &last, nil
	})
	switch {
	case errors.Is(err, errStandsBy):
		return min(wait, i.config.Interval), nil
	case policy.KindOf(err) == policy.Conflict:
		i.reigns = false
		return i.config.Interval / 5, nil // the winner's tick is in the log in a moment
	case err != nil:
		return i.config.Interval / 5, err
	}
	beacons := make([]jetstream.Beacon, 0, len(now.heads))
	for _, v := range now.heads {
		signed, err := i.sign(at, v)
		if err != nil {
			return i.config.Interval / 5, err
		}
		beacons = append(beacons, jetstream.Beacon{Namespace: v.Namespace, Note: signed})
	}
	issued := len(beacons)
	for ns, doubt := range now.doubts {
		if before := i.config.Live.Beacon(ns); before != nil && policy.KindOf(doubt) == policy.Conflict {
			beacons = append(beacons, jetstream.Beacon{Namespace: ns, Note: before})
		}
	}
	if err := i.config.Store.PutBeacons(ctx, beacons); err != nil {
		return i.config.Interval / 5, err
	}
	i.tell("issues", Issuing{})
	i.config.Events(Issued{Time: at, Namespaces: issued, Took: i.config.Now().Sub(begun)})
	return i.config.Interval, i.yield(ctx)
}

// errStandsBy says that another process issues.
var errStandsBy = errors.New("another process issues beacons")

// yieldsTo returns how long it stands by, if the newest tick is another's.
func (i *Issuer) yieldsTo(last jetstream.IssuerTick) time.Duration {
	left := silence*i.config.Interval - i.config.Now().Sub(last.At)
	if last.Issuer == "" || last.Own || left <= 0 {
		return 0
	}
	i.tell("stands by "+last.Issuer, StandingBy{Issuer: last.Issuer})
	return left
}

// yield leaves the next round to another issuer, if there is one, when the clock
// here is far from the broker's: nobody may believe what is signed by it, and all
// would wait for those who have the right time, and stand by. If it is the
// broker's clock that is wrong, all yield, and each is there for the others.
func (i *Issuer) yield(ctx context.Context) error {
	ahead := i.log.Ahead()
	off := ahead.Abs() > maxAhead
	if off != i.off {
		i.off = off
		if off {
			i.config.Events(ClockOff{Ahead: ahead})
		}
	}
	if !off {
		return nil
	}
	return i.leave(ctx)
}

// learn takes the newest beacons that there are: another may have known newer heads
// than this process, and than the store has now. What is wrong with one of them is
// an event of what takes it.
func (i *Issuer) learn(ctx context.Context) error {
	all, err := i.config.Store.Beacons(ctx)
	if err != nil {
		return err
	}
	for _, b := range all {
		_ = i.config.Live.Prove(b.Note)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.learned = true
	return nil
}

// learnOnce does so unless it was done since the start: afterwards they are heard.
func (i *Issuer) learnOnce(ctx context.Context) error {
	i.mu.Lock()
	learned := i.learned
	i.mu.Unlock()
	if learned {
		return nil
	}
	return i.learn(ctx)
}

// tick has a tick committed after the one that follow returns, see
// [jetstream.Log.Tick], and returns the heads at it of some namespaces, nil
// for all, and a time before it. If another trust file came meanwhile, or was
// pushed, what was read by the one before may have left heads out that were taken
// by it: then all is read again, and another tick is committed.
func (i *Issuer) tick(ctx context.Context, some []policy.Namespace, follow func() (*jetstream.IssuerTick, error)) (at time.Time, f found, err error) {
	for {
		after, err := follow()
		if err != nil {
			return at, f, err
		}
		// What is known here came from the store: whatever is committed to the log
		// later comes after it.
		known, outdated := i.config.Live.Heads(some), false
		err = i.log.Tick(ctx, after, func(since time.Time) {
			if outdated = i.heads.outdated() || i.behind() != nil; !outdated {
				at, f = since, i.heads.now(some, known)
			}
		})
		if err != nil || !outdated {
			return at, f, err
		}
		if err := i.ready(); err != nil {
			return at, found{}, err
		}
	}
}

func (i *Issuer) sign(at time.Time, head policy.Version) ([]byte, error) {
	// A trust file that was pushed after the time is no harm: it is in force
	// everywhere in a moment.
	return bundles.SignBeacon(bundles.Beacon{Domain: head.Namespace.Domain(), Time: at, Trust: i.config.Live.PushedTrust(), Heads: []policy.Version{head}}, i.config.Key)
}

// behind returns an error if a newer trust file was pushed than the one in force:
// what that one opens would be left out here, and an older head vouched for. Where
// the one in force lists no roots, none can follow it.
func (i *Issuer) behind() error {
	trust := i.config.Live.Trust()
	roots, _ := trust.Roots()
	if pushed, have := i.log.AnnouncedTrust(), trust.Version(); pushed > have && len(roots) > 0 {
		return policy.Errorf(policy.Unavailable, "version %d of the trust file was pushed, version %d is in force here: what is the head is not known until it arrives; if it does not, put it into place by hand (microwall trust pull), or, if there is none, push the newest there is again (microwall trust push)", pushed, have)
	}
	return nil
}

// ready returns an error if the trust file in force does not list the key, or is
// not the newest, and has everything opened again that was opened by another one.
func (i *Issuer) ready() error {
	if err := i.behind(); err != nil {
		return err
	}
	trust := i.config.Live.Trust()
	i.mu.Lock()
	listed := i.checked == trust
	i.mu.Unlock()
	if !listed {
		if err := CheckBeaconKey(trust, i.config.Key); err != nil {
			return err
		}
		i.mu.Lock()
		i.checked = trust
		i.mu.Unlock()
	}
	if i.heads.outdated() {
		i.log.Again()
	}
	return nil
}

// tell tells an event if the one before was about something else.
func (i *Issuer) tell(about string, e Event) {
	i.mu.Lock()
	same := i.told == about
	i.told = about
	i.mu.Unlock()
	if !same {
		i.config.Events(e)
	}
}
