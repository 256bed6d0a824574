package bundles_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

// rename returns the same key pair under another name, as anybody can make it
// who has the private key.
func rename(t testing.TB, private, name string) key {
	t.Helper()
	encoded := strings.SplitN(private, "+", 5)[4]
	seed, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	public, err := note.NewEd25519VerifierKey(name, ed25519.NewKeyFromSeed(seed[1:]).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	hash := strings.SplitN(public, "+", 3)[1]
	signer, err := bundles.ParseSigner("PRIVATE+KEY+" + name + "+" + hash + "+" + encoded)
	if err != nil {
		t.Fatal(err)
	}
	return key{signer, public}
}

// relabel returns the first signature of a note as if it were by k.
func relabel(t testing.TB, signed string, k key) string {
	t.Helper()
	line, _, _ := strings.Cut(signed[strings.Index(signed, "\n\n")+2:], "\n")
	raw, err := base64.StdEncoding.DecodeString(line[strings.LastIndexByte(line, ' ')+1:])
	if err != nil {
		t.Fatal(err)
	}
	binary.BigEndian.PutUint32(raw, k.KeyHash())
	return fmt.Sprintf("— %s %s\n", k.Name(), base64.StdEncoding.EncodeToString(raw))
}

func verifier(t testing.TB, k key) note.Verifier {
	t.Helper()
	v, err := note.NewVerifier(k.public)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// signText signs any text, as a program can that shares the key.
func signText(t testing.TB, text string, keys ...key) []byte {
	t.Helper()
	var signers []note.Signer
	for _, k := range keys {
		signers = append(signers, k)
	}
	signed, err := note.Sign(&note.Note{Text: text}, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestKeyIsWrittenOnceAndOnlyForItsOwner(t *testing.T) {
	private, public, err := bundles.GenerateKey("cart-ci")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cart-ci.key")
	if err := bundles.WriteKey(path, private); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("permissions %v, %v", info.Mode(), err)
	}
	signer, err := bundles.LoadSigner(path)
	if err != nil {
		t.Fatal(err)
	}
	k := key{signer, public}
	open(t, trust(t, "{boutique: {signers: [cart-ci]}}", k), sign(t, releaseOf(read(t, folder("authz.rego", rego))), k))

	other, _, err := bundles.GenerateKey("other")
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, bundles.WriteKey(path, other), policy.BadRequest, path, "exists")
	if content, err := os.ReadFile(path); err != nil || string(content) != private+"\n" {
		t.Error("the key that was there is gone")
	}
}

func TestKeyFileThatOthersCanUse(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no such permissions")
	}
	private, _, err := bundles.GenerateKey("cart-ci")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cart-ci.key")
	if err := bundles.WriteKey(path, private); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := bundles.LoadSigner(path)
		wantErr(t, err, policy.Denied, "chmod 600 "+path, fmt.Sprintf("%04o", mode))
	}
	for _, mode := range []os.FileMode{0o600, 0o400} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := bundles.LoadSigner(path); err != nil {
			t.Error(err)
		}
	}
}

func TestKeyFilesThatHoldNoKey(t *testing.T) {
	private, public, err := bundles.GenerateKey("cart-ci")
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.SplitN(private, "+", 5)[4]
	dir := t.TempDir()
	_, err = bundles.LoadSigner(filepath.Join(dir, "nowhere"))
	wantErr(t, err, policy.BadRequest, "nowhere", "microwall keygen")
	if !errors.Is(err, os.ErrNotExist) {
		t.Error("not ErrNotExist")
	}
	for i, c := range []struct {
		name, content, says string
		kind                policy.Kind
	}{
		{"empty", "", "damaged", policy.BadRequest},
		{"public key", public + "\n", "public one", policy.BadRequest},
		{"two lines", private + "\n" + private + "\n", "one line", policy.BadRequest},
		{"empty line after", private + "\n\n", "one line", policy.BadRequest},
		{"space before", " " + private, "one line", policy.BadRequest},
		{"line end inside", private[:len(private)-5] + "\n" + private[len(private)-5:], "one line", policy.BadRequest},
		{"another name", strings.Replace(private, "cart-ci", "mallory", 1), "damaged", policy.BadRequest},
		{"cut off", private[:len(private)-8], "damaged", policy.BadRequest},
		{"PEM", "-----BEGIN PRIVATE KEY-----\n" + secret, "one line", policy.BadRequest},
		{"huge", strings.Repeat("x", 5000), "larger than", policy.Exhausted},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(dir, fmt.Sprint(i))
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := bundles.LoadSigner(path)
			wantErr(t, err, c.kind, path, c.says)
			if strings.Contains(err.Error(), secret[:10]) {
				t.Error("the error shows the key")
			}
		})
	}
}

func TestKeyFromAnEnvironmentVariable(t *testing.T) {
	private, _, err := bundles.GenerateKey("team/cart@ci.example")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{private, private + "\n", private + "\r\n"} {
		if signer, err := bundles.ParseSigner(s); err != nil || signer.Name() != "team/cart@ci.example" {
			t.Errorf("%v", err)
		}
	}
}

func TestKeyNames(t *testing.T) {
	for _, name := range []string{"", "a b", "a+b", "a\nb", "ä", "-a", "@a", "a:b", "a,b", "[a]", "a\x00", "\xff", "a'b", "~", strings.Repeat("x", 101)} {
		_, _, err := bundles.GenerateKey(name)
		wantErr(t, err, policy.BadRequest, "key name", "cart-ci")
	}
	// What note accepts as a name and this package does not, made elsewhere.
	private, public, err := note.GenerateKey(nil, "a:b")
	if err != nil {
		t.Fatal(err)
	}
	_, err = bundles.ParseSigner(private)
	wantErr(t, err, policy.BadRequest, "key name")
	_, err = bundles.ParseTrust([]byte("domain: a\nversion: 1\nepoch: 1\nnamespaces: {}\nkeys: {\"a:b\": \"" + public + "\"}\n"))
	wantErr(t, err, policy.BadRequest, "key name")
}
