// Package testkit makes what tests of several packages need: a trust domain
// with real keys and a real trust file, and a real PDP on loopback.
package testkit

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/policy"
)

// Domain is the trust domain "shop": namespace shop is a guardrail signed by
// the key "center", shop.cart is signed by "cart", shop.pay by "pay", and
// whatever else is below shop by "center". The keys "beat" and "beat2" sign
// beacons once the trust file lists them.
type Domain struct {
	t testing.TB
	// TrustFile is the path of its trust.yaml.
	TrustFile string
	// Broker is how its PDPs connect to NATS.
	Broker   jetstream.ConnectOptions
	settings []byte // of the server that ServeNATS starts
	keys     map[string]key
}

type key struct {
	signer            note.Signer
	private, verifier string
}

// Created is when releases of a Domain are made.
var Created = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// NewDomain returns a new domain with new keys.
func NewDomain(t testing.TB) *Domain {
	t.Helper()
	d := &Domain{t: t, TrustFile: filepath.Join(t.TempDir(), "trust.yaml"), keys: make(map[string]key)}
	for _, name := range []string{"center", "cart", "pay", "stranger", "beat", "beat2", "ann", "bob", "cay"} {
		d.AddKey(name)
	}
	d.WriteTrust(TrustOptions{})
	return d
}

// AddKey makes a key of that name, in place of one that has it.
func (d *Domain) AddKey(name string) {
	d.t.Helper()
	private, verifier, err := bundles.GenerateKey(name)
	d.must(err)
	signer, err := bundles.ParseSigner(private)
	d.must(err)
	d.keys[name] = key{signer, private, verifier}
}

// Signer returns a key to sign with.
func (d *Domain) Signer(name string) note.Signer { return d.keys[name].signer }

// Private returns a private key as its file holds it.
func (d *Domain) Private(name string) string { return d.keys[name].private }

// TrustOptions change what WriteTrust writes.
type TrustOptions struct {
	Version, Epoch uint64 // zero is 1
	NoGuardrail    bool
	Without        []string // keys that are left out, with what they sign
	CartSigners    []string // of shop.cart; nil is the key cart
	Beacons        []string // keys that sign beacons; nil is none
	// More is added to what a namespace (shop, shop.cart, shop.pay) says, for
	// instance "max-staleness: 30s".
	More          map[policy.Namespace]string
	ShopSigners   []string // of shop; nil is the key center
	ShopThreshold int      // zero is 1
	Roots         []string // none if nil; ann, bob and cay are keys for it
	RootThreshold int      // zero is 1
}

// WriteTrust replaces the trust file.
func (d *Domain) WriteTrust(o TrustOptions) {
	d.t.Helper()
	// Replaced by a rename, so that nobody reads half a file.
	temp := d.TrustFile + ".new"
	d.must(os.WriteFile(temp, d.TrustText(o), 0o600))
	d.must(os.Rename(temp, d.TrustFile))
}

// SignTrust returns a trust file as a note, signed by keys, and leaves the one
// that is there as it is.
func (d *Domain) SignTrust(o TrustOptions, keyNames ...string) []byte {
	d.t.Helper()
	signers := make([]note.Signer, len(keyNames))
	for i, name := range keyNames {
		signers[i] = d.Signer(name)
	}
	signed, err := bundles.SignTrust(d.TrustText(o), signers...)
	d.must(err)
	return signed
}

// TrustText returns a trust file.
func (d *Domain) TrustText(o TrustOptions) []byte {
	d.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "domain: shop\nversion: %d\nepoch: %d\nkeys:\n", max(o.Version, 1), max(o.Epoch, 1))
	shop := o.ShopSigners
	if shop == nil {
		shop = []string{"center"}
	}
	names := slices.Concat([]string{"cart", "center", "pay"}, shop, o.CartSigners, o.Beacons, o.Roots)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if !slices.Contains(o.Without, name) {
			fmt.Fprintf(&b, "  %s: %s\n", name, d.keys[name].verifier)
		}
	}
	more := func(n policy.Namespace) string {
		if o.More[n] == "" {
			return ""
		}
		return ", " + o.More[n]
	}
	fmt.Fprintf(&b, "namespaces:\n  shop: {signers: [%s], threshold: %d, guardrail: %v%s}\n", strings.Join(shop, ", "), max(o.ShopThreshold, 1), !o.NoGuardrail, more("shop"))
	for _, name := range []string{"cart", "pay"} {
		if !slices.Contains(o.Without, name) {
			signers := name
			if name == "cart" && o.CartSigners != nil {
				signers = strings.Join(o.CartSigners, ", ")
			}
			fmt.Fprintf(&b, "  shop.%s: {signers: [%s]%s}\n", name, signers, more(policy.Namespace("shop."+name)))
		}
	}
	if o.Beacons != nil {
		fmt.Fprintf(&b, "beacons: [%s]\n", strings.Join(o.Beacons, ", "))
	}
	if o.Roots != nil {
		fmt.Fprintf(&b, "roots: {keys: [%s], threshold: %d}\n", strings.Join(o.Roots, ", "), max(o.RootThreshold, 1))
	}
	return []byte(b.String())
}

