package bundles_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

const beaconText = `microwall beacon v1
domain: boutique
time: 2026-11-23T10:00:00.250Z
trust: 4
head: boutique 1 3 sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb
head: boutique.cart 2 7 sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d
`

func beacon() bundles.Beacon {
	return bundles.Beacon{
		Domain: "boutique", Time: created.Add(250 * time.Millisecond), Trust: 4,
		Heads: []policy.Version{
			{Namespace: "boutique.cart", Epoch: 2, Revision: 7, Digest: digestB},
			{Namespace: "boutique", Epoch: 1, Revision: 3, Digest: digestA},
		},
	}
}

// beaconTrust is a trust file in which key issuer signs beacons.
func beaconTrust(t testing.TB, issuer key, others ...key) *bundles.Trust {
	t.Helper()
	keys := append([]key{issuer}, others...)
	trusted, err := bundles.ParseTrust([]byte(trustFile(1, "{boutique: {signers: ["+keys[len(keys)-1].Name()+"]}}", keys...) + "beacons: [" + issuer.Name() + "]\n"))
	if err != nil {
		t.Fatal(err)
	}
	return trusted
}

func signBeacon(t testing.TB, b bundles.Beacon, issuer key) []byte {
	t.Helper()
	signed, err := bundles.SignBeacon(b, issuer)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestBeaconText(t *testing.T) {
	b := beacon()
	b.Time = b.Time.Add(999 * time.Microsecond).In(time.FixedZone("east", 3600))
	text, err := b.Text()
	if err != nil || string(text) != beaconText {
		t.Fatalf("%s, %v", text, err)
	}
	if b.Heads[0].Namespace != "boutique.cart" {
		t.Error("writing a beacon has changed it")
	}
	empty, err := bundles.Beacon{Domain: "boutique", Time: created}.Text()
	if err != nil || string(empty) != "microwall beacon v1\ndomain: boutique\ntime: 2026-11-23T10:00:00.000Z\ntrust: -\n" {
		t.Errorf("%s, %v", empty, err)
	}
}

func TestBeaconsThatAreNotInTheirOneSpelling(t *testing.T) {
	lines := strings.SplitAfter(beaconText, "\n")
	for name, text := range map[string]string{
		"nothing":            "",
		"header alone":       "microwall beacon v1",
		"header and line":    "microwall beacon v1\n",
		"another version":    strings.Replace(beaconText, "v1", "v2", 1),
		"a release":          plainText,
		"no domain":          strings.Join(append(lines[:1:1], lines[2:]...), ""),
		"no time":            strings.Join(append(lines[:2:2], lines[3:]...), ""),
		"no trust":           strings.Join(append(lines[:3:3], lines[4:]...), ""),
		"trust 0":            strings.Replace(beaconText, "trust: 4", "trust: 0", 1),
		"trust 04":           strings.Replace(beaconText, "trust: 4", "trust: 04", 1),
		"trust 2^63":         strings.Replace(beaconText, "trust: 4", "trust: 9223372036854775808", 1),
		"no line end":        strings.TrimSuffix(beaconText, "\n"),
		"a line more":        beaconText + "\n",
		"a field more":       beaconText + "more: 1\n",
		"spaces":             strings.Replace(beaconText, " 7 ", "  7 ", 1),
		"plus":               strings.Replace(beaconText, " 7 ", " +7 ", 1),
		"leading zero":       strings.Replace(beaconText, " 7 ", " 07 ", 1),
		"revision 0":         strings.Replace(beaconText, " 7 ", " 0 ", 1),
		"revision 2^63":      strings.Replace(beaconText, " 7 ", " 9223372036854775808 ", 1),
		"no digest":          strings.Replace(beaconText, digestB.String(), "-", 1),
		"upper case":         strings.Replace(beaconText, digestB.String(), "sha256:"+strings.ToUpper(digestB.Hex()), 1),
		"another zone":       strings.Replace(beaconText, "250Z", "250+00:00", 1),
		"no milliseconds":    strings.Replace(beaconText, ".250Z", "Z", 1),
		"microseconds":       strings.Replace(beaconText, ".250Z", ".250000Z", 1),
		"a namespace twice":  beaconText + lines[5],
		"wrong order":        lines[0] + lines[1] + lines[2] + lines[3] + lines[5] + lines[4],
		"another domain":     strings.Replace(beaconText, "boutique.cart", "bank.cart", 1),
		"no namespace":       strings.Replace(beaconText, "boutique.cart", "Boutique.cart", 1),
		"domain of two":      strings.Replace(beaconText, "domain: boutique", "domain: boutique.cart", 1),
		"carriage returns":   strings.ReplaceAll(beaconText, "\n", "\r\n"),
		"a hundred thousand": beaconText + strings.Repeat(lines[5], 100_000),
	} {
		if b, err := bundles.ParseBeacon([]byte(text)); err == nil {
			t.Errorf("%s: taken as %+v", name, b)
		} else if kind := policy.KindOf(err); kind != policy.BadRequest && kind != policy.Exhausted {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhoMaySignBeacons(t *testing.T) {
	issuer, cart, stranger := newKey(t, "issuer"), newKey(t, "cart-ci"), newKey(t, "stranger")
	trusted := beaconTrust(t, issuer, cart)
	opened, err := trusted.OpenBeacon(signBeacon(t, beacon(), issuer))
	if err != nil {
		t.Fatal(err)
	}
	head, ok := opened.Head("boutique.cart")
	if !ok || head.Revision != 7 || head.Digest != digestB || !opened.Time().Equal(created.Add(250*time.Millisecond)) || opened.Issuer() != "issuer" {
		t.Errorf("opened %+v, %v at %v", head, ok, opened.Time())
	}
	if opened.Trust() != 4 {
		t.Errorf("version %d of the trust file", opened.Trust())
	}
	if _, ok := opened.Head("boutique.pay"); ok {
		t.Error("it speaks of a namespace that it does not name")
	}

	good := string(signBeacon(t, beacon(), issuer))
	foreign := beacon()
	foreign.Domain, foreign.Heads = "bank", nil
	first, second := twice(t, "issuer")
	for _, c := range []struct {
		attack string
		note   []byte
		kind   policy.Kind
		says   string
	}{
		{"a stranger signs", signBeacon(t, beacon(), stranger), policy.Denied, "none of the keys"},
		{"an author signs", signBeacon(t, beacon(), cart), policy.Denied, "none of the keys"},
		{"another key of the issuer's name signs", signBeacon(t, beacon(), first), policy.Denied, "none of the keys"},
		{"so does a third", signBeacon(t, beacon(), second), policy.Denied, "none of the keys"},
		{"the text is changed", []byte(strings.Replace(good, " 7 ", " 8 ", 1)), policy.Denied, "changed after it was signed"},
		{"the time is changed", []byte(strings.Replace(good, "10:00:00", "11:00:00", 1)), policy.Denied, "changed after it was signed"},
		{"it is of another domain", signBeacon(t, foreign, issuer), policy.Denied, "domain"},
		{"it is a release", sign(t, fullRelease(), issuer), policy.BadRequest, "begins with"},
		{"it is huge", append([]byte(good), make([]byte, bundles.MaxNote)...), policy.Exhausted, "limit"},
		{"it is no note", []byte(beaconText), policy.BadRequest, "not a signed beacon"},
	} {
		t.Run(c.attack, func(t *testing.T) {
			_, err := trusted.OpenBeacon(c.note)
			wantErr(t, err, c.kind, c.says)
		})
	}
	t.Run("nobody may", func(t *testing.T) {
		_, err := trust(t, "{boutique: {signers: [issuer]}}", issuer).OpenBeacon([]byte(good))
		wantErr(t, err, policy.Denied, "none of the keys")
	})
	t.Run("a beacon is pushed as a release", func(t *testing.T) {
		_, err := trusted.Open([]byte(good))
		wantErr(t, err, policy.BadRequest, "begins with")
	})
}

func TestABeaconThatDoesNotFitIsNotSigned(t *testing.T) {
	issuer := newKey(t, "issuer")
	b := beacon()
	b.Heads = nil
	for i := range 200 {
		b.Heads = append(b.Heads, policy.Version{Namespace: policy.Namespace("boutique.n" + strings.Repeat("x", i%50) + string(rune('a'+i/50))), Epoch: 1, Revision: 1, Digest: digestA})
	}
	_, err := bundles.SignBeacon(b, issuer)
	wantErr(t, err, policy.Exhausted, "fewer namespaces")
	b.Heads = append(b.Heads[:1:1], b.Heads[0])
	_, err = bundles.SignBeacon(b, issuer)
	wantErr(t, err, policy.BadRequest, "twice")
}

func FuzzParseBeacon(f *testing.F) {
	f.Add([]byte(beaconText))
	f.Add([]byte("microwall beacon v1\ndomain: boutique\ntime: 2026-11-23T10:00:00.000Z\ntrust: -\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := bundles.ParseBeacon(text)
		if err != nil {
			return
		}
		again, err := b.Text()
		if err != nil || !bytes.Equal(again, text) {
			t.Errorf("%q becomes %q, %v", text, again, err)
		}
	})
}
