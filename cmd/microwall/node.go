package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/filewatch"
	"github.com/microwall/microwall/internal/fleet"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/policy"
)

const (
	// natsStart bounds the start of the NATS server: a large store is read.
	natsStart = time.Minute
	// storeRetry is the pause between attempts to reach the store.
	storeRetry = time.Second
	// look is how often files are looked at for changes.
	look = 500 * time.Millisecond
	// sweepEvery is the least time between two rounds of sweeping.
	sweepEvery = 15 * time.Minute
)

// node is what a server decides with.
type node struct {
	source   live.Source
	releases *pdp.Releases                                                          // nil where folders decide
	confirm  func(context.Context, policy.Namespace) (*bundles.SignedBeacon, error) // nil if nobody can say
	nats     string                                                                 // where clients find NATS, "" if they do not
	ready    <-chan struct{}                                                        // closed once there is something to decide by
	// cutOff reports whether nothing new arrives, for want of NATS; nil where it
	// is not needed.
	cutOff  func() bool
	closers []func()
}

func (n *node) close() {
	for _, c := range slices.Backward(n.closers) {
		c()
	}
}

// startNode decides by signed releases: a NATS server of its own or elsewhere,
// the store in it, and the state that follows it.
func startNode(ctx context.Context, f serveFlags, o *observer, run func(func(context.Context) error)) (_ *node, err error) {
	seen := filewatch.Look(f.trust)
	trust, err := bundles.LoadTrust(f.trust)
	if err != nil {
		return nil, err
	}
	n := &node{nats: f.natsURL}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	broker, err := f.brokerOptions(o)
	if err != nil {
		return nil, err
	}
	fault := new(jetstream.Fault)
	broker.Events = func(e jetstream.Event) {
		fault.Tell(e)
		o.nats(e)
	}
	config := jetstream.StoreConfig{Domain: trust.Domain(), Replicas: f.replicas(), MaxBytes: f.store, Keep: f.keep, MaxPacked: f.bundles.Packed, Events: o.nats}
	if f.natsURL == "" {
		natsSeen := lookAtNATSConfig(f.natsConfig)
		server, err := startNATS(ctx, f, trust.Domain(), &broker, o)
		if err != nil {
			return nil, err
		}
		n.closers = append(n.closers, server.Shutdown)
		run(server.Run)
		if f.natsConfig != "" {
			run(func(ctx context.Context) error { return watchNATSConfig(ctx, f.natsConfig, natsSeen, server, o) })
		}
		n.nats = server.URL()
		if f.store == 0 { // no more than the server has on a small volume
			config.MaxBytes = min(server.MaxBytes(), jetstream.DefaultMaxBytes)
		}
	}
	config.Conn, err = jetstream.Connect(ctx, n.nats, broker)
	if err != nil {
		return nil, err
	}
	n.closers = append(n.closers, config.Conn.Close)
	trustChanged, changed := make(chan struct{}, 1), make(chan struct{}, 1)
	state, err := live.New(ctx, live.Config{
		Trust: trust, Dir: filepath.Join(f.dataDir, "releases"), Bundles: f.bundles, Policy: f.policy,
		Events: fleet.OnNews(changed, live.OnTrust(trustChanged, o.live)),
	})
	if err != nil {
		return nil, err
	}
	n.closers = append(n.closers, state.Close)
	o.registry.MustRegister(ages{state})
	follow := newFollowing(config, state, trustChanged, o)
	follow.fault, follow.anonymous = fault, f.natsURL != "" && f.broker.creds == ""
	switch {
	case f.beaconKey != "":
		if follow.issuer, err = f.issuer(state, o); err != nil {
			return nil, err
		}
	case len(state.Trust().Beacons()) > 0:
		o.log.Warn("the trust file lists keys that sign beacons, and this PDP has none of them: unless another one runs with --beacon-key, every release is stale, and denied where it says so; make a key with `microwall keygen`, list it under beacons, and start with --beacon-key")
	}
	if f.natsURL == "" {
		// A server of our own is there, or something is wrong.
		if err := follow.open(ctx); err != nil {
			return nil, err
		}
	}
	n.source = state
	n.releases = pdp.NewReleases(pdp.ReleasesConfig{Live: state, Store: follow.reached, Events: o.pdp})
	n.confirm = follow.confirm
	n.cutOff = func() bool { return !config.Conn.IsConnected() || follow.store.Load() == nil }
	n.ready = follow.ready
	run(follow.run)
	run(func(ctx context.Context) error {
		// What is said before there are streams is lost.
		select {
		case <-follow.opened:
		case <-ctx.Done():
			return nil
		}
		fleet.Run(ctx, fleet.Config{
			Conn: config.Conn, As: jetstream.PDP, Domain: trust.Domain(), Principal: broker.Credentials.Principal(), Instance: f.instance,
			Role: "pdp", Software: "microwall " + readVersion().Version, State: state, Changed: changed,
		})
		return nil
	})
	run(func(ctx context.Context) error { follow.watchTrust(ctx, f.trust, seen); return nil })
	run(func(ctx context.Context) error { o.watchAges(ctx, state); return nil })
	return n, nil
}

