package embedded

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/internal/decisionkey"
	"github.com/microwall/microwall/internal/filewatch"
	"github.com/microwall/microwall/internal/fleet"
	"github.com/microwall/microwall/internal/mutant"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// Config of a [Client]. NATS, TrustFile and Namespaces are required; a client of
// a directory has no NATS.
type Config struct {
	// Mode is how this client hears of releases. Zero is [Push].
	Mode Mode
	// NATS is the URL of the NATS server, or several of one cluster with
	// commas between.
	NATS string
	// Credentials is the file by which NATS knows this client, as `microwall
	// nats-config` makes it. "" shows none, and is for a NATS server that only
	// this machine reaches.
	Credentials string
	// TLS, if not nil, is insisted on. Nil takes the system's roots where NATS
	// has tls:// URLs. Beyond this machine one of the two is needed, or
	// Plaintext, in a mesh that encrypts.
	TLS       *tls.Config
	Plaintext bool
	// TrustFile is the path of trust.yaml. It is read again when it changes. It
	// is where this client begins: newer versions that were pushed, signed by the
	// roots of the one before, take its place.
	TrustFile string
	// Namespaces that this client decides, usually the service's one. Their
	// guardrails are followed with them.
	Namespaces []policy.Namespace
	// Instance names this process in `microwall status`: lower-case letters,
	// digits and hyphens. "" is a name that no other has.
	Instance string
	// Dir is where the last good releases are kept for a start without NATS.
	// It belongs to this client alone. "" keeps none.
	Dir string
	// Limits on requests.
	Limits policy.Limits
	// Bundles limits releases. Zero fields have their defaults.
	Bundles bundles.Limits
	// Policy limits evaluations.
	Policy rego.Options
	// Cache bounds the decision cache.
	Cache cache.Config
	// OnRelease is told what happens to releases, OnNATS what happens on the
	// connection. They must not block. Nil tells nobody.
	OnRelease func(live.Event)
	OnNATS    func(jetstream.Event)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Client decides in-process. It is safe for concurrent use.
type Client struct {
	config Config
	broker jetstream.ConnectOptions
	fault  *jetstream.Fault
	live   *live.Live
	cache  *cache.Cache
	keys   sync.Pool            // of *decisionkey.Builder
	view   atomic.Pointer[view] // of the newest snapshot that was decided by

	stop   context.CancelFunc
	work   sync.WaitGroup
	once   sync.Once
	synced chan struct{} // closed when NATS was asked for every namespace
	// trustChanged receives when another trust file is in force.
	trustChanged <-chan struct{}
	// changed receives when there may be something new to report to the fleet.
	changed <-chan struct{}
	// behind receives when a head was confirmed that is not held.
	behind chan struct{}

	// follower is the one of the moment.
	follower atomic.Pointer[jetstream.Follower]

	mu   sync.Mutex
	conn *nats.Conn
}

var _ policy.Authorizer = (*Client)(nil)

// New returns a client that decides. It returns at once if releases of all
// namespaces and their guardrails are on disk; otherwise when NATS, or the
// directory, was asked for each of them, whether there is one or not. If ctx ends before that, New
// fails, says what stands in the way, and leaves nothing behind. A client that
// started from disk says that in its [Status]. The client lives until [Client.Close].
func New(ctx context.Context, config Config) (*Client, error) {
	if len(config.Namespaces) == 0 {
		return nil, policy.Errorf(policy.BadRequest, "no namespace: name those that this client decides in Config.Namespaces")
	}
	if err := config.Mode.check(config); err != nil {
		return nil, err
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Instance == "" {
		config.Instance = strings.ToLower(rand.Text()[:12])
	}
	if err := jetstream.CheckInstance(config.Instance); err != nil {
		return nil, err
	}
	fault := new(jetstream.Fault)
	if tell := config.OnNATS; tell == nil {
		config.OnNATS = fault.Tell
	} else {
		config.OnNATS = func(e jetstream.Event) {
			fault.Tell(e)
			tell(e)
		}
	}
	broker := jetstream.ConnectOptions{Name: "microwall-embedded", TLS: config.TLS, Plaintext: config.Plaintext}
	if config.Mode.dir == "" {
		if err := broker.Check(config.NATS); err != nil {
			return nil, err
		}
	}
	if config.Credentials != "" {
		var err error
		if broker.Credentials, err = jetstream.LoadCredentials(config.Credentials); err != nil {
			return nil, err
		}
	}
	seen := filewatch.Look(config.TrustFile)
	trust, err := bundles.LoadTrust(config.TrustFile)
	if err != nil {
		return nil, err
	}
	trustChanged, changed := make(chan struct{}, 1), make(chan struct{}, 1)
	state, err := live.New(ctx, live.Config{
		Trust: trust, Namespaces: config.Namespaces, Dir: config.Dir, Bundles: config.Bundles,
		Policy: config.Policy, ProvenEvery: config.Mode.provenEvery(), Events: fleet.OnNews(changed, live.OnTrust(trustChanged, config.OnRelease)), Now: config.Now,
	})
	if err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	c := &Client{
		config: config, broker: broker, fault: fault, live: state, cache: cache.New(config.Cache), stop: stop, synced: make(chan struct{}), trustChanged: trustChanged, changed: changed,
		behind: make(chan struct{}, 1),
		keys:   sync.Pool{New: func() any { return new(decisionkey.Builder) }},
	}
	c.broker.Events = func(e jetstream.Event) {
		config.OnNATS(e)
		if f := c.follower.Load(); f != nil {
			f.Tell(e)
		}
	}
	failed := make(chan error, 1)
	c.work.Go(func() {
		if err := c.follow(running); err != nil && running.Err() == nil {
			failed <- err
		}
	})
	c.work.Go(func() { c.watchTrust(running, seen) })
	if c.complete() {
		return c, nil
	}
	select {
	case <-c.synced:
		return c, nil
	case err = <-failed:
	case <-ctx.Done():
		err = c.notStarted()
	}
	c.Close()
	return nil, err
}

// notStarted is the error of a client that has nothing to decide by when its time
// to start is over.
func (c *Client) notStarted() error {
	why := cmp.Or(c.fault.Err(), c.fault.Refused())
	if why == nil {
		why = errors.New("it is connected, and has not answered yet; allow more time")
	}
	return policy.Errorf(policy.Unavailable, "not all releases that decide in %v are on disk, and NATS at %s did not hand them out in time: %w", c.config.Namespaces, jetstream.Redacted(c.config.NATS), why)
}

// complete reports whether every namespace decides already.
func (c *Client) complete() bool {
	s := c.live.Snapshot()
	for _, n := range c.config.Namespaces {
		if _, err := s.Path(n); err != nil {
			return false
		}
	}
	return true
}

// follow brings releases until ctx ends, or until nothing is left to ask for.
func (c *Client) follow(ctx context.Context) error {
	if c.config.Mode.dir != "" {
		c.readDirectory(ctx)
		return nil
	}
	conn, err := jetstream.Connect(ctx, c.config.NATS, c.broker)
	if err != nil {
		return err
	}
	defer conn.Close()
	c.mu.Lock()
	c.conn = conn
	c.mu.Unlock()
	trust, stop, err := c.followTrust(ctx, conn)
	if err != nil {
		return err
	}
	defer stop()
	var reporting sync.WaitGroup
	defer reporting.Wait()
	ctx, end := context.WithCancel(ctx)
	defer end()
	reporting.Go(func() {
		fleet.Run(ctx, fleet.Config{
			Conn: conn, As: jetstream.Client, Domain: c.live.Trust().Domain(), Principal: c.broker.Credentials.Principal(), Instance: c.config.Instance,
			Role: "embedded", State: c.live, Changed: c.changed,
		})
	})
	// Another trust file may name other guardrails; then other namespaces are
	// to be followed.
	for ctx.Err() == nil {
		if done, err := c.followThese(ctx, conn, trust, c.live.Namespaces()); done || err != nil {
			return err
		}
	}
	return nil
}

// allAsked says that every namespace was asked for.
func (c *Client) allAsked() {
	c.live.Synced()
	c.once.Do(func() { close(c.synced) })
}

// followThese follows namespaces until others are to be followed or ctx ends, or
// it is done: that nothing is left to ask for.
func (c *Client) followThese(ctx context.Context, conn *nats.Conn, trust *jetstream.TrustFollower, these []policy.Namespace) (done bool, err error) {
	f, err := jetstream.NewFollower(jetstream.FollowConfig{
		Conn: conn, As: jetstream.Client, Domain: c.live.Trust().Domain(), Namespaces: these, Mode: c.config.Mode.by, Poll: c.config.Mode.every,
		Offer: c.offer, MaxPacked: c.config.Bundles.Packed, Events: c.config.OnNATS,
		Beacon: func(_ context.Context, _ policy.Namespace, note []byte) error {
			err := c.live.Prove(note)
			if errors.Is(err, live.ErrOlderTrust) {
				trust.Ask()
			}
			return err
		},
	})
	if err != nil {
		return false, err
	}
	c.follower.Store(f)
	round, end := context.WithCancel(ctx)
	defer end()
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() {
		synced := f.Synced()
		for {
			select {
			case <-synced:
				synced = nil
				c.allAsked()
			case <-c.trustChanged:
				if !slices.Equal(these, c.live.Namespaces()) {
					end()
				}
				f.Refresh() // what the old trust file refused, the new one may open
			case <-c.behind:
				f.Refresh()
			case <-round.Done():
				return
			}
		}
	})
	err = f.Run(round)
	if round.Err() != nil {
		return false, nil
	}
	end()
	if err == nil {
		c.allAsked() // a follower that is done is synced, too
	}
	return err == nil, err
}

func (c *Client) offer(ctx context.Context, note []byte, fetch func(context.Context) ([]byte, error)) error {
	return c.live.Offer(ctx, note, fetch)
}

// Close stops following and waits until nothing of the client runs any more.
// What was decided by it stays valid.
func (c *Client) Close() {
	c.stop()
	c.work.Wait()
	c.live.Close()
}

// Authorize decides one request by the newest releases, or hands out the
// decision that they made for the same request before. It waits for a release only
// if the request's Freshness asks for one: until ctx ends, or 15 seconds.
func (c *Client) Authorize(ctx context.Context, r policy.Request) (policy.Decision, error) {
	snapshot := c.live.Snapshot()
	if !r.Freshness.IsZero() {
		var err error
		if snapshot, err = c.fresh(ctx, r); err != nil {
			return policy.Decision{}, err
		}
	}
	now := c.config.Now()
	return c.decide(ctx, snapshot, &r, now, now)
}

// AuthorizeBatch decides requests by one snapshot and one time stamp. Whether what
// decides is stale is judged for each when it is begun: a batch may take longer
// than it is believed.
func (c *Client) AuthorizeBatch(ctx context.Context, rs []policy.Request) ([]policy.Result, error) {
	if err := c.config.Limits.CheckBatch(len(rs)); err != nil {
		return nil, err
	}
	snapshot, err := c.fresh(ctx, rs...)
	if err != nil {
		return nil, err
	}
	now := c.config.Now()
	results := make([]policy.Result, len(rs))
	for i := range rs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		results[i].Decision, results[i].Err = c.decide(ctx, snapshot, &rs[i], now, c.config.Now())
	}
	return results, nil
}

