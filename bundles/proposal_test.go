package bundles_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

func TestAReleaseThatWaitsForMoreSignaturesSaysWhoMayGiveThem(t *testing.T) {
	p1, p2, again, stranger := newKey(t, "p1"), newKey(t, "p2"), newKey(t, "p1"), newKey(t, "stranger")
	trusted := trust(t, `
  boutique: {signers: [p1, p2], threshold: 2}
`, p1, p2)
	r := fullRelease()
	r.Namespace, r.Epoch, r.Revision, r.Previous, r.Patch = "boutique", 1, 1, policy.Digest{}, policy.Digest{}
	for _, c := range []struct {
		name string
		by   []key
		want string // signers, able, missing; "" if it is refused
	}{
		{"one", []key{p1}, "[p1] [p2] 1"},
		{"one and a stranger", []key{stranger, p2}, "[p2] [p1] 1"},
		{"both", []key{p1, p2}, "[p1 p2] [] 0"},
		{"a stranger alone", []key{stranger}, ""},
		{"somebody of the same name", []key{again}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			signed := sign(t, r, c.by...)
			p, err := trusted.Propose(signed)
			if c.want == "" {
				var unverified *bundles.UnverifiedError
				if p != nil || !errors.As(err, &unverified) {
					t.Fatalf("got %v, %v", p, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(p.Signers(), p.Able(), p.Missing()); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if p.Release() != r || !bytes.Equal(p.Note(), signed) {
				t.Error("it is another release than the one that was signed")
			}
			s, err := trusted.Open(signed)
			if (err == nil) != (p.Missing() == 0) || err == nil && s.Digest() != p.Digest() {
				t.Errorf("%d are missing, and it opens: %v", p.Missing(), err)
			}
		})
	}
	if _, err := trusted.Propose(bytes.Replace(sign(t, r, p1), []byte("boutique"), []byte("boutiqua"), 1)); err == nil {
		t.Error("what was changed after it was signed is a proposal")
	}
}
