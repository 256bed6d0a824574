// Package domain is the trust domain "boutique" at work, for commands that measure:
// keys, a trust file, a NATS server that syncs before it acknowledges and has the accounts
// that `microwall serve` makes for itself, and PDPs. Everything talks over sockets on
// loopback.
package domain

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/natsserver"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/policy"
)

const (
	// Guardrail is the namespace that binds Cart.
	Guardrail = policy.Namespace("boutique")
	// Cart is the namespace that is asked about.
	Cart = policy.Namespace("boutique.cart")
)

// Domain is a trust domain. Its files are below a directory.
type Domain struct {
	// TrustFile is the path of trust.yaml, and Trust what it says.
	TrustFile string
	Trust     *bundles.Trust
	// Signer signs releases of every namespace.
	Signer note.Signer
	// URL is where its NATS server is, or was.
	URL string
	// Credentials is the file by which NATS knows a client of Cart; clients need
	// none.
	Credentials string

	dir      string
	beacons  note.Signer
	settings []byte                // accounts of the NATS server
	broker   jetstream.Credentials // of its PDPs
	nats     *natsserver.Server
	author   *pap.Client
	stop     []func() // the last one first
}

// New makes a domain with new keys in dir, of which nothing runs.
func New(dir string) (*Domain, error) {
	d := &Domain{TrustFile: filepath.Join(dir, "trust.yaml"), dir: dir}
	public, signer, err := newKey("ci")
	if err != nil {
		return nil, err
	}
	beat, beacons, err := newKey("beat")
	if err != nil {
		return nil, err
	}
	d.Signer, d.beacons = signer, beacons
	text := fmt.Sprintf("domain: boutique\nversion: 1\nepoch: 1\nkeys:\n  ci: %s\n  beat: %s\nnamespaces:\n  boutique: {signers: [ci], guardrail: true}\nbeacons: [beat]\n", public, beat)
	if err := os.WriteFile(d.TrustFile, []byte(text), 0o600); err != nil {
		return nil, err
	}
	d.Trust, err = bundles.LoadTrust(d.TrustFile)
	return d, err
}

func newKey(name string) (public string, signer note.Signer, err error) {
	private, public, err := bundles.GenerateKey(name)
	if err != nil {
		return "", nil, err
	}
	signer, err = bundles.ParseSigner(private)
	return public, signer, err
}

// Start starts a new domain in dir, with a NATS server and a PDP that takes releases
// and issues beacons. It must be closed.
func Start(ctx context.Context, dir string) (_ *Domain, err error) {
	d, err := New(dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if err := d.makeAccounts(); err != nil {
		return nil, err
	}
	if err := d.startNATS(ctx, natsserver.AnyPort); err != nil {
		return nil, err
	}
	d.stop = append(d.stop, func() { d.nats.Shutdown() })
	d.URL = d.nats.URL()
	p, err := startPDP(ctx, d.pdp("pdp"), d.Trust, d.broker, d.beacons)
	if err != nil {
		return nil, err
	}
	d.stop = append(d.stop, p.close)
	conn, err := grpc.NewClient(p.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	d.stop = append(d.stop, func() { _ = conn.Close() }) // it fails only if it was closed
	d.author = pap.New(conn, p.address, d.Trust)
	return d, nil
}

// Temporary starts a domain in a directory that is gone, like the domain, when use
// returns.
func Temporary(ctx context.Context, use func(d *Domain, dir string) error) (err error) {
	dir, err := os.MkdirTemp("", "microwall-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d, err := Start(ctx, dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return use(d, dir)
}

// makeAccounts makes those that `microwall serve` has on its own, a PDP and
// clients without credentials, and a client that has them.
func (d *Domain) makeAccounts() (err error) {
	if d.broker, err = jetstream.NewCredentials("pdp"); err != nil {
		return err
	}
	if err := d.broker.Write(d.brokerFile()); err != nil {
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
	d.Credentials = filepath.Join(d.dir, "cart.nkey")
	if err := client.Write(d.Credentials); err != nil {
		return err
	}
	d.settings, err = jetstream.Accounts{
		Domain: d.Trust.Domain(), Anonymous: nobody.Key(), MaxConnections: maxConnections,
		Users: []jetstream.User{
			{Principal: jetstream.Principal{Name: "pdp", Kind: jetstream.PDP}, Key: d.broker.Key()},
			{Principal: jetstream.Principal{Name: "cart", Kind: jetstream.Client, Namespaces: []policy.Namespace{Cart}, Guardrails: []policy.Namespace{Guardrail}}, Key: client.Key()},
		},
	}.Config()
	return err
}

func (d *Domain) brokerFile() string { return filepath.Join(d.dir, "pdp.nkey") }

const (
	// maxConnections is more than any figure needs.
	maxConnections = 10_000
	// MaxStore is for small disks; nothing here comes near it.
	MaxStore = 1 << 30
)

func (d *Domain) startNATS(ctx context.Context, port int) error {
	server, err := natsserver.Start(ctx, natsserver.Config{Port: port, StoreDir: filepath.Join(d.dir, "nats"), MaxBytes: MaxStore, Settings: d.settings})
	if err == nil {
		d.nats = server
	}
	return err
}

// RestartNATS ends the NATS server and starts it again where it was.
func (d *Domain) RestartNATS(ctx context.Context) error {
	at, err := url.Parse(d.URL)
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

// Close ends all that runs. It may be called twice.
func (d *Domain) Close() {
	for _, stop := range slices.Backward(d.stop) {
		stop()
	}
	d.stop = nil
}

// Draft is a release of a folder.
func (d *Domain) Draft(n policy.Namespace, folder fs.FS) (pap.Draft, error) {
	b, err := bundles.Read(folder)
	return pap.Draft{Namespace: n, Bundle: b, Signers: []note.Signer{d.Signer}, Created: time.Now(), Author: "bench"}, err
}

// Release pushes what a Draft is of.
func (d *Domain) Release(ctx context.Context, draft pap.Draft) (policy.Version, error) {
	result, err := d.author.Push(ctx, draft)
	if err != nil {
		return policy.Version{}, err
	}
	return result.Release.Version(), nil
}

// ReleaseUntil releases a draft, while ask waits for the first answer by it, until ctx
// ends. It returns that answer, what was released, and how long after it began ask had
// returned.
func (d *Domain) ReleaseUntil(ctx context.Context, draft pap.Draft, ask func(context.Context) (policy.Decision, error)) (policy.Decision, policy.Version, time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		policy.Decision
		after time.Duration
		err   error
	}
	first := make(chan answer, 1)
	begun := time.Now()
	go func() { // ends with ctx
		a, err := ask(ctx)
		first <- answer{a, time.Since(begun), err}
	}()
	released, err := d.Release(ctx, draft)
	if err != nil {
		cancel()
	}
	got := <-first
	if err == nil {
		err = got.err
	}
	return got.Decision, released, got.after, err
}

// Push releases a folder.
func (d *Domain) Push(ctx context.Context, n policy.Namespace, folder fs.FS) (policy.Version, error) {
	draft, err := d.Draft(n, folder)
	if err != nil {
		return policy.Version{}, err
	}
	return d.Release(ctx, draft)
}
