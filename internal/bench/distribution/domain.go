package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

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

// domain is the trust domain "boutique" at work: keys, a trust file, a NATS
// server and a PDP that keeps its releases there. Files are below dir.
type domain struct {
	dir       string
	trustFile string
	signer    note.Signer // of every namespace
	beacons   note.Signer
	settings  []byte // accounts of the NATS server
	pdp       jetstream.Credentials
	client    string // the file of credentials of a client of the cart
	nats      *natsserver.Server
	natsURL   string
	author    *pap.Client
	stop      []func() // the last one first
}

// startDomain starts a domain in dir. It must be closed.
func startDomain(ctx context.Context, dir string) (_ *domain, err error) {
	d := &domain{dir: dir, trustFile: filepath.Join(dir, "trust.yaml")}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	trust, err := d.writeTrust()
	if err != nil {
		return nil, err
	}
	if err := d.makeAccounts(); err != nil {
		return nil, err
	}
	if err := d.startNATS(ctx, natsserver.AnyPort); err != nil {
		return nil, err
	}
	d.stop = append(d.stop, func() { d.nats.Shutdown() })
	d.natsURL = d.nats.URL()
	server, err := d.startPDP(ctx, trust, maxStore/2)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	d.stop = append(d.stop, func() { _ = conn.Close() }) // it fails only if it was closed
	d.author = pap.New(conn, server, trust)
	return d, nil
}

// makeAccounts makes those that `microwall serve` has on its own, a PDP and
// clients without credentials, and a client that has them.
func (d *domain) makeAccounts() (err error) {
	if d.pdp, err = jetstream.NewCredentials("pdp"); err != nil {
		return err
	}
	nobody, err := jetstream.NewCredentials("nobody")
	if err != nil {
		return err
	}
	client, err := jetstream.NewCredentials("cart")
	if err != nil {
		return err
	}
	d.client = filepath.Join(d.dir, "cart.nkey")
	if err := client.Write(d.client); err != nil {
		return err
	}
	d.settings, err = jetstream.Accounts{
		Domain: "boutique", Anonymous: nobody.Key(), MaxConnections: maxConnections,
		Users: []jetstream.User{
			{Principal: jetstream.Principal{Name: "pdp", Kind: jetstream.PDP}, Key: d.pdp.Key()},
			{Principal: jetstream.Principal{Name: "cart", Kind: jetstream.Client, Namespaces: []policy.Namespace{cart}, Guardrails: []policy.Namespace{guardrail}}, Key: client.Key()},
		},
	}.Config()
	return err
}

// maxConnections is more than any figure needs.
const maxConnections = 10_000

// maxStore is for small disks; nothing here comes near it.
const maxStore = 1 << 30

func (d *domain) startNATS(ctx context.Context, port int) error {
	server, err := natsserver.Start(ctx, natsserver.Config{Port: port, StoreDir: filepath.Join(d.dir, "nats"), MaxBytes: maxStore, Settings: d.settings})
	if err == nil {
		d.nats = server
	}
	return err
}

// restartNATS ends the NATS server and starts it again where it was.
func (d *domain) restartNATS(ctx context.Context) error {
	at, err := url.Parse(d.natsURL)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(at.Port())
	if err != nil {
		return err
	}
	d.nats.Shutdown()
	return d.startNATS(ctx, port)
}

func (d *domain) close() {
	for _, stop := range slices.Backward(d.stop) {
		stop()
	}
	d.stop = nil
}

func (d *domain) writeTrust() (*bundles.Trust, error) {
	private, public, err := bundles.GenerateKey("ci")
	if err != nil {
		return nil, err
	}
	if d.signer, err = bundles.ParseSigner(private); err != nil {
		return nil, err
	}
	private, beat, err := bundles.GenerateKey("beat")
	if err != nil {
		return nil, err
	}
	if d.beacons, err = bundles.ParseSigner(private); err != nil {
		return nil, err
	}
	text := fmt.Sprintf("domain: boutique\nversion: 1\nepoch: 1\nkeys:\n  ci: %s\n  beat: %s\nnamespaces:\n  boutique: {signers: [ci], guardrail: true}\nbeacons: [beat]\n", public, beat)
	if err := os.WriteFile(d.trustFile, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return bundles.LoadTrust(d.trustFile)
}

// startPDP starts a PDP as `microwall serve` is one, without its logs and
// metrics, and returns where it listens.
func (d *domain) startPDP(ctx context.Context, trust *bundles.Trust, maxBytes int64) (address string, err error) {
	conn, err := jetstream.Connect(ctx, d.natsURL, jetstream.ConnectOptions{Credentials: d.pdp})
	if err != nil {
		return "", err
	}
	d.stop = append(d.stop, conn.Close)
	store, err := jetstream.OpenStore(ctx, jetstream.StoreConfig{Conn: conn, Domain: trust.Domain(), MaxBytes: maxBytes})
	if err != nil {
		return "", err
	}
	state, err := live.New(ctx, live.Config{Trust: trust, Dir: filepath.Join(d.dir, "pdp")})
	if err != nil {
		return "", err
	}
	follower, err := jetstream.NewFollower(jetstream.FollowConfig{
		Conn: conn, As: jetstream.PDP, Domain: trust.Domain(), List: store.Namespaces,
		Offer: func(ctx context.Context, note []byte, fetch func(context.Context) ([]byte, error)) error {
			return state.Offer(ctx, note, fetch)
		},
	})
	if err != nil {
		return "", err
	}
	issuer, err := pdp.NewIssuer(pdp.IssuerConfig{Live: state, Store: store, Key: d.beacons, Name: "pdp"})
	if err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := grpcapi.New(grpcapi.Config{
		Decide:   pdp.New(pdp.Config{Source: state}),
		Releases: pdp.NewReleases(pdp.ReleasesConfig{Live: state, Store: func() (*jetstream.Store, error) { return store, nil }}),
	})
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var work sync.WaitGroup
	failed := make(chan error, 3)
	work.Go(func() { failed <- follower.Run(running) })
	work.Go(func() { failed <- issuer.Run(running) })
	work.Go(func() { failed <- server.Serve(listener) })
	d.stop = append(d.stop, func() {
		server.Stop()
		cancel()
		work.Wait()
	})
	select {
	case <-follower.Synced():
		state.Synced()
		return listener.Addr().String(), nil
	case err := <-failed:
		return "", errors.Join(errors.New("the PDP ended"), err)
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}
