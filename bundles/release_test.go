package bundles_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

var (
	digestA = policy.DigestOf([]byte("a"))
	digestB = policy.DigestOf([]byte("b"))
	digestC = policy.DigestOf([]byte("c"))
)

const fullText = `microwall release v1
namespace: boutique.cart
epoch: 2
revision: 7
previous: sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb
bundle: sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d
size: 10240
created: 2026-11-23T10:00:00Z
author: Jörg <joerg@example.com>
source: 3f2c9e1
max-staleness: 60s
when-stale: deny
canary: 5
patch: sha256:2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6
`

func fullRelease() bundles.Release {
	return bundles.Release{
		Namespace: "boutique.cart", Epoch: 2, Revision: 7, Previous: digestA,
		Bundle: digestB, Size: 10240, Created: created,
		Author: "Jörg <joerg@example.com>", Source: "3f2c9e1",
		MaxStaleness: time.Minute, WhenStale: bundles.Deny, Canary: 5, Patch: digestC,
	}
}

const plainText = `microwall release v1
namespace: boutique
epoch: 1
revision: 1
previous: -
bundle: sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb
size: 1
created: 2026-11-23T10:00:00Z
author: -
source: -
max-staleness: 3600s
when-stale: serve
canary: -
patch: -
`

const retiredText = `microwall release v1
namespace: boutique
epoch: 1
revision: 2
previous: sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb
bundle: -
size: -
created: 2026-11-23T10:00:00Z
author: -
source: -
max-staleness: 3600s
when-stale: serve
canary: -
patch: -
`

func TestReleaseText(t *testing.T) {
	zone := time.FixedZone("east", 3600)
	for _, c := range []struct {
		name    string
		release bundles.Release
		want    string
	}{
		{"everything", fullRelease(), fullText},
		{"defaults", bundles.Release{Namespace: "boutique", Epoch: 1, Revision: 1, Bundle: digestA, Size: 1,
			Created: created.In(zone).Add(999 * time.Millisecond)}, plainText},
		{"retirement", bundles.Release{Namespace: "boutique", Epoch: 1, Revision: 2, Previous: digestA, Created: created}, retiredText},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, err := c.release.Text()
			if err != nil {
				t.Fatal(err)
			}
			if string(text) != c.want {
				t.Errorf("got\n%s, want\n%s", text, c.want)
			}
			r, err := bundles.ParseRelease(text)
			if err != nil {
				t.Fatal(err)
			}
			if r.Retired() != (c.name == "retirement") || r.MaxStaleness == 0 {
				t.Errorf("parsed as %+v", r)
			}
			if again, err := r.Text(); err != nil || !bytes.Equal(again, text) {
				t.Errorf("again\n%s, %v", again, err)
			}
		})
	}
}

