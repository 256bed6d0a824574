package domain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"

	"golang.org/x/mod/sumdb/note"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/bench/child"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/pdp/grpcapi"
	"github.com/microwall/microwall/policy"
)

// PDPArg as the first argument makes a program one PDP of a domain: it calls ServePDP.
const PDPArg = "pdp"

// PDP is a PDP in a process of its own. It follows the releases of its domain over
// NATS, and takes and issues none.
type PDP struct {
	// Address is HOST:PORT.
	Address string
	process *child.Process
}

// StartPDP starts one more PDP, which has its own directory of that name, and waits
// until it has the releases that are there. It ends with the domain, or before.
func (d *Domain) StartPDP(ctx context.Context, name string) (*PDP, error) {
	process, err := child.Start(ctx, PDPArg, d.pdp(name))
	if err != nil {
		return nil, err
	}
	d.stop = append(d.stop, process.Kill)
	p := &PDP{process: process}
	if err := process.Hear(&p.Address); err != nil {
		process.End()
		return nil, fmt.Errorf("a PDP ended: %w: %s", err, process.Wait())
	}
	return p, nil
}

// Kill kills it: the system ends its connections, and it says no more.
func (p *PDP) Kill() { p.process.Kill() }

// pdpConfig is what the process of a PDP is told.
type pdpConfig struct {
	// NATS is its URL; Trust, Credentials and Dir are paths.
	NATS, Trust, Credentials, Dir string
}

func (d *Domain) pdp(name string) pdpConfig {
	return pdpConfig{NATS: d.URL, Trust: d.TrustFile, Credentials: d.brokerFile(), Dir: filepath.Join(d.dir, name)}
}

// ServePDP is the process of a PDP.
func ServePDP(ctx context.Context, in io.Reader, out io.Writer) error {
	var config pdpConfig
	input, err := child.Told(in, &config)
	if err != nil {
		return err
	}
	trust, err := bundles.LoadTrust(config.Trust)
	if err != nil {
		return err
	}
	broker, err := jetstream.LoadCredentials(config.Credentials)
	if err != nil {
		return err
	}
	p, err := startPDP(ctx, config, trust, broker, nil)
	if err != nil {
		return err
	}
	defer p.close()
	if err := json.NewEncoder(out).Encode(p.address); err != nil {
		return err
	}
	return child.Ended(input)
}

// running is a PDP in this process.
type running struct {
	address string
	close   func()
}

// startPDP starts a PDP as `microwall serve` is one, without its logs and metrics.
// If it has a key for beacons, it issues them and takes releases.
func startPDP(ctx context.Context, config pdpConfig, trust *bundles.Trust, broker jetstream.Credentials, beacons note.Signer) (_ *running, err error) {
	conn, err := jetstream.Connect(ctx, config.NATS, jetstream.ConnectOptions{Credentials: broker})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	store, err := jetstream.OpenStore(ctx, jetstream.StoreConfig{Conn: conn, Domain: trust.Domain(), MaxBytes: MaxStore / 2})
	if err != nil {
		return nil, err
	}
	state, err := live.New(ctx, live.Config{Trust: trust, Dir: config.Dir})
	if err != nil {
		return nil, err
	}
	follower, err := jetstream.NewFollower(jetstream.FollowConfig{
		Conn: conn, As: jetstream.PDP, Domain: trust.Domain(), List: store.Namespaces,
		Offer: func(ctx context.Context, note []byte, fetch func(context.Context) ([]byte, error)) error {
			return state.Offer(ctx, note, fetch)
		},
		Beacon: func(_ context.Context, _ policy.Namespace, note []byte) error { return state.Prove(note) },
	})
	if err != nil {
		return nil, err
	}
	runs := []func(context.Context) error{follower.Run}
	service := pdp.New(pdp.Config{Source: state})
	serving := grpcapi.Config{Decide: service, Watch: service}
	if beacons != nil {
		issuer, err := pdp.NewIssuer(pdp.IssuerConfig{Live: state, Store: store, Key: beacons, Name: "pdp"})
		if err != nil {
			return nil, err
		}
		runs = append(runs, issuer.Run)
		serving.Releases = pdp.NewReleases(pdp.ReleasesConfig{Live: state, Store: func() (*jetstream.Store, error) { return store, nil }})
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := grpcapi.New(serving)
	runs = append(runs, func(context.Context) error { return server.Serve(listener) })

	all, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var work sync.WaitGroup
	failed := make(chan error, len(runs))
	for _, run := range runs {
		work.Go(func() { failed <- run(all) })
	}
	end := func() {
		server.Stop()
		cancel()
		work.Wait()
	}
	select {
	case <-follower.Synced():
		state.Synced()
		return &running{address: listener.Addr().String(), close: func() {
			end()
			conn.Close()
		}}, nil
	case err = <-failed:
		err = errors.Join(errors.New("the PDP ended"), err)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	end()
	return nil, err
}