// Trust returns the parsed trust file.
func (d *Domain) Trust() *bundles.Trust {
	d.t.Helper()
	t, err := bundles.LoadTrust(d.TrustFile)
	d.must(err)
	return t
}

// Bundle returns a bundle of the given files; a module may leave out its
// package line.
func (d *Domain) Bundle(files map[string]string) *bundles.Bundle {
	d.t.Helper()
	fsys := fstest.MapFS{}
	for name, content := range files {
		if strings.HasSuffix(name, ".rego") && !strings.HasPrefix(content, "package ") {
			content = "package authz\n" + content
		}
		fsys[name] = &fstest.MapFile{Data: []byte(content), Mode: 0o644}
	}
	b, err := bundles.Read(fsys)
	d.must(err)
	return b
}

// Rego returns a bundle of one module.
func (d *Domain) Rego(module string) *bundles.Bundle {
	d.t.Helper()
	return d.Bundle(map[string]string{"authz.rego": module})
}

// Release is a signed release and its packed bundle.
type Release struct {
	*bundles.Signed
	Packed []byte
}

// Release makes the release that follows previous (nil for the first one),
// signed by a key; a nil bundle retires. The functions may change it before it
// is signed.
func (d *Domain) Release(keyName string, n policy.Namespace, previous *bundles.Signed, b *bundles.Bundle, change ...func(*bundles.Release)) Release {
	d.t.Helper()
	r, packed := d.draft(n, previous, b, change)
	signed, err := bundles.Sign(r, d.Signer(keyName))
	d.must(err)
	opened, err := d.Trust().Open(signed)
	d.must(err)
	return Release{opened, packed}
}

// Forge makes what Release would make, signed by a key that need not be
// allowed to, and returns the note alone.
func (d *Domain) Forge(keyName string, n policy.Namespace, previous *bundles.Signed, b *bundles.Bundle, change ...func(*bundles.Release)) (signedNote, packed []byte) {
	d.t.Helper()
	r, packed := d.draft(n, previous, b, change)
	signed, err := bundles.Sign(r, d.Signer(keyName))
	d.must(err)
	return signed, packed
}

// Beacon makes the beacon of a time, signed by a key, before any trust file was
// pushed.
func (d *Domain) Beacon(keyName string, at time.Time, heads ...policy.Version) []byte {
	d.t.Helper()
	return d.BeaconAfter(0, keyName, at, heads...)
}

// BeaconAfter makes the beacon of a time when a version of the trust file had been
// pushed.
func (d *Domain) BeaconAfter(trust uint64, keyName string, at time.Time, heads ...policy.Version) []byte {
	d.t.Helper()
	signed, err := bundles.SignBeacon(bundles.Beacon{Domain: "shop", Time: at, Trust: trust, Heads: heads}, d.Signer(keyName))
	d.must(err)
	return signed
}

func (d *Domain) draft(n policy.Namespace, previous *bundles.Signed, b *bundles.Bundle, change []func(*bundles.Release)) (bundles.Release, []byte) {
	r := bundles.Release{Namespace: n, Epoch: 1, Revision: 1, Created: Created, Author: "test"}
	var packed []byte
	if b != nil {
		r.Bundle, r.Size, packed = b.Digest(), int64(len(b.Tar())), bundles.Pack(b.Tar())
	}
	if previous != nil {
		r.Epoch, r.Revision, r.Previous = previous.Release().Epoch, previous.Release().Revision+1, previous.Digest()
	}
	for _, c := range change {
		c(&r)
	}
	return r, packed
}

func (d *Domain) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// Request returns a request in a namespace with an action; the rest is the
// same in all.
func Request(n policy.Namespace, action string) policy.Request {
	return policy.Request{
		Namespace: n,
		Subject:   policy.Entity{Type: "workload", ID: "spiffe://shop/frontend"},
		Action:    policy.Action{Name: action},
		Resource:  policy.Entity{Type: "grpc", ID: "shop.Cart"},
	}
}

// Properties returns m as properties.
func Properties(t testing.TB, m map[string]any) policy.Properties {
	t.Helper()
	p, err := policy.NewProperties(m)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
