package main

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/filewatch"
	"github.com/microwall/microwall/internal/natsserver"
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
)

// startNode decides by signed releases: a NATS server of its own or elsewhere,
// the store in it, and the state that follows it.
func startNode(ctx context.Context, f serveFlags, o *observer, run func(func(context.Context) error)) (_ *node, err error) {
	seen := filewatch.Look(f.trust)
	trust, err := bundles.LoadTrust(f.trust)
	if err != nil {
		return nil, err
	}
	state, err := live.New(ctx, live.Config{
		Trust: trust, Dir: filepath.Join(f.dataDir, "releases"), Bundles: f.bundles, Policy: f.policy, Events: o.live,
	})
	if err != nil {
		return nil, err
	}
	n := &node{source: state, nats: f.natsURL, close: func() {}}
	if f.natsURL == "" {
		server, err := startNATS(ctx, f, o)
		if err != nil {
			return nil, err
		}
		n.nats, n.close = server.URL(), server.Shutdown
	}
	conn, err := jetstream.Connect(ctx, n.nats, jetstream.ConnectOptions{Name: "microwall-pdp", Events: o.nats})
	if err != nil {
		n.close()
		return nil, err
	}
	stopServer := n.close
	n.close = func() {
		conn.Close()
		stopServer()
	}
	var store atomic.Pointer[jetstream.Store]
	n.releases = pdp.NewReleases(pdp.ReleasesConfig{Live: state, Store: store.Load, Events: o.pdp})
	synced := make(chan struct{})
	n.ready = func() bool { // by the store, or by what is on disk
		select {
		case <-synced:
			return true
		default:
			return len(state.Snapshot().Versions()) > 0
		}
	}
	run(func(ctx context.Context) error { return follow(ctx, conn, state, &store, o, func() { close(synced) }) })
	run(func(ctx context.Context) error { watchTrust(ctx, f.trust, seen, state, o); return nil })
	return n, nil
}

// startNATS runs the NATS server inside this process.
func startNATS(ctx context.Context, f serveFlags, o *observer) (*natsserver.Server, error) {
	host, portText, err := net.SplitHostPort(f.natsAddr)
	if err != nil {
		return nil, policy.Errorf(policy.BadRequest, "--nats-addr %s is not HOST:PORT: %w", f.natsAddr, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, policy.Errorf(policy.BadRequest, "--nats-addr %s has no port from 0 to 65535: %w", f.natsAddr, err)
	}
	config := natsserver.Config{Host: host, Port: int(port), StoreDir: filepath.Join(f.dataDir, "nats"), Log: o.natsServer}
	if port == 0 {
		config.Port = natsserver.AnyPort
	}
	ctx, cancel := context.WithTimeout(ctx, natsStart)
	defer cancel()
	return natsserver.Start(ctx, config)
}

// follow reaches the store, however long that takes, and brings what is
// released into state until ctx ends.
func follow(ctx context.Context, conn *nats.Conn, state *live.Live, store *atomic.Pointer[jetstream.Store], o *observer, synced func()) error {
	domain := state.Trust().Domain()
	for store.Load() == nil {
		s, err := jetstream.OpenStore(ctx, jetstream.StoreConfig{Conn: conn, Domain: domain, Events: o.nats})
		switch {
		case err == nil:
			store.Store(s)
		case ctx.Err() != nil:
			return nil
		case policy.KindOf(err) != policy.Unavailable:
			return err // it is there, but cannot be used: somebody has to act
		default:
			o.log.Warn("the store is not reached yet; deciding by what is on disk", "error", err)
			select {
			case <-time.After(storeRetry):
			case <-ctx.Done():
				return nil
			}
		}
	}
	f, err := jetstream.NewFollower(jetstream.FollowConfig{
		Conn: conn, Domain: domain, List: store.Load().Namespaces, Events: o.nats,
		Offer: func(ctx context.Context, note []byte, fetch func(context.Context) ([]byte, error)) error {
			return state.Offer(ctx, note, fetch)
		},
	})
	if err != nil {
		return err
	}
	done := make(chan struct{})
	defer func() { <-done }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(done)
		select {
		case <-f.Synced():
			state.Synced()
			synced()
		case <-ctx.Done():
		}
	}()
	return f.Run(ctx)
}

// watchTrust puts a changed trust file in force. One that cannot be read, or is
// older, is reported; what was in force stays.
func watchTrust(ctx context.Context, path, seen string, state *live.Live, o *observer) {
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	filewatch.Run(ctx, []string{path}, seen, ticker.C, func() {
		trust, err := bundles.LoadTrust(path)
		if err == nil {
			err = state.SetTrust(trust)
		}
		if err != nil {
			o.log.Error("trust file was not taken over; the one before stays in force", "file", path, "error", err)
		}
	})
}

// watchFolder opens a folder and, if it shall be watched, takes changes over.
func watchFolder(ctx context.Context, f serveFlags, o *observer, run func(func(context.Context) error)) (*live.Folder, error) {
	seen := filewatch.Look(f.dir)
	folder, err := live.OpenFolder(ctx, f.dir, f.policy, o.live)
	if err != nil {
		return nil, err
	}
	if f.watch {
		run(func(ctx context.Context) error {
			ticker := time.NewTicker(look / 2)
			defer ticker.Stop()
			filewatch.Run(ctx, []string{f.dir}, seen, ticker.C, func() {
				if err := folder.Reload(ctx); err != nil {
					o.log.Error("folder was not taken over; what was before decides", "dir", f.dir, "error", err)
				}
			})
			return nil
		})
	}
	return folder, nil
}

func (o *observer) natsServer(level slog.Level, text string) {
	if level >= slog.LevelWarn {
		o.log.Log(context.Background(), level, "NATS server: "+text)
	}
}
