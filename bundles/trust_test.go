package bundles_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

// twice is the same key pair under a second name.
func twice(t testing.TB, name string) (first, second key) {
	t.Helper()
	private, public, err := bundles.GenerateKey(name)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := bundles.ParseSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return key{signer, public}, rename(t, private, name+"-again")
}

func TestWhoMaySign(t *testing.T) {
	p1, p2, p3 := newKey(t, "p1"), newKey(t, "p2"), newKey(t, "p3")
	cart, ads, stranger := newKey(t, "cart-ci"), newKey(t, "ads-ci"), newKey(t, "stranger")
	same, again := twice(t, "same")
	impostor := newKey(t, "cart-ci")
	trusted := trust(t, `
  boutique: {signers: [p1, p2, p3], threshold: 2, guardrail: true}
  boutique.cart: {signers: [cart-ci]}
  boutique.ads: {signers: [ads-ci]}
  boutique.twins: {signers: [same, same-again, p1], threshold: 2}
`, p1, p2, p3, cart, ads, same, again)

	for _, c := range []struct {
		name      string
		namespace policy.Namespace
		by        []key
		want      string // the signers that count, or what the refusal says
		ok        bool
	}{
		{"its own key", "boutique.cart", []key{cart}, "[cart-ci]", true},
		{"inherited by an unlisted namespace below", "boutique.cart.eu.west", []key{cart}, "[cart-ci]", true},
		{"two of three", "boutique", []key{p3, p1}, "[p3 p1]", true},
		{"all three", "boutique", []key{p1, p2, p3}, "[p1 p2 p3]", true},
		{"threshold inherited by an unlisted namespace", "boutique.email", []key{p1, p2}, "[p1 p2]", true},
		{"stranger's extra signature before", "boutique.cart", []key{stranger, cart}, "[cart-ci]", true},
		{"another team's extra signature", "boutique.cart", []key{cart, ads}, "[cart-ci]", true},
		{"stranger", "boutique.cart", []key{stranger}, "0 different keys", false},
		{"another team's namespace", "boutique.cart", []key{ads}, "cart-ci", false},
		{"another team's unlisted namespace", "boutique.cart.eu", []key{ads}, "boutique.cart: cart-ci", false},
		{"a listed namespace does not take its parent's keys", "boutique.cart", []key{p1, p2, p3}, "0 different keys", false},
		{"a parent does not take its child's key", "boutique", []key{cart, p1}, "1 key of", false},
		{"one of two", "boutique", []key{p2}, "p2), 2 must; still may: p1, p3 (microwall cosign)", false},
		{"one of two, inherited", "boutique.email", []key{p2}, "1 key of", false},
		{"one key twice", "boutique", []key{p1, p1}, "1 key of", false},
		{"stranger fills up a threshold", "boutique", []key{p1, stranger, cart}, "1 key of", false},
		{"one key under two names", "boutique.twins", []key{same, again}, "1 key of", false},
		{"one key under two names, and another", "boutique.twins", []key{same, again, p1}, "[same p1]", true},
		{"another key of the same name", "boutique.cart", []key{impostor}, "0 different keys", false},
		{"name that only begins alike", "boutique.carts", []key{cart}, "p1, p2, p3", false},
		{"another domain", "boutiques.cart", []key{cart}, "domain", false},
		{"the domain as a later label", "evil.boutique.cart", []key{cart}, "domain", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := fullRelease()
			r.Namespace, r.Epoch, r.Revision, r.Previous, r.Patch = c.namespace, 1, 1, policy.Digest{}, policy.Digest{}
			signed := sign(t, r, c.by...)
			s, err := trusted.Open(signed)
			if !c.ok {
				wantErr(t, err, policy.Denied, c.want, string(c.namespace))
				var unverified *bundles.UnverifiedError
				if !errors.As(err, &unverified) || unverified.Release != r {
					t.Errorf("%T does not carry the release", err)
				}
				if s != nil {
					t.Error("a release comes with the error")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(s.Signers()) != c.want {
				t.Errorf("signed by %v, want %s", s.Signers(), c.want)
			}
			text, _ := r.Text()
			if s.Release() != r || string(s.Note()) != string(signed) || s.Digest() != policy.DigestOf(text) {
				t.Error("it is not the release that was signed")
			}
			if want := (policy.Version{Namespace: c.namespace, Epoch: 1, Revision: 1, Digest: s.Digest()}); s.Version() != want {
				t.Errorf("version %v", s.Version())
			}
		})
	}
}

// A signature covers the text alone. So the signature of a key under one name
// is one under the other name too, with another hash before it.
func TestSignatureIsRelabelled(t *testing.T) {
	same, again := twice(t, "same")
	p1 := newKey(t, "p1")
	trusted := trust(t, `{boutique: {signers: [same, same-again, p1], threshold: 2}}`, same, again, p1)
	r := releaseOf(read(t, folder("authz.rego", rego)))
	one := string(sign(t, r, same))
	both := one + relabel(t, one, again)
	if n, err := note.Open([]byte(both), note.VerifierList(verifier(t, same), verifier(t, again))); err != nil || len(n.Sigs) != 2 {
		t.Fatalf("the attack itself failed: %v", err)
	}
	_, err := trusted.Open([]byte(both))
	wantErr(t, err, policy.Denied, "1 key of")
}

func TestDigestDoesNotDependOnSignatures(t *testing.T) {
	cart, stranger := newKey(t, "cart-ci"), newKey(t, "stranger")
	trusted := trust(t, "{boutique: {signers: [cart-ci]}}", cart)
	r := releaseOf(read(t, folder("authz.rego", rego)))
	one, two := open(t, trusted, sign(t, r, cart)), open(t, trusted, sign(t, r, stranger, cart))
	if one.Digest() != two.Digest() {
		t.Error("a stranger's signature changes the digest")
	}
	if err := bundles.Follow(one, two); !errors.Is(err, bundles.ErrSame) {
		t.Errorf("%v, want ErrSame", err)
	}
}

func TestNotesThatAreTamperedWith(t *testing.T) {
	cart := newKey(t, "cart-ci")
	trusted := trust(t, "{boutique: {signers: [cart-ci]}}", cart)
	good := string(sign(t, releaseOf(read(t, folder("authz.rego", rego))), cart))
	other := string(sign(t, fullRelease(), cart))
	signature := good[strings.Index(good, "\n\n")+2:]
	for _, c := range []struct {
		attack, note string
		kind         policy.Kind
		says         string
	}{
		{"changed text", strings.Replace(good, "revision: 1\nprevious: -", "revision: 2\nprevious: "+digestA.String(), 1), policy.Denied, "changed after it was signed"},
		{"signature of another release", other[:strings.Index(other, "\n\n")+2] + signature, policy.Denied, "changed after"},
		{"bad signature after a good one of the same key", good + relabel(t, other, cart), policy.Denied, ""},
		{"no signature", good[:strings.Index(good, "\n\n")+2], policy.BadRequest, "not a signed release"},
		{"text only", good[:strings.Index(good, "\n\n")+1], policy.BadRequest, "not a signed release"},
		{"text before", "x\n" + good, policy.BadRequest, "begins with"},
		{"text after", good + "x\n", policy.BadRequest, "not a signed release"},
		{"NUL after", good + "\x00", policy.BadRequest, "not a signed release"},
		{"a line in the text", strings.Replace(good, "\n\n", "\nevil: 1\n\n", 1), policy.BadRequest, "lines"},
		{"an empty line in the text", strings.Replace(good, "\n\n", "\n\n\n", 1), policy.BadRequest, "lines"},
		{"a second text", good + "\n" + other, policy.BadRequest, "lines"},
		{"carriage returns", strings.ReplaceAll(good, "\n", "\r\n"), policy.BadRequest, "not a signed release"},
		{"a hundred strangers", good + strings.Repeat(signature, 100), policy.BadRequest, "not a signed release"},
		{"something else that was signed", string(signText(t, "microwall beacon v1\n", cart)), policy.BadRequest, "begins with"},
		{"empty", "", policy.BadRequest, "not a signed release"},
		{"huge", good + strings.Repeat("x", bundles.MaxNote), policy.Exhausted, "limit"},
	} {
		t.Run(c.attack, func(t *testing.T) {
			s, err := trusted.Open([]byte(c.note))
			if c.attack == "bad signature after a good one of the same key" {
				// note counts a key's first signature and drops the rest:
				// the good one is there, and nothing else is believed.
				if err != nil || s.Release().Revision != 1 {
					t.Errorf("%v", err)
				}
				return
			}
			wantErr(t, err, c.kind, c.says)
		})
	}
}

func TestCallerCannotChangeWhatWasVerified(t *testing.T) {
	cart := newKey(t, "cart-ci")
	trusted := trust(t, "{boutique: {signers: [cart-ci]}}", cart)
	signed := sign(t, releaseOf(read(t, folder("authz.rego", rego))), cart)
	s := open(t, trusted, signed)
	before := string(s.Note())
	clear(signed)
	s.Signers()[0] = "mallory"
	if string(s.Note()) != before || s.Signers()[0] != "cart-ci" {
		t.Error("it changed with the bytes that it was read from")
	}
}

func TestKeyRemovedFromTheTrustFile(t *testing.T) {
	cart, next := newKey(t, "cart-ci"), newKey(t, "cart-ci-2")
	signed := sign(t, releaseOf(read(t, folder("authz.rego", rego))), cart)
	open(t, trust(t, "{boutique.cart: {signers: [cart-ci]}}", cart), signed)
	_, err := trust(t, "{boutique.cart: {signers: [cart-ci-2]}}", cart, next).Open(signed)
	wantErr(t, err, policy.Denied, "cart-ci-2")
	_, err = trust(t, "{boutique.ads: {signers: [cart-ci]}}", cart).Open(signed)
	wantErr(t, err, policy.Denied, "neither boutique.cart nor", "list it")
}

func TestEpochs(t *testing.T) {
	cart := newKey(t, "cart-ci")
	r := fullRelease() // of epoch 2
	signed := sign(t, r, cart)
	_, err := trustAt(t, 1, "{boutique: {signers: [cart-ci]}}", cart).Open(signed)
	wantErr(t, err, policy.Denied, "epoch 2", "raise epoch")
	open(t, trustAt(t, 2, "{boutique: {signers: [cart-ci]}}", cart), signed)
	open(t, trustAt(t, 3, "{boutique: {signers: [cart-ci]}}", cart), signed)
}

func TestGuardrails(t *testing.T) {
	k := newKey(t, "p1")
	trusted := trust(t, `
  boutique: {signers: [p1], guardrail: true}
  boutique.pay: {signers: [p1]}
  boutique.pay.eu: {signers: [p1], guardrail: true}
  boutique.ads: {signers: [p1], guardrail: false}
`, k)
	for ns, want := range map[policy.Namespace]string{
		"boutique":                "[]",
		"boutique.pay":            "[boutique]",
		"boutique.pay.eu":         "[boutique]",
		"boutique.pay.eu.de.west": "[boutique boutique.pay.eu]",
		"boutique.pay.eux":        "[boutique]",
		"boutique.ads.x":          "[boutique]",
		"other.pay":               "[]",
	} {
		if got := fmt.Sprint(trusted.Guardrails(ns)); got != want {
			t.Errorf("guardrails of %s are %s, want %s", ns, got, want)
		}
	}
	if !trusted.IsGuardrail("boutique") || trusted.IsGuardrail("boutique.pay") || trusted.IsGuardrail("boutique.x") {
		t.Error("IsGuardrail")
	}
	if got := fmt.Sprint(trusted.Namespaces()); got != "[boutique boutique.ads boutique.pay boutique.pay.eu]" {
		t.Errorf("namespaces %s", got)
	}
}

func TestTheTrustFileTightensStalenessAndNeverLoosensIt(t *testing.T) {
	k := newKey(t, "p1")
	trusted := trust(t, `
  boutique: {signers: [p1], max-staleness: 2h}
  boutique.pay: {signers: [p1], max-staleness: 30s, when-stale: deny}
  boutique.pay.eu: {signers: [p1], max-staleness: 10m, when-stale: serve}
`, k)
	for _, c := range []struct {
		ns      policy.Namespace
		release time.Duration
		says    bundles.WhenStale
		most    time.Duration
		happens bundles.WhenStale
	}{
		{"boutique", 0, bundles.Serve, time.Hour, bundles.Serve},
		{"boutique", 24 * time.Hour, bundles.Deny, 2 * time.Hour, bundles.Deny},
		{"boutique.cart", 24 * time.Hour, bundles.Serve, 2 * time.Hour, bundles.Serve},
		{"boutique.cart", time.Minute, bundles.Serve, time.Minute, bundles.Serve},
		{"boutique.pay", time.Hour, bundles.Serve, 30 * time.Second, bundles.Deny},
		{"boutique.pay", 15 * time.Second, bundles.Serve, 15 * time.Second, bundles.Deny},
		{"boutique.pay.eu", time.Hour, bundles.Serve, 30 * time.Second, bundles.Deny},
		{"boutique.pay.us.west", time.Hour, bundles.Serve, 30 * time.Second, bundles.Deny},
		{"boutique.payment", time.Hour, bundles.Serve, time.Hour, bundles.Serve},
	} {
		most, when := trusted.Staleness(bundles.Release{Namespace: c.ns, MaxStaleness: c.release, WhenStale: c.says})
		if most != c.most || when != c.happens {
			t.Errorf("%s that says %v %v: %v %v, want %v %v", c.ns, c.release, c.says, most, when, c.most, c.happens)
		}
	}
}

func TestTrustFile(t *testing.T) {
	a, b := newKey(t, "a"), newKey(t, "1e3")
	file := "# who may sign what\n" + strings.Replace(trustFile(7, "\n  boutique:\n    signers:\n    - a\n    - 1e3\n    threshold: 2\n", a, b), "version: 1", "version: 3", 1) +
		"beacons: [a]\nroots: {keys: [a, 1e3], threshold: 2}\n"
	trusted, err := bundles.ParseTrust([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	names, threshold := trusted.Roots()
	signers, most := trusted.Signers("boutique.cart")
	none, zero := trusted.Signers("other")
	if trusted.Domain() != "boutique" || trusted.Version() != 3 || trusted.Epoch() != 7 || trusted.Digest() != policy.DigestOf([]byte(file)) ||
		!slices.Equal(trusted.Beacons(), []string{"a"}) || !slices.Equal(names, []string{"a", "1e3"}) || threshold != 2 ||
		!slices.Equal(signers, []string{"a", "1e3"}) || most != 2 || none != nil || zero != 0 {
		t.Errorf("read as %+v", trusted)
	}
}

func TestTrustFilesThatAreRefused(t *testing.T) {
	a, b := newKey(t, "a"), newKey(t, "b")
	for strings.ToUpper(a.public[2:10]) == a.public[2:10] { // its hash has no letter
		a = newKey(t, "a")
	}
	same, again := twice(t, "same")
	private, _, err := bundles.GenerateKey("a")
	if err != nil {
		t.Fatal(err)
	}
	good := trustFile(1, "{boutique: {signers: [a]}}", a, b, same, again)
	swap := func(old, by string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %q in the file", old)
		}
		return strings.Replace(good, old, by, 1)
	}
	namespaces := func(n string) string { return swap("{boutique: {signers: [a]}}", n) }
	for _, c := range []struct{ name, file, says string }{
		{"empty", "", "empty"},
		{"comment only", "# nothing\n", "empty"},
		{"null", "~\n", "mapping"},
		{"list", "[a]\n", "mapping"},
		{"not YAML", "a: [", "not YAML"},
		{"not UTF-8", good + "# \xff\n", "UTF-8"},
		{"UTF-16", "\xff\xfea\x00:\x00 \x001\x00", "UTF-8"},
		{"two documents", good + "---\n" + good, "one document"},
		{"second document that is broken", good + "---\n[", "one document"},
		{"unknown field", good + "guardrails: [boutique]\n", "unknown field \"guardrails\""},
		{"field in another case", swap("epoch", "Epoch"), "unknown field \"Epoch\""},
		{"field twice", good + "epoch: 2\n", "epoch"},
		{"field twice, once in quotes", good + "\"epoch\": 2\n", "epoch"},
		{"no domain", swap("domain: boutique\n", ""), "domain is missing"},
		{"nothing but a domain", "domain: a\n", "version, epoch, keys, namespaces are missing"},
		{"no version", swap("version: 1\n", ""), "version is missing"},
		{"no epoch", swap("epoch: 1\n", ""), "epoch is missing"},
		{"no keys", "domain: a\nversion: 1\nepoch: 1\nnamespaces: {}\n", "keys is missing"},
		{"no namespaces", "domain: a\nversion: 1\nepoch: 1\nkeys: {}\n", "namespaces is missing"},
		{"domain of two labels", swap("domain: boutique", "domain: boutique.eu"), "one label"},
		{"domain null", swap("domain: boutique", "domain:"), "plain text"},
		{"domain a list", swap("domain: boutique", "domain: [boutique]"), "plain text"},
		{"domain no label", swap("domain: boutique", "domain: Boutique"), "one label"},
		{"version 0", swap("version: 1", "version: 0"), "version must be"},
		{"version negative", swap("version: 1", "version: -1"), "version must be"},
		{"version a fraction", swap("version: 1", "version: 1.9"), "version must be"},
		{"version in octal", swap("version: 1", "version: 010"), "version must be"},
		{"version in hexadecimal", swap("version: 1", "version: 0x10"), "version must be"},
		{"version with underscores", swap("version: 1", "version: 1_0"), "version must be"},
		{"version a string", swap("version: 1", "version: \"1\""), "version must be"},
		{"version huge", swap("version: 1", "version: 9223372036854775808"), "version must be"},
		{"epoch 0", swap("epoch: 1", "epoch: 0"), "epoch must be"},
		{"anchor", swap("domain: boutique", "domain: &d boutique"), "plain text"},
		{"alias", namespaces("{boutique: &x {signers: [a]}, boutique.b: *x}"), "mapping"},
		{"merge", namespaces("{boutique: {<<: {signers: [a]}}}"), "line"},
		{"tag", swap("epoch: 1", "epoch: !!int \"1\""), "epoch must be"},
		{"keys a list", "domain: a\nversion: 1\nepoch: 1\nkeys: []\nnamespaces: {}\n", "mapping"},
		{"key under another name", swap("  a: ", "  mallory: "), "its name is a"},
		{"key damaged", swap(a.public, a.public[:len(a.public)-4]+"AAAA"), "not a public key"},
		{"key with the hash in upper case", swap(a.public, "a+"+strings.ToUpper(a.public[2:10])+a.public[10:]), "key a"},
		{"key with a line end inside", swap(a.public, "\""+a.public[:20]+"\\n"+a.public[20:]+"\""), "key a"},
		{"key null", swap(a.public, ""), "plain text"},
		{"private key", swap(a.public, private), "private key"},
		{"key twice", swap("  b: ", "  a: "+a.public+"\n  b: "), "twice"},
		{"namespaces a list", namespaces("[boutique]"), "mapping"},
		{"namespace of another domain", namespaces("{boutiques: {signers: [a]}}"), "not in the domain"},
		{"namespace no namespace", namespaces("{boutique.Cart: {signers: [a]}}"), "label"},
		{"namespace twice", namespaces("{boutique: {signers: [a]}, boutique: {signers: [b]}}"), "twice"},
		{"namespace null", namespaces("{boutique: }"), "mapping"},
		{"unknown field of a namespace", namespaces("{boutique: {signers: [a], treshold: 2}}"), "treshold"},
		{"no signers", namespaces("{boutique: {guardrail: true}}"), "signers is missing"},
		{"empty signers", namespaces("{boutique: {signers: []}}"), "threshold is 1"},
		{"signers null", namespaces("{boutique: {signers: }}"), "list of names"},
		{"signers a string", namespaces("{boutique: {signers: a}}"), "list of names"},
		{"signer that is no key", namespaces("{boutique: {signers: [mallory]}}"), "not listed under keys"},
		{"signer twice", namespaces("{boutique: {signers: [a, a]}}"), "twice"},
		{"threshold 0", namespaces("{boutique: {signers: [a], threshold: 0}}"), "threshold must be"},
		{"threshold negative", namespaces("{boutique: {signers: [a], threshold: -1}}"), "threshold must be"},
		{"threshold a fraction that rounds down", namespaces("{boutique: {signers: [a, b], threshold: 1.9}}"), "threshold must be"},
		{"threshold null", namespaces("{boutique: {signers: [a, b], threshold: }}"), "threshold must be"},
		{"threshold out of reach", namespaces("{boutique: {signers: [a, b], threshold: 3}}"), "different keys listed is 2"},
		{"threshold that overflows", namespaces("{boutique: {signers: [a, b], threshold: 4294967297}}"), "different keys listed is 2"},
		{"threshold only reached by one key under two names", namespaces("{boutique: {signers: [same, same-again], threshold: 2}}"), "different keys listed is 1"},
		{"guardrail that is neither", namespaces("{boutique: {signers: [a], guardrail: maybe}}"), "true or false"},
		{"guardrail in words", namespaces("{boutique: {signers: [a], guardrail: yes}}"), "true or false"},
		{"guardrail null", namespaces("{boutique: {signers: [a], guardrail: }}"), "true or false"},
		{"max-staleness below the least", namespaces("{boutique: {signers: [a], max-staleness: 14s}}"), "max-staleness must be"},
		{"max-staleness in halves", namespaces("{boutique: {signers: [a], max-staleness: 15.5s}}"), "max-staleness must be"},
		{"max-staleness without a unit", namespaces("{boutique: {signers: [a], max-staleness: 60}}"), "max-staleness must be"},
		{"max-staleness of years", namespaces("{boutique: {signers: [a], max-staleness: 10000h}}"), "max-staleness must be"},
		{"max-staleness null", namespaces("{boutique: {signers: [a], max-staleness: }}"), "plain text"},
		{"when-stale that is neither", namespaces("{boutique: {signers: [a], when-stale: maybe}}"), "serve"},
		{"beacon that is no key", good + "beacons: [mallory]\n", "not listed under keys"},
		{"beacons no list", good + "beacons: a\n", "list of names"},
		{"roots without keys", good + "roots: {threshold: 1}\n", "keys is missing"},
		{"roots out of reach", good + "roots: {keys: [same, same-again], threshold: 2}\n", "different keys listed is 1"},
		{"roots a list", good + "roots: [a]\n", "mapping"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := bundles.ParseTrust([]byte(c.file))
			wantErr(t, err, policy.BadRequest, "trust file", c.says)
			if strings.Contains(err.Error(), private[len(private)-20:]) {
				t.Error("the error shows the private key")
			}
		})
	}
	t.Run("huge", func(t *testing.T) {
		_, err := bundles.ParseTrust([]byte(good + strings.Repeat("#\n", 1<<19)))
		wantErr(t, err, policy.Exhausted, "limit")
	})
	if _, err := bundles.ParseTrust([]byte(good)); err != nil {
		t.Error(err)
	}
}

func TestTrustFileOnDisk(t *testing.T) {
	k := newKey(t, "a")
	dir := t.TempDir()
	path := filepath.Join(dir, "trust.yaml")
	good := []byte(trustFile(1, "{boutique: {signers: [a]}}", k))
	_, err := bundles.LoadTrust(path)
	wantErr(t, err, policy.BadRequest, path, "microwall keygen")
	if !errors.Is(err, os.ErrNotExist) {
		t.Error("not ErrNotExist")
	}
	_, err = bundles.LoadTrust(dir)
	wantErr(t, err, policy.BadRequest, "no regular file")
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.yaml")
	if err := os.Symlink("trust.yaml", link); err != nil && runtime.GOOS != "windows" {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mode os.FileMode
		ok   bool
	}{{0o600, true}, {0o644, true}, {0o444, true}, {0o664, false}, {0o646, false}, {0o666, false}} {
		if runtime.GOOS == "windows" && !c.ok {
			continue
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{path, link} {
			trusted, err := bundles.LoadTrust(p)
			if !c.ok {
				wantErr(t, err, policy.Denied, fmt.Sprintf("%04o", c.mode), "chmod go-w "+p)
			} else if err != nil || trusted.Digest() != policy.DigestOf(good) {
				t.Errorf("%v: %v", c.mode, err)
			}
		}
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("x: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = bundles.LoadTrust(path)
	wantErr(t, err, policy.BadRequest, path, "line 1", "unknown field")
	if err := os.WriteFile(path, make([]byte, 1<<20+1), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = bundles.LoadTrust(path)
	wantErr(t, err, policy.Exhausted, path)
}

// FuzzParseTrust: a trust file that is accepted keeps its promises.
func FuzzParseTrust(f *testing.F) {
	a, b := newKey(f, "a"), newKey(f, "b")
	f.Add([]byte(trustFile(1, "{boutique: {signers: [a, b], threshold: 2, guardrail: true}, boutique.x: {signers: [b]}}", a, b)))
	f.Add([]byte(trustFile(1, "\n  boutique:\n    signers: [a]", a) + "beacons: [a]\nroots: {keys: [a]}\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		trusted, err := bundles.ParseTrust(file)
		if err != nil {
			if k := policy.KindOf(err); k != policy.BadRequest && k != policy.Exhausted {
				t.Errorf("%v has kind %v", err, k)
			}
			return
		}
		if trusted.Version() < 1 || trusted.Epoch() < 1 || trusted.Digest() != policy.DigestOf(file) {
			t.Errorf("accepted %q", file)
		}
		for _, ns := range trusted.Namespaces() {
			names, threshold := trusted.Signers(ns)
			if threshold < 1 || threshold > len(names) || ns.Domain() != trusted.Domain() {
				t.Errorf("%s: %d of %v", ns, threshold, names)
			}
		}
	})
}

// FuzzOpen: nothing opens but the text that was signed.
func FuzzOpen(f *testing.F) {
	a := newKey(f, "a")
	trusted := trust(f, "{boutique: {signers: [a]}}", a)
	r := releaseOf(read(f, folder("authz.rego", rego)))
	text, err := r.Text()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sign(f, r, a))
	f.Add(sign(f, r, newKey(f, "b"), a))
	f.Fuzz(func(t *testing.T, signed []byte) {
		s, err := trusted.Open(signed)
		if err == nil && (s.Digest() != policy.DigestOf(text) || s.Release() != withStaleness(r)) {
			t.Errorf("opened %q", signed)
		}
	})
}

// withStaleness is r as it reads once it is written.
func withStaleness(r bundles.Release) bundles.Release {
	r.MaxStaleness = bundles.DefaultMaxStaleness
	return r
}