func TestReleasesThatAreNone(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*bundles.Release)
		says   string
	}{
		{"no namespace", func(r *bundles.Release) { r.Namespace = "" }, "namespace"},
		{"namespace with a line", func(r *bundles.Release) { r.Namespace = "boutique\nepoch: 9" }, "label"},
		{"epoch 0", func(r *bundles.Release) { r.Epoch = 0 }, "epoch"},
		{"epoch that is negative elsewhere", func(r *bundles.Release) { r.Epoch = 1 << 63 }, "epoch"},
		{"revision 0", func(r *bundles.Release) { r.Revision = 0 }, "revision"},
		{"revision that is negative elsewhere", func(r *bundles.Release) { r.Revision = 1 << 63 }, "revision"},
		{"later revision that follows nothing", func(r *bundles.Release) { r.Previous, r.Patch = policy.Digest{}, policy.Digest{} }, "previous"},
		{"first revision that follows something", func(r *bundles.Release) { r.Epoch, r.Revision = 1, 1 }, "previous"},
		{"no size", func(r *bundles.Release) { r.Size = 0 }, "size"},
		{"negative size", func(r *bundles.Release) { r.Size = -1 }, "size"},
		{"retirement with a size", func(r *bundles.Release) { r.Bundle, r.Canary, r.Patch = policy.Digest{}, 0, policy.Digest{} }, "retires"},
		{"retirement of some", func(r *bundles.Release) { r.Bundle, r.Size, r.Patch = policy.Digest{}, 0, policy.Digest{} }, "retires"},
		{"retirement with a patch", func(r *bundles.Release) { r.Bundle, r.Size, r.Canary = policy.Digest{}, 0, 0 }, "retires"},
		{"no time", func(r *bundles.Release) { r.Created = time.Time{} }, "created"},
		{"time beyond four digits", func(r *bundles.Release) { r.Created = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "created"},
		{"too fresh to hold", func(r *bundles.Release) { r.MaxStaleness = 14 * time.Second }, "max-staleness"},
		{"stale for years", func(r *bundles.Release) { r.MaxStaleness = 367 * 24 * time.Hour }, "max-staleness"},
		{"negative staleness", func(r *bundles.Release) { r.MaxStaleness = -time.Hour }, "max-staleness"},
		{"part of a second", func(r *bundles.Release) { r.MaxStaleness = 15500 * time.Millisecond }, "max-staleness"},
		{"unknown rule", func(r *bundles.Release) { r.WhenStale = 2 }, "when-stale"},
		{"canary for all", func(r *bundles.Release) { r.Canary = 100 }, "canary"},
		{"negative canary", func(r *bundles.Release) { r.Canary = -1 }, "canary"},
		{"patch on nothing", func(r *bundles.Release) { r.Revision, r.Previous = 1, policy.Digest{} }, "patch"},
		{"author with a line", func(r *bundles.Release) { r.Author = "a\nsource: b" }, "author"},
		{"author with another kind of line", func(r *bundles.Release) { r.Author = "a\u2028b" }, "author"},
		{"author that turns direction", func(r *bundles.Release) { r.Author = "a\u202eb" }, "author"},
		{"author none", func(r *bundles.Release) { r.Author = "-" }, "author"},
		{"author with space around", func(r *bundles.Release) { r.Author = " a" }, "author"},
		{"author too long", func(r *bundles.Release) { r.Author = strings.Repeat("x", 257) }, "author"},
		{"author not UTF-8", func(r *bundles.Release) { r.Author = "\xff" }, "author"},
		{"source with a tab", func(r *bundles.Release) { r.Source = "a\tb" }, "source"},
		{"source with a NUL", func(r *bundles.Release) { r.Source = "a\x00b" }, "source"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := fullRelease()
			c.change(&r)
			_, err := r.Text()
			wantErr(t, err, policy.BadRequest, c.says)
			_, err = bundles.Sign(r, newKey(t, "cart-ci"))
			wantErr(t, err, policy.BadRequest, c.says)
		})
	}
}