// following brings what is released into a state.
type following struct {
	config   jetstream.StoreConfig
	state    *live.Live
	observer *observer
	store    atomic.Pointer[jetstream.Store] // nil until it has been reached
	opened   chan struct{}                   // closed then
	fault    *jetstream.Fault                // why it has not
	openErr  atomic.Pointer[error]           // of the last attempt to open it
	// anonymous is true if this process has no file of credentials to show to
	// servers that run elsewhere.
	anonymous bool
	// ready is closed once the store was asked for every release, or at once if
	// there are releases on disk.
	ready chan struct{}
	once  sync.Once // closes ready
	// trustChanged receives when another trust file is in force.
	trustChanged <-chan struct{}
	// issuer is how beacons are issued, once there is a store; its Key is nil if
	// they are not.
	issuer pdp.IssuerConfig
}

func newFollowing(config jetstream.StoreConfig, state *live.Live, trustChanged <-chan struct{}, o *observer) *following {
	f := &following{config: config, state: state, observer: o, opened: make(chan struct{}), ready: make(chan struct{}), trustChanged: trustChanged}
	if len(state.Snapshot().Versions()) > 0 {
		f.setReady()
	}
	return f
}

func (f *following) setReady() { f.once.Do(func() { close(f.ready) }) }

// open opens the store.
func (f *following) open(ctx context.Context) error {
	s, err := jetstream.OpenStore(ctx, f.config)
	if err != nil {
		f.openErr.Store(&err)
		return err
	}
	f.store.Store(s)
	close(f.opened)
	if f.anonymous && !f.config.Conn.AuthRequired() {
		f.observer.log.Warn("whoever reaches this NATS server may do everything there, without credentials: hold up releases, and remove them; run it by the file that `microwall nats-config` writes, and start with --nats-creds", "url", f.config.Conn.ConnectedUrlRedacted())
	}
	return nil
}

// reached returns the store, or why it has not been reached yet.
func (f *following) reached() (*jetstream.Store, error) {
	if s := f.store.Load(); s != nil {
		return s, nil
	}
	if err := cmp.Or(f.fault.Err(), f.fault.Refused()); err != nil {
		return nil, err
	}
	if err := f.openErr.Load(); err != nil {
		return nil, *err
	}
	return nil, policy.Errorf(policy.Unavailable, "it has not answered yet; try again")
}

// run reaches the store, however long that takes, and then follows it until ctx
// ends.
func (f *following) run(ctx context.Context) error {
	for f.store.Load() == nil {
		err := f.open(ctx)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was told to end
		case policy.KindOf(err) != policy.Unavailable:
			return err // it is there, but cannot be used: somebody has to act
		default:
			f.observer.log.Warn("the store is not reached yet; deciding by what is on disk", "error", err)
			select {
			case <-time.After(storeRetry):
			case <-ctx.Done():
				return nil
			}
		}
	}
	return f.follow(ctx)
}

