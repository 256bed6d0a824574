package testkit

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/natsserver"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/pdp/grpcapi"
	"github.com/microwall/microwall/policy"
)

// NATS starts a NATS server on loopback over dir that has no accounts, so that
// everybody may do what a PDP may. It ends with the test, or before, by Shutdown.
func NATS(t testing.TB, dir string) *natsserver.Server {
	t.Helper()
	s, err := natsserver.Start(t.Context(), natsserver.Config{Port: natsserver.AnyPort, StoreDir: dir, MaxBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

// ServeNATS starts a NATS server on loopback over dir with the accounts that `microwall
// serve` makes for itself: from then on, PDPs of the domain connect as one that is
// called pdp; everybody else is a client without credentials. It ends with the
// test, or before, by Shutdown.
func (d *Domain) ServeNATS(dir string) *natsserver.Server {
	d.t.Helper()
	return d.ServeNATSAt(natsserver.AnyPort, dir)
}

// ServeNATSAt is ServeNATS on a port. A server may take the place of another one, which had
// the same port.
func (d *Domain) ServeNATSAt(port int, dir string) *natsserver.Server {
	t := d.t
	t.Helper()
	if d.settings == nil {
		creds, err := jetstream.NewCredentials("pdp")
		d.must(err)
		nobody, err := jetstream.NewCredentials("nobody")
		d.must(err)
		d.settings, err = jetstream.Accounts{
			Domain: "shop", Anonymous: nobody.Key(),
			Users: []jetstream.User{{Principal: jetstream.Principal{Name: "pdp", Kind: jetstream.PDP}, Key: creds.Key()}},
		}.Config()
		d.must(err)
		d.Broker.Credentials = creds
	}
	s, err := natsserver.Start(t.Context(), natsserver.Config{Port: port, StoreDir: dir, MaxBytes: 1 << 30, Settings: d.settings})
	d.must(err)
	t.Cleanup(s.Shutdown)
	return s
}

// GuardedNATS starts a NATS server with accounts, in which these principals have
// the credentials in dir/NAME.nkey, and everybody else has none. From then on,
// PDPs of the domain connect as one that is called pdp.
func (d *Domain) GuardedNATS(dir string, principals ...jetstream.Principal) *natsserver.Server {
	t := d.t
	t.Helper()
	accounts := jetstream.Accounts{Domain: "shop"}
	for _, p := range append(principals, jetstream.Principal{Name: "pdp", Kind: jetstream.PDP}) {
		creds, err := jetstream.NewCredentials(p.Name)
		d.must(err)
		d.must(creds.Write(filepath.Join(dir, p.Name+".nkey")))
		accounts.Users = append(accounts.Users, jetstream.User{Principal: p, Key: creds.Key()})
		d.Broker.Credentials = creds // of the last one, in the end
	}
	settings, err := accounts.Config()
	d.must(err)
	s, err := natsserver.Start(t.Context(), natsserver.Config{Port: natsserver.AnyPort, StoreDir: filepath.Join(dir, "nats"), MaxBytes: 1 << 30, Settings: settings})
	d.must(err)
	t.Cleanup(s.Shutdown)
	return s
}

// PDP is a PDP on loopback, with all that belongs to it.
type PDP struct {
	Addr     string
	Live     *live.Live
	Service  *pdp.Service
	Store    *jetstream.Store
	Conn     *grpc.ClientConn
	NATSConn *nats.Conn

	cancel context.CancelFunc
	server *grpcapi.Server
	work   sync.WaitGroup
	once   sync.Once
}

// PDPConfig is what a PDP is started with. NATS is required.
type PDPConfig struct {
	// NATS is the URL of the server that it uses.
	NATS string
	// Dir is where it keeps releases; "" keeps none.
	Dir string
	// Addr is where it listens; "" is any port of loopback.
	Addr string
	// BeaconKey is the name of the key that it issues beacons with, every
	// BeaconInterval, as the trust file must say; "" issues none.
	BeaconKey      string
	BeaconInterval time.Duration
	// Decide returns what answers in place of what decides; nil returns that.
	Decide func(policy.Authorizer) policy.Authorizer
	// Releases changes how it takes releases; nil changes nothing.
	Releases func(*pdp.ReleasesConfig)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// StartPDP starts a PDP of the domain that uses the NATS server at url and
// keeps releases in dir. It ends with the test.
func (d *Domain) StartPDP(url, dir string, change ...func(*pdp.ReleasesConfig)) *PDP {
	d.t.Helper()
	p, err := d.RunPDP(d.t.Context(), PDPConfig{NATS: url, Dir: dir, Releases: func(r *pdp.ReleasesConfig) {
		for _, c := range change {
			c(r)
		}
	}})
	d.must(err)
	d.t.Cleanup(p.Kill)
	return p
}

// RunPDP starts a PDP, and returns once it has asked for all releases that there
// are, or ctx ends. It runs until Kill.
func (d *Domain) RunPDP(ctx context.Context, config PDPConfig) (_ *PDP, err error) {
	if config.Now == nil {
		config.Now = time.Now
	}
	p := &PDP{}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.cancel = cancel
	defer func() {
		if err != nil {
			p.Kill()
		}
	}()
	if p.NATSConn, err = jetstream.Connect(ctx, config.NATS, d.Broker); err != nil {
		return nil, err
	}
	if p.Store, err = jetstream.OpenStore(ctx, jetstream.StoreConfig{Conn: p.NATSConn, Domain: "shop", MaxBytes: 256 << 20}); err != nil {
		return nil, err
	}
	trust, err := bundles.LoadTrust(d.TrustFile)
	if err != nil {
		return nil, err
	}
	trustChanged := make(chan struct{}, 1)
	if p.Live, err = live.New(ctx, live.Config{Trust: trust, Dir: config.Dir, Events: live.OnTrust(trustChanged, nil), Now: config.Now}); err != nil {
		return nil, err
	}
	follower, err := jetstream.NewFollower(jetstream.FollowConfig{
		Conn: p.NATSConn, As: jetstream.PDP, Domain: "shop", List: p.Store.Namespaces,
		Offer: func(ctx context.Context, note []byte, fetch func(context.Context) ([]byte, error)) error {
			return p.Live.Offer(ctx, note, fetch)
		},
		Beacon: func(_ context.Context, _ policy.Namespace, note []byte) error { return p.Live.Prove(note) },
	})
	if err != nil {
		return nil, err
	}
	trusts, err := jetstream.NewTrustFollower(jetstream.TrustFollowConfig{
		Conn: p.NATSConn, As: jetstream.PDP, Domain: "shop", Version: func() uint64 { return p.Live.Trust().Version() }, Pushed: p.Live.PushedTrust, Offer: p.Live.OfferTrust,
	})
	if err != nil {
		return nil, err
	}
	if err := d.issue(running, p, config); err != nil {
		return nil, err
	}
	var listener net.Listener
	if listener, err = net.Listen("tcp", cmp.Or(config.Addr, "127.0.0.1:0")); err != nil { //nolint:noctx // it is at once
		return nil, err
	}
	p.Addr = listener.Addr().String()
	p.serve(listener, config)
	p.work.Go(func() { _ = follower.Run(running) }) // ends with running
	p.work.Go(func() { _ = trusts.Run(running) })   // as well
	p.work.Go(func() {
		for {
			select {
			case <-trustChanged:
				follower.Refresh()
			case <-running.Done():
				return
			}
		}
	})
	select {
	case <-follower.Synced():
		p.Live.Synced()
	case <-ctx.Done():
		return nil, fmt.Errorf("the PDP did not get ready: %w", ctx.Err())
	}
	p.Conn, err = grpc.NewClient(p.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	return p, err
}

// issue has the PDP issue beacons, if it is to.
func (d *Domain) issue(ctx context.Context, p *PDP, config PDPConfig) error {
	if config.BeaconKey == "" {
		return nil
	}
	issuer, err := pdp.NewIssuer(pdp.IssuerConfig{
		Live: p.Live, Store: p.Store, Key: d.Signer(config.BeaconKey), Name: config.BeaconKey, Interval: config.BeaconInterval, Now: config.Now,
	})
	if err != nil {
		return err
	}
	p.work.Go(func() { _ = issuer.Run(ctx) }) // ends with ctx
	p.work.Go(func() {
		_ = jetstream.ServeConfirm(ctx, jetstream.ConfirmConfig{Conn: p.NATSConn, Domain: "shop", Confirm: issuer.Confirm})
	})
	return nil
}

// serve answers those who connect.
func (p *PDP) serve(listener net.Listener, config PDPConfig) {
	confirm := func(ctx context.Context, n policy.Namespace) (*bundles.SignedBeacon, policy.Version, error) {
		asked := config.Now()
		note, err := jetstream.Confirm(ctx, p.NATSConn, jetstream.PDP, "shop", n)
		if err != nil {
			return nil, policy.Version{}, err
		}
		return p.Live.Confirmed(n, note, asked)
	}
	p.Service = pdp.New(pdp.Config{Source: p.Live, Now: config.Now, Confirm: func(ctx context.Context, n policy.Namespace) (policy.Version, error) {
		_, head, err := confirm(ctx, n)
		return head, err
	}})
	var decides policy.Authorizer = p.Service
	if config.Decide != nil {
		decides = config.Decide(p.Service)
	}
	releases := pdp.ReleasesConfig{Live: p.Live, Store: func() (*jetstream.Store, error) { return p.Store, nil }}
	if config.Releases != nil {
		config.Releases(&releases)
	}
	p.server = grpcapi.New(grpcapi.Config{
		Decide: decides, Watch: p.Service,
		Confirm: func(ctx context.Context, n policy.Namespace) (*bundles.SignedBeacon, error) {
			beacon, _, err := confirm(ctx, n)
			return beacon, err
		},
		Releases: pdp.NewReleases(releases),
	})
	p.work.Go(func() { _ = p.server.Serve(listener) }) // ends with Stop
}

// Kill ends the PDP at once: its connections are closed, whoever waits.
func (p *PDP) Kill() {
	p.once.Do(func() {
		if p.NATSConn != nil {
			p.NATSConn.Close() // it says goodbye to nobody
		}
		if p.server != nil {
			p.server.Stop()
		}
		p.cancel()
		p.work.Wait()
		if p.Conn != nil {
			_ = p.Conn.Close()
		}
	})
}

// PAP returns an author's client of the PDP.
func (d *Domain) PAP(p *PDP) *pap.Client { return pap.New(p.Conn, p.Addr, d.Trust()) }

// Push releases one Rego module as an author does, and fails the test if that
// fails.
func (d *Domain) Push(p *PDP, keyName string, n policy.Namespace, module string) pap.Result {
	d.t.Helper()
	result, err := d.PAP(p).Push(d.t.Context(), d.Draft(keyName, n, module))
	d.must(err)
	return result
}

// Draft returns what an author pushes.
func (d *Domain) Draft(keyName string, n policy.Namespace, module string) pap.Draft {
	d.t.Helper()
	return pap.Draft{Namespace: n, Bundle: d.Rego(module), Signers: []note.Signer{d.Signer(keyName)}, Created: Created, Author: keyName}
}
