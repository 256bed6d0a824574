package jetstream

import (
	"bytes"
	"strings"
	"testing"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

func TestAHeadMessageHasOneForm(t *testing.T) {
	sum := policy.DigestOf(nil)
	for _, m := range []message{
		{note: []byte("retired")},
		{note: []byte("n"), packed: []byte{0}},
		{note: bytes.Repeat([]byte("n"), bundles.MaxNote), packed: make([]byte, MaxInline)},
		{note: []byte("n"), chunks: []policy.Digest{sum}},
		{note: bytes.Repeat([]byte("n"), bundles.MaxNote), chunks: make([]policy.Digest, maxChunks)},
	} {
		b := m.append(nil)
		got, err := parseMessage(b)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.note, m.note) || !bytes.Equal(got.packed, m.packed) || len(got.chunks) != len(m.chunks) || !bytes.Equal(got.append(nil), b) {
			t.Errorf("%.20q came back as %.20q", b, got.append(nil))
		}
	}
}

func TestAMalformedHeadMessageIsRefused(t *testing.T) {
	for name, tt := range map[string]struct{ b, says string }{
		"empty":               {"", "no note"},
		"no note":             {"\x00Ibundle", "no note"},
		"nothing behind NUL":  {"note\x00", "ends where"},
		"empty bundle":        {"note\x00I", "ends where"},
		"no chunks":           {"note\x00C", "ends where"},
		"unknown form":        {"note\x00Zabc", "unknown form 'Z'"},
		"half a sum":          {"note\x00C" + strings.Repeat("s", 33), "33 bytes"},
		"too many chunks":     {"note\x00C" + strings.Repeat("s", 32*(maxChunks+1)), "lists chunks"},
		"bundle too large":    {"note\x00I" + strings.Repeat("b", MaxInline+1), "limit is 65536"},
		"note too large":      {strings.Repeat("n", bundles.MaxNote+1), "limit is 16384"},
		"message too large":   {strings.Repeat("n", maxHead+1), "head message is"},
		"note of a megabyte":  {strings.Repeat("n", 1<<20) + "\x00Ib", "head message is"},
		"nothing but a NUL":   {"\x00", "no note"},
		"bundle before note":  {"\x00I\x00note", "no note"},
		"lower case form":     {"note\x00ibundle", "unknown form"},
		"two NULs in a row":   {"note\x00\x00", "ends where"},
		"NULs where form was": {"note\x00\x00\x00", "unknown form"},
	} {
		if m, err := parseMessage([]byte(tt.b)); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
}

func FuzzParseHead(f *testing.F) {
	f.Add([]byte("note"))
	f.Add([]byte("note\x00Ibundle\x00more"))
	f.Add([]byte("note\x00C" + strings.Repeat("s", 64)))
	f.Add([]byte("note\x00C123"))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMessage(b)
		if err != nil {
			return
		}
		if !bytes.Equal(m.append(nil), b) {
			t.Errorf("%q has another form: %q", b, m.append(nil))
		}
		if len(m.note) == 0 || len(m.note) > bundles.MaxNote || len(m.packed) > MaxInline || len(m.chunks) > maxChunks || len(m.packed) > 0 && len(m.chunks) > 0 {
			t.Errorf("%q is beyond the bounds", b)
		}
	})
}

func FuzzParseAnnouncement(f *testing.F) {
	f.Add([]byte("version: 7\n"))
	f.Add([]byte("version: 07\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if version, ok := parseAnnouncement(b); ok && !bytes.Equal(announcement(version), b) {
			t.Errorf("%q has another form", b)
		}
	})
}

func FuzzParseToken(f *testing.F) {
	f.Add("boutique_cart")
	f.Add("boutique.cart")
	f.Add("boutique_>")
	f.Add("_")
	f.Fuzz(func(t *testing.T, s string) {
		ns, err := parseToken("boutique", s)
		if err != nil {
			return
		}
		if strings.ContainsAny(s, ".*> \t\r\n") {
			t.Errorf("%q is a namespace", s)
		}
		if token(ns) != s || ns.Domain() != "boutique" {
			t.Errorf("%q became %q", s, ns)
		}
	})
}