// follow follows the store until ctx ends. Another trust file may open what the
// one before refused or made the state drop, so that is offered again.
func (f *following) follow(ctx context.Context) error {
	trust, err := jetstream.NewTrustFollower(jetstream.TrustFollowConfig{
		Conn: f.config.Conn, As: jetstream.PDP, Domain: f.config.Domain, Events: f.observer.nats,
		Version: func() uint64 { return f.state.Trust().Version() }, Pushed: f.state.PushedTrust, Offer: f.state.OfferTrust,
	})
	if err != nil {
		return err
	}
	follower, err := jetstream.NewFollower(jetstream.FollowConfig{
		Conn: f.config.Conn, As: jetstream.PDP, Domain: f.config.Domain, MaxPacked: f.config.MaxPacked, Events: f.observer.nats,
		List: f.store.Load().Namespaces,
		Offer: func(ctx context.Context, note []byte, fetch func(context.Context) ([]byte, error)) error {
			return f.state.Offer(ctx, note, fetch)
		},
		Beacon: func(_ context.Context, _ policy.Namespace, note []byte) error {
			err := f.state.Prove(note)
			if errors.Is(err, live.ErrOlderTrust) {
				trust.Ask()
			}
			return err
		},
	})
	if err != nil {
		return err
	}
	ctx, end := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer end()
	watching.Go(func() { f.sweep(ctx) })
	ended := make(chan struct{})
	watching.Go(func() {
		defer close(ended)
		_ = trust.Run(ctx) // it fails only with the connection, and then so does the other
	})
	// Releases are judged by the newest trust file, or they are refused in vain, and
	// beacons say which one was pushed.
	select {
	case <-trust.Looked():
	case <-ended:
	}
	if f.issuer.Key != nil {
		if err := f.issue(ctx, &watching); err != nil {
			return err
		}
	}
	watching.Go(func() {
		synced := follower.Synced()
		for {
			select {
			case <-synced:
				synced = nil
				f.state.Synced()
				f.setReady()
			case <-f.trustChanged:
				follower.Refresh()
			case <-ctx.Done():
				return
			}
		}
	})
	return follower.Run(ctx)
}

// sweep removes what no release needs any more, every so often until ctx ends.
func (f *following) sweep(ctx context.Context) {
	for {
		if err := f.store.Load().Sweep(ctx, 0); err != nil && ctx.Err() == nil {
			f.observer.log.Warn("old chunks of bundles were not swept; trying again", "error", err)
		}
		select {
		case <-time.After(sweepEvery + rand.N(sweepEvery)): //nolint:gosec // G404: it spreads load and keeps no secret
		case <-ctx.Done():
			return
		}
	}
}

// watchTrust puts a changed trust file in force. One that cannot be read, or is
// older, is reported; what was in force stays.
func (f *following) watchTrust(ctx context.Context, path, seen string) {
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	filewatch.Run(ctx, []string{path}, seen, ticker.C, func() {
		trust, err := bundles.LoadTrust(path)
		if err == nil {
			err = f.state.SetTrust(trust)
		}
		if err != nil {
			f.observer.log.Error("trust file was not taken over; the one before stays in force", "file", path, "error", err)
		}
	})
}

func (o *observer) natsServer(level slog.Level, text string) {
	if level < slog.LevelWarn {
		return
	}
	o.log.Log(context.Background(), level, "NATS server: "+text)
}

// head returns what asks for the head of a namespace, nil if nobody can say.
func (n *node) head() func(context.Context, policy.Namespace) (policy.Version, error) {
	if n.confirm == nil {
		return nil
	}
	return func(ctx context.Context, ns policy.Namespace) (policy.Version, error) {
		beacon, err := n.confirm(ctx, ns)
		if err != nil {
			return policy.Version{}, err
		}
		head, _ := beacon.Head(ns) // it was looked up when the beacon was verified
		return head, nil
	}
}
