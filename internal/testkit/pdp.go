package testkit

import (
	"context"
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
}

// StartPDP starts a PDP of the domain that uses the NATS server at url and
// keeps releases in dir. It ends with the test.
func (d *Domain) StartPDP(url, dir string, change ...func(*pdp.ReleasesConfig)) *PDP {
	t := d.t
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	conn, err := jetstream.Connect(ctx, url, d.Broker)
	d.must(err)
	store, err := jetstream.OpenStore(ctx, jetstream.StoreConfig{Conn: conn, Domain: "shop", MaxBytes: 256 << 20})
	d.must(err)
	trustChanged := make(chan struct{}, 1)
	state, err := live.New(ctx, live.Config{Trust: d.Trust(), Dir: dir, Events: live.OnTrust(trustChanged, nil)})
	d.must(err)
	follower, err := jetstream.NewFollower(jetstream.FollowConfig{
		Conn: conn, As: jetstream.PDP, Domain: "shop", List: store.Namespaces,
		Offer: func(ctx context.Context, note []byte, fetch func(context.Context) ([]byte, error)) error {
			return state.Offer(ctx, note, fetch)
		},
		Beacon: func(_ context.Context, _ policy.Namespace, note []byte) error { return state.Prove(note) },
	})
	d.must(err)
	trust, err := jetstream.NewTrustFollower(jetstream.TrustFollowConfig{
		Conn: conn, As: jetstream.PDP, Domain: "shop", Version: func() uint64 { return state.Trust().Version() }, Pushed: state.PushedTrust, Offer: state.OfferTrust,
	})
	d.must(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	d.must(err)
	releases := pdp.ReleasesConfig{Live: state, Store: func() (*jetstream.Store, error) { return store, nil }}
	for _, c := range change {
		c(&releases)
	}
	confirm := func(ctx context.Context, n policy.Namespace) (*bundles.SignedBeacon, policy.Version, error) {
		asked := time.Now()
		note, err := jetstream.Confirm(ctx, conn, jetstream.PDP, "shop", n)
		if err != nil {
			return nil, policy.Version{}, err
		}
		return state.Confirmed(n, note, asked)
	}
	service := pdp.New(pdp.Config{Source: state, Confirm: func(ctx context.Context, n policy.Namespace) (policy.Version, error) {
		_, head, err := confirm(ctx, n)
		return head, err
	}})
	p := &PDP{Addr: listener.Addr().String(), Live: state, Store: store, NATSConn: conn, Service: service}
	server := grpcapi.New(grpcapi.Config{
		Decide: p.Service, Watch: p.Service,
		Confirm: func(ctx context.Context, n policy.Namespace) (*bundles.SignedBeacon, error) {
			beacon, _, err := confirm(ctx, n)
			return beacon, err
		},
		Releases: pdp.NewReleases(releases),
	})
	var work sync.WaitGroup
	work.Go(func() { _ = follower.Run(ctx) }) // ends with ctx
	work.Go(func() { _ = trust.Run(ctx) })    // as well
	work.Go(func() {
		for {
			select {
			case <-trustChanged:
				follower.Refresh()
			case <-ctx.Done():
				return
			}
		}
	})
	work.Go(func() { _ = server.Serve(listener) }) // ends with Stop
	t.Cleanup(func() {
		server.Stop()
		cancel()
		work.Wait()
		conn.Close()
	})
	select {
	case <-follower.Synced():
		state.Synced()
	case <-t.Context().Done():
		t.Fatal("the PDP did not get ready")
	}
	p.Conn, err = grpc.NewClient(p.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	d.must(err)
	t.Cleanup(func() { _ = p.Conn.Close() })
	return p
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