func TestReleaseTextsThatAreNotTheOneSpelling(t *testing.T) {
	swap := func(old, by string) string {
		if !strings.Contains(fullText, old) {
			t.Fatalf("no %q in the text", old)
		}
		return strings.Replace(fullText, old, by, 1)
	}
	for _, c := range []struct{ attack, text, says string }{
		{"empty", "", "begins with"},
		{"later version", swap("v1", "v2"), "later version"},
		{"something else that was signed", "microwall beacon v1\n", "begins with"},
		{"header only", "microwall release v1\n", "lines"},
		{"no last line end", strings.TrimSuffix(fullText, "\n"), "lines"},
		{"extra line", fullText + "evil: 1\n", "lines"},
		{"empty line at the end", fullText + "\n", "lines"},
		{"line twice", swap("epoch: 2\n", "epoch: 2\nepoch: 2\n"), "lines"},
		{"line twice in place of another", swap("revision: 7\n", "epoch: 2\n"), `"revision: "`},
		{"line missing", swap("canary: 5\n", ""), "lines"},
		{"out of order", swap("epoch: 2\nrevision: 7\n", "revision: 7\nepoch: 2\n"), `"epoch: "`},
		{"key in another case", swap("epoch", "Epoch"), `"epoch: "`},
		{"no space", swap("epoch: 2", "epoch:2"), `"epoch: "`},
		{"two spaces", swap("epoch: 2", "epoch:  2"), "epoch"},
		{"space at the end", swap("epoch: 2", "epoch: 2 "), "epoch"},
		{"carriage return", swap("epoch: 2\n", "epoch: 2\r\n"), "epoch"},
		{"leading zero", swap("epoch: 2", "epoch: 02"), "one spelling"},
		{"plus", swap("epoch: 2", "epoch: +2"), "epoch"},
		{"minus", swap("epoch: 2", "epoch: -2"), "epoch"},
		{"hexadecimal", swap("epoch: 2", "epoch: 0x2"), "epoch"},
		{"none where a number must be", swap("epoch: 2", "epoch: -"), "epoch"},
		{"over the range", swap("epoch: 2", "epoch: 9223372036854775808"), "epoch"},
		{"over any range", swap("epoch: 2", "epoch: 99999999999999999999999"), "epoch"},
		{"size 0 for none", swap("size: 10240", "size: 0"), "size"},
		{"size plus", swap("size: 10240", "size: +10240"), "one spelling"},
		{"digest in upper case", swap("ca978112", "CA978112"), "digest"},
		{"digest too short", swap("ca978112", "ca9781"), "digest"},
		{"digest of another kind", swap("bundle: sha256", "bundle: sha512"), "digest"},
		{"digest of zeros", swap("3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d", strings.Repeat("0", 64)), "zeros"},
		{"time in another zone", swap("10:00:00Z", "11:00:00+01:00"), "one spelling"},
		{"time with a zone of zero", swap("10:00:00Z", "10:00:00+00:00"), "one spelling"},
		{"time with a fraction", swap("10:00:00Z", "10:00:00.5Z"), "one spelling"},
		{"time with a fraction of zero", swap("10:00:00Z", "10:00:00.0Z"), "one spelling"},
		{"time with a comma", swap("10:00:00Z", "10:00:00,0Z"), "one spelling"},
		{"day that is none", swap("11-23", "02-30"), "created"},
		{"second 60", swap("10:00:00Z", "10:00:60Z"), "created"},
		{"author empty", swap("author: Jörg <joerg@example.com>", "author: "), "one spelling"},
		{"author not UTF-8", swap("Jörg", "J\xf6rg"), "author"},
		{"minutes", swap("60s", "1m"), "max-staleness"},
		{"seconds without a unit", swap("60s", "60"), "max-staleness"},
		{"seconds with a zero before", swap("60s", "060s"), "one spelling"},
		{"seconds of centuries", swap("60s", "99999999999999s"), "max-staleness"},
		{"seconds that overflow to something small", swap("60s", "18446744133s"), "max-staleness"},
		{"default staleness by none", swap("60s", "-"), "max-staleness"},
		{"zero staleness, the default of a struct", swap("60s", "0s"), "one spelling"},
		{"rule in another case", swap("deny", "Deny"), "when-stale"},
		{"canary 0", swap("canary: 5", "canary: 0"), "one spelling"},
		{"canary that overflows", swap("canary: 5", "canary: 4294967301"), "canary"},
		{"retired, with the rest of a release", swap("bundle: sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d", "bundle: -"), "retires"},
	} {
		t.Run(c.attack, func(t *testing.T) {
			r, err := bundles.ParseRelease([]byte(c.text))
			wantErr(t, err, policy.BadRequest, c.says)
			if r != (bundles.Release{}) {
				t.Error("a refused text left something of itself")
			}
		})
	}
	t.Run("huge", func(t *testing.T) {
		_, err := bundles.ParseRelease(make([]byte, bundles.MaxNote+1))
		wantErr(t, err, policy.Exhausted, "limit")
	})
}

func TestWhenStaleHasTwoSpellings(t *testing.T) {
	for _, w := range []bundles.WhenStale{bundles.Serve, bundles.Deny} {
		if got, err := bundles.ParseWhenStale(w.String()); err != nil || got != w {
			t.Errorf("%v becomes %v, %v", w, got, err)
		}
	}
	_, err := bundles.ParseWhenStale("SERVE")
	wantErr(t, err, policy.BadRequest, "serve", "deny")
}

func TestNobodySigns(t *testing.T) {
	_, err := bundles.Sign(fullRelease())
	wantErr(t, err, policy.BadRequest, "nobody signs", "--key")
}

func FuzzParseRelease(f *testing.F) {
	f.Add([]byte(fullText))
	f.Add([]byte(plainText))
	f.Add([]byte(retiredText))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := bundles.ParseRelease(text)
		if err != nil {
			return
		}
		again, err := r.Text()
		if err != nil || !bytes.Equal(again, text) {
			t.Errorf("%q becomes %q, %v", text, again, err)
		}
	})
}