// decide decides a request whose policy is told that it is stamp, and which is
// begun at a time. Nothing that a request brings along ends its caller.
func (c *Client) decide(ctx context.Context, snapshot *live.Snapshot, r *policy.Request, stamp, begun time.Time) (d policy.Decision, err error) {
	defer func() {
		if r := recover(); r != nil {
			d, err = policy.Decision{}, policy.Errorf(policy.Internal, "deciding crashed: %v\n%s", r, debug.Stack())
		}
	}()
	if err := c.config.Limits.Check(r); err != nil {
		return policy.Decision{}, err
	}
	site, err := c.site(snapshot, r.Namespace)
	if err != nil {
		return policy.Decision{}, err
	}
	if d, err = c.look(ctx, site, r, stamp); err != nil {
		return policy.Decision{}, err
	}
	return site.path.Judge(d, begun), nil
}

// look returns what a site decides, or has decided before: how fresh that is, is
// not yet part of it.
func (c *Client) look(ctx context.Context, s *site, r *policy.Request, at time.Time) (policy.Decision, error) {
	stamp, path, w := rego.NewStamp(at), s.path, &s.worth
	measured := w.measured()
	if !measured && !w.pays() {
		return path.Decide(ctx, rego.NewInput(r, stamp))
	}
	var begun time.Time
	if measured {
		w.counted()
		begun = time.Now()
	}
	// The key is made of the versions that are going to decide, before they do.
	builder := c.keys.Get().(*decisionkey.Builder)
	defer c.keys.Put(builder)
	key := builder.Key(path.Layout(), r, stamp.Unix())
	d, ok := c.cache.Get(r.Namespace, key)
	if measured {
		w.found(ok)
		w.asking.add(time.Since(begun))
		begun = time.Now()
	}
	if ok && (!measured || w.evaluating.known()) {
		return d, nil
	}
	d, err := path.Decide(ctx, rego.NewInput(r, stamp))
	if mutant.ErrorCached && err != nil {
		c.cache.Put(r.Namespace, key, d)
	}
	if err != nil {
		return policy.Decision{}, err
	}
	if measured {
		w.evaluating.add(time.Since(begun))
	}
	if mutant.KeyAfterEvaluation {
		path, _ = c.live.Snapshot().Path(r.Namespace)
		key = builder.Key(path.Layout(), r, stamp.Unix())
	}
	c.cache.Put(r.Namespace, key, d)
	return d, nil
}
