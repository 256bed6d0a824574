package bundles_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

const rego = "package authz\n\nallow if input.subject.id == \"alice\"\n"

// folder is a file system of the given files; what a file holds follows its
// name.
func folder(files ...string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i := 0; i < len(files); i += 2 {
		fsys[files[i]] = &fstest.MapFile{Data: []byte(files[i+1]), Mode: 0o644}
	}
	return fsys
}

func read(t testing.TB, fsys fs.FS) *bundles.Bundle {
	t.Helper()
	b, err := bundles.Read(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// key is a key pair.
type key struct {
	note.Signer
	public string
}

func newKey(t testing.TB, name string) key {
	t.Helper()
	private, public, err := bundles.GenerateKey(name)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := bundles.ParseSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return key{signer, public}
}

// trust is a trust file of the domain boutique, version 1, epoch 1.
func trust(t testing.TB, namespaces string, keys ...key) *bundles.Trust {
	t.Helper()
	return trustAt(t, 1, namespaces, keys...)
}

func trustAt(t testing.TB, epoch int, namespaces string, keys ...key) *bundles.Trust {
	t.Helper()
	trusted, err := bundles.ParseTrust([]byte(trustFile(epoch, namespaces, keys...)))
	if err != nil {
		t.Fatal(err)
	}
	return trusted
}

func trustFile(epoch int, namespaces string, keys ...key) string {
	var b strings.Builder
	fmt.Fprintf(&b, "domain: boutique\nversion: 1\nepoch: %d\nkeys:\n", epoch)
	for _, k := range keys {
		fmt.Fprintf(&b, "  %s: %s\n", k.Name(), k.public)
	}
	fmt.Fprintf(&b, "namespaces: %s\n", namespaces)
	return b.String()
}

var created = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// releaseOf is the first release of b in boutique.cart.
func releaseOf(b *bundles.Bundle) bundles.Release {
	return bundles.Release{
		Namespace: "boutique.cart", Epoch: 1, Revision: 1,
		Bundle: b.Digest(), Size: int64(len(b.Tar())), Created: created,
	}
}

func sign(t testing.TB, r bundles.Release, signers ...key) []byte {
	t.Helper()
	list := make([]note.Signer, len(signers))
	for i, s := range signers {
		list[i] = s
	}
	signed, err := bundles.Sign(r, list...)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func open(t testing.TB, trusted *bundles.Trust, signed []byte) *bundles.Signed {
	t.Helper()
	s, err := trusted.Open(signed)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantErr fails the test unless err has that kind and says all of the parts.
func wantErr(t testing.TB, err error, kind policy.Kind, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one of kind %q that says %q", kind, parts)
	}
	if got := policy.KindOf(err); got != kind {
		t.Errorf("error %q has kind %q, want %q", err, got, kind)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

func TestTeamReleasesBundleAndClientUnpacksIt(t *testing.T) {
	cart := newKey(t, "cart-ci")
	trusted := trust(t, "{boutique: {signers: [cart-ci]}}", cart)
	b := read(t, folder(
		".manifest", `{"metadata":{"microwall":{"namespace":"boutique.cart"}}}`,
		"authz.rego", rego, "lib/roles.rego", "package lib\n", "authz_test.rego", "package authz_test\n",
		"data.json", `{ "limit": 10 }`, "callers/data.json", `{"b":1, "a":[2.0]}`,
		"README.md", "read me", "decisions.yaml", "[]", ".git/config.rego", "no",
	))
	if b.Namespace() != "boutique.cart" {
		t.Errorf("namespace %q", b.Namespace())
	}
	signed := open(t, trusted, sign(t, releaseOf(b), cart))
	got, err := signed.Unpack(bytes.NewReader(bundles.Pack(b.Tar())), bundles.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"callers":{"a":[2.0],"b":1},"limit":10}`; string(got.Data()) != want {
		t.Errorf("data %s, want %s", got.Data(), want)
	}
	var paths []string
	for _, m := range append(got.Modules(), got.Tests()...) {
		paths = append(paths, m.Path)
	}
	if fmt.Sprint(paths) != "[authz.rego lib/roles.rego authz_test.rego]" {
		t.Errorf("modules %v", paths)
	}
	if got.Digest() != b.Digest() || !bytes.Equal(got.Tar(), b.Tar()) {
		t.Error("the bundle is another one after its travel")
	}
}
