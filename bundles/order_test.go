package bundles_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

func TestReleasesOnlyGoForward(t *testing.T) {
	k, l := newKey(t, "cart-ci"), newKey(t, "second")
	trusted := trustAt(t, 3, "{boutique: {signers: [cart-ci, second]}}", k, l)
	release := func(ns policy.Namespace, epoch, revision uint64, previous policy.Digest, source string, by ...key) *bundles.Signed {
		return open(t, trusted, sign(t, bundles.Release{
			Namespace: ns, Epoch: epoch, Revision: revision, Previous: previous,
			Bundle: digestA, Size: 1, Created: created, Source: source,
		}, by...))
	}
	r1 := release("boutique.cart", 2, 1, policy.Digest{}, "", k)
	r2 := release("boutique.cart", 2, 2, r1.Digest(), "", k)
	r2signedTwice := release("boutique.cart", 2, 2, r1.Digest(), "", l, k)
	r2fork := release("boutique.cart", 2, 2, r1.Digest(), "mallory", k)
	r3 := release("boutique.cart", 2, 3, r2.Digest(), "", k)
	r3fork := release("boutique.cart", 2, 3, r2fork.Digest(), "", k)
	r4fork := release("boutique.cart", 2, 4, r3fork.Digest(), "", k)
	old := release("boutique.cart", 1, 9, digestB, "", k)
	next := release("boutique.cart", 3, 1, policy.Digest{}, "", k)
	nextOn := release("boutique.cart", 3, 1, r3.Digest(), "", k)
	nextLater := release("boutique.cart", 3, 4, digestB, "", k)
	other := release("boutique.ads", 2, 3, r2.Digest(), "", k)

	const (
		follows = iota
		same
		isOld
		fork
		wrong
	)
	for _, c := range []struct {
		name       string
		held, next *bundles.Signed
		want       int
	}{
		{"first", nil, r1, follows},
		{"first seen is a later one", nil, r3, follows},
		{"next", r1, r2, follows},
		{"some were missed", r1, r3, follows},
		{"some were missed, on a branch that nobody here saw", r2, r4fork, follows},
		{"same", r2, r2, same},
		{"same with other signatures", r2, r2signedTwice, same},
		{"replay of an old release", r3, r1, isOld},
		{"replay of an old epoch with a high revision", r1, old, isOld},
		{"replay by the direct predecessor", r3, r2, isOld},
		{"two of one revision", r2, r2fork, fork},
		{"next that follows another", r2, r3fork, fork},
		{"new epoch from nothing", r3, next, follows},
		{"new epoch that names the last", r3, nextOn, follows},
		{"new epoch, some missed", r3, nextLater, follows},
		{"two of the first revision of an epoch", next, nextOn, fork},
		{"back to the epoch before", next, r3, isOld},
		{"another namespace's", r2, other, wrong},
		{"nothing", r2, nil, wrong},
		{"something that Open did not make", r2, &bundles.Signed{}, wrong},
		{"something that Open did not make, first", nil, &bundles.Signed{}, wrong},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := bundles.Follow(c.held, c.next)
			var oldErr *bundles.OldError
			var forkErr *bundles.ForkError
			switch c.want {
			case follows:
				if err != nil {
					t.Fatal(err)
				}
			case same:
				if !errors.Is(err, bundles.ErrSame) {
					t.Fatalf("%v, want ErrSame", err)
				}
			case isOld:
				wantErr(t, err, policy.Conflict, "older")
				if !errors.As(err, &oldErr) || oldErr.Held != c.held || oldErr.Next != c.next {
					t.Fatalf("%T, want an OldError with both", err)
				}
			case fork:
				wantErr(t, err, policy.Conflict, "fork", c.held.Digest().String(), c.next.Digest().String(), "cart-ci")
				if !errors.As(err, &forkErr) || forkErr.Held != c.held || forkErr.Next != c.next {
					t.Fatalf("%T, want a ForkError with both", err)
				}
			case wrong:
				wantErr(t, err, policy.BadRequest)
			}
		})
	}
}

func TestSealedReleaseComesBackAsItWas(t *testing.T) {
	b := read(t, folder("authz.rego", rego))
	k := newKey(t, "cart-ci")
	trusted := trust(t, "{boutique: {signers: [cart-ci]}}", k)
	for _, c := range []struct {
		name   string
		note   []byte
		packed []byte
	}{
		{"release", sign(t, releaseOf(b), k), bundles.Pack(b.Tar())},
		{"retirement", sign(t, bundles.Release{Namespace: "boutique", Epoch: 1, Revision: 1, Created: created}, k), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			kept := bundles.Sealed{Note: c.note, Packed: c.packed}.Append(nil)
			s, err := bundles.ParseSealed(kept)
			if err != nil {
				t.Fatal(err)
			}
			if string(s.Note) != string(c.note) || string(s.Packed) != string(c.packed) {
				t.Error("it came back changed")
			}
			open(t, trusted, s.Note)
		})
	}
}

func TestDamagedSealedReleases(t *testing.T) {
	for _, c := range []struct{ name, bytes string }{
		{"empty", ""},
		{"no note", "\x00packed"},
		{"no NUL", "a note\n"},
		{"note cut off", "a not\x00packed"},
		{"note too long", strings.Repeat("x", bundles.MaxNote) + "\n\x00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := bundles.ParseSealed([]byte(c.bytes))
			wantErr(t, err, policy.BadRequest, "damaged")
		})
	}
}

func FuzzParseSealed(f *testing.F) {
	f.Add([]byte("a note\n\x00packed\x00"))
	f.Add([]byte("a note\n\x00"))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := bundles.ParseSealed(b)
		if err != nil {
			return
		}
		if again := s.Append(nil); string(again) != string(b) {
			t.Errorf("%q becomes %q", b, again)
		}
		if len(s.Note) > bundles.MaxNote || strings.ContainsRune(string(s.Note), 0) {
			t.Errorf("note %q", s.Note)
		}
	})
}
