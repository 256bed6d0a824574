package bundles_test

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

// rootsFile is a trust file of a version and an epoch with roots.
func rootsFile(version, epoch int, roots string, keys ...key) []byte {
	file := strings.Replace(trustFile(epoch, "{boutique: {signers: ["+keys[0].Name()+"]}}", keys...), "version: 1", fmt.Sprintf("version: %d", version), 1)
	if roots != "" {
		file += "roots: " + roots + "\n"
	}
	return []byte(file)
}

func parseTrust(t testing.TB, file []byte) *bundles.Trust {
	t.Helper()
	trusted, err := bundles.ParseTrust(file)
	if err != nil {
		t.Fatal(err)
	}
	return trusted
}

func signTrust(t testing.TB, file []byte, signers ...key) []byte {
	t.Helper()
	list := make([]note.Signer, len(signers))
	for i, s := range signers {
		list[i] = s
	}
	signed, err := bundles.SignTrust(file, list...)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestRootsReplaceOneAnotherOneByOne(t *testing.T) {
	a, b, c := newKey(t, "a"), newKey(t, "b"), newKey(t, "c")
	trusted := parseTrust(t, rootsFile(1, 1, "{keys: [a, b], threshold: 2}", a, b))
	for _, step := range [][]byte{
		signTrust(t, rootsFile(2, 1, "{keys: [b, c], threshold: 1}", a, b, c), a, b),
		signTrust(t, rootsFile(3, 4, "{keys: [c], threshold: 1}", c), b, c),
	} {
		next, err := trusted.Next(step)
		if err != nil {
			t.Fatal(err)
		}
		trusted = next
	}
	file, err := bundles.TrustFile(signTrust(t, rootsFile(3, 4, "{keys: [c], threshold: 1}", c), b, c))
	if err != nil || trusted.Version() != 3 || trusted.Epoch() != 4 || trusted.Digest() != policy.DigestOf(file) {
		t.Errorf("arrived at version %d, epoch %d, %v", trusted.Version(), trusted.Epoch(), err)
	}
}

func TestTrustFilesThatDoNotTravel(t *testing.T) {
	a, b, c, stranger := newKey(t, "a"), newKey(t, "b"), newKey(t, "c"), newKey(t, "stranger")
	both := "{keys: [a, b], threshold: 2}"
	trusted := parseTrust(t, rootsFile(3, 2, both, a, b))
	good := rootsFile(4, 2, both, a, b)
	if _, err := trusted.Next(signTrust(t, good, a, b)); err != nil {
		t.Fatal(err)
	}
	impostor := newKey(t, "b")
	for _, x := range []struct {
		attack string
		note   []byte
		kind   policy.Kind
		says   string
	}{
		{"one root signs", signTrust(t, good, a), policy.Denied, "2 must"},
		{"a root and a stranger sign", signTrust(t, good, a, stranger), policy.Denied, "2 must"},
		{"a root and somebody of the other's name sign", signTrust(t, good, a, impostor), policy.Denied, "2 must"},
		{"the new roots sign alone", signTrust(t, rootsFile(4, 2, "{keys: [c], threshold: 1}", c), c), policy.Denied, "the one before"},
		{"the old roots sign alone", signTrust(t, rootsFile(4, 2, "{keys: [c], threshold: 1}", a, b, c), a, b), policy.Denied, "roots that it lists"},
		{"the new file has no roots", signTrust(t, rootsFile(4, 2, "", a, b), a, b), policy.Denied, "it lists no roots"},
		{"the same version", signTrust(t, rootsFile(3, 2, both, a, b), a, b), policy.Conflict, "comes 4"},
		{"a version that was", signTrust(t, rootsFile(2, 2, both, a, b), a, b), policy.Conflict, "comes 4"},
		{"a version too far", signTrust(t, rootsFile(5, 2, both, a, b), a, b), policy.Conflict, "comes 4"},
		{"a lower epoch", signTrust(t, rootsFile(4, 1, both, a, b), a, b), policy.Denied, "only ever raised"},
		{"another domain", signTrust(t, []byte(strings.ReplaceAll(string(good), "boutique", "bank")), a, b), policy.Denied, "domain"},
		{"changed after it was signed", []byte(strings.Replace(string(signTrust(t, good, a, b)), "version: 4", "version:  4", 1)), policy.Denied, "changed after"},
		{"a release", sign(t, fullRelease(), a, b), policy.BadRequest, "does not begin"},
		{"no trust file", signText(t, "microwall trust v1\nhello\n", a, b), policy.BadRequest, "trust file"},
		{"no trust file, by a stranger", signText(t, "microwall trust v1\nhello\n", stranger), policy.Denied, "2 must"},
		{"no note", good, policy.BadRequest, "not a signed"},
		{"a flood", append(signTrust(t, good, a, b), make([]byte, 2<<20)...), policy.Exhausted, "limit"},
	} {
		t.Run(x.attack, func(t *testing.T) {
			_, err := trusted.Next(x.note)
			wantErr(t, err, x.kind, x.says)
		})
	}
	t.Run("the old file has no roots", func(t *testing.T) {
		_, err := parseTrust(t, rootsFile(3, 2, "", a, b)).Next(signTrust(t, good, a, b))
		wantErr(t, err, policy.Denied, "the one before lists no roots", "by hand")
	})
	t.Run("the trust file is pushed as a release", func(t *testing.T) {
		_, err := trusted.Open(signTrust(t, good, a, b))
		wantErr(t, err, policy.BadRequest, "begins with")
	})
}

func TestATrustFileThatWasPutIntoPlaceByHandIsConfirmedByItsOwnRoots(t *testing.T) {
	a, b, stranger := newKey(t, "a"), newKey(t, "b"), newKey(t, "stranger")
	file := rootsFile(3, 1, "{keys: [a, b], threshold: 2}", a, b)
	trusted := parseTrust(t, file)
	if err := trusted.Confirm(signTrust(t, file, b, stranger, a)); err != nil {
		t.Error(err)
	}
	wantErr(t, trusted.Confirm(signTrust(t, file, a, stranger)), policy.Denied, "2 must; still may: b")
	wantErr(t, trusted.Confirm(signTrust(t, append([]byte("# x\n"), file...), a, b)), policy.Conflict, "another trust file")
	wantErr(t, trusted.Confirm(file), policy.BadRequest, "not a signed")
	bare := rootsFile(3, 1, "", a, b)
	wantErr(t, parseTrust(t, bare).Confirm(signTrust(t, bare, a, b)), policy.Denied, "lists no roots")
}

func TestATrustFileThatWaitsForMoreSignaturesSaysWhoMayGiveThem(t *testing.T) {
	a, b, c, stranger := newKey(t, "a"), newKey(t, "b"), newKey(t, "c"), newKey(t, "stranger")
	trusted := parseTrust(t, rootsFile(3, 1, "{keys: [a, b], threshold: 2}", a, b))
	file := rootsFile(4, 1, "{keys: [b, c], threshold: 2}", a, b, c)
	for _, x := range []struct {
		name string
		by   []key
		want string // signers, able; "" if it is refused
	}{
		{"an old root", []key{a}, "[a] [b c]"},
		{"a new root", []key{c}, "[c] [a b]"},
		{"a root that stays", []key{b}, "[b] [a c]"},
		{"the old roots", []key{a, b}, "[a b] [c]"},
		{"the new roots", []key{b, c}, "[b c] [a]"},
		{"all", []key{a, b, c}, "[a b c] []"},
		{"a stranger", []key{stranger}, ""},
		{"somebody of a root's name", []key{newKey(t, "a")}, ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			signed := signTrust(t, file, x.by...)
			p, err := trusted.ProposeNext(signed)
			if x.want == "" {
				wantErr(t, err, policy.Denied, "none of the roots")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(p.Signers(), p.Able()); got != x.want {
				t.Errorf("got %s, want %s", got, x.want)
			}
			if _, err := trusted.Next(signed); (err == nil) != p.Whole() {
				t.Errorf("whole: %v, and it opens: %v", p.Whole(), err)
			}
			if p.Trust().Version() != 4 || string(p.File()) != string(file) {
				t.Error("it is another file than the one that was signed")
			}
		})
	}
	_, err := trusted.ProposeNext(signTrust(t, rootsFile(5, 1, "{keys: [a], threshold: 1}", a), a))
	wantErr(t, err, policy.Conflict, "comes 4")
}

func TestTrustFilesThatAreNotSigned(t *testing.T) {
	a := newKey(t, "a")
	good := string(rootsFile(1, 1, "{keys: [a], threshold: 1}", a))
	for name, c := range map[string]struct{ file, says string }{
		"a tab":           {strings.Replace(good, "version", "#\tx\nversion", 1), "line 2"},
		"carriage return": {strings.ReplaceAll(good, "\n", "\r\n"), "carriage return"},
		"no line end":     {strings.TrimSuffix(good, "\n"), "line end"},
		"no trust file":   {"hello\n", "trust file"},
	} {
		_, err := bundles.SignTrust([]byte(c.file), a)
		if err == nil || policy.KindOf(err) != policy.BadRequest || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := bundles.SignTrust([]byte(good))
	wantErr(t, err, policy.BadRequest, "nobody signs")
}

func TestSeveralSignOneReleaseOneAfterTheOther(t *testing.T) {
	p1, p2, p3 := newKey(t, "p1"), newKey(t, "p2"), newKey(t, "p3")
	trusted := trust(t, "{boutique: {signers: [p1, p2, p3], threshold: 2}}", p1, p2, p3)
	alone := sign(t, releaseOf(read(t, folder("authz.rego", rego))), p3)
	if _, err := trusted.Open(alone); err == nil {
		t.Fatal("one signature was enough")
	}
	_, err := bundles.Cosign(alone, p3)
	wantErr(t, err, policy.Conflict, "p3 has signed already")
	both, err := bundles.Cosign(alone, p1)
	if err != nil {
		t.Fatal(err)
	}
	opened := open(t, trusted, both)
	if got := fmt.Sprint(opened.Signers()); got != "[p1 p3]" && got != "[p3 p1]" {
		t.Errorf("signed by %s", got)
	}
	if before, after := string(alone), string(both); !strings.HasPrefix(after, before[:strings.LastIndex(before, "\n\n")]) {
		t.Error("the text has changed")
	}
	_, err = bundles.Cosign([]byte("hello\n"), p1)
	wantErr(t, err, policy.BadRequest, "not a signed note")
}

func FuzzNext(f *testing.F) {
	a := newKey(f, "a")
	trusted := parseTrust(f, rootsFile(1, 1, "{keys: [a], threshold: 1}", a))
	f.Add(signTrust(f, rootsFile(2, 1, "{keys: [a], threshold: 1}", a), a))
	f.Add(sign(f, fullRelease(), a))
	f.Fuzz(func(t *testing.T, signed []byte) {
		next, err := trusted.Next(signed)
		if err == nil && next.Version() != 2 {
			t.Errorf("version %d follows version 1", next.Version())
		}
	})
}
