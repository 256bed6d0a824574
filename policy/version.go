package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

const digestPrefix = "sha256:"

// Digest is a SHA-256 sum. Its zero value stands for "none".
type Digest [sha256.Size]byte

// DigestOf returns the digest of b.
func DigestOf(b []byte) (d Digest) {
	// The sum of one block is assembly that nothing interrupts. Of 10 MB at once
	// it would hold up the start of a garbage collection for ten milliseconds,
	// and with it every decision of the process.
	const piece = 64 << 10
	h := sha256.New()
	for ; len(b) > piece; b = b[piece:] {
		h.Write(b[:piece])
	}
	h.Write(b)
	h.Sum(d[:0])
	return d
}

// ParseDigest reads what [Digest.String] writes, and nothing else.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	digits, ok := strings.CutPrefix(s, digestPrefix)
	if !ok || len(digits) != 2*len(d) || strings.ToLower(digits) != digits {
		return d, Errorf(BadRequest, "digest %.100q is not \"sha256:\" and 64 lower-case hexadecimal digits", s)
	}
	if _, err := hex.Decode(d[:], []byte(digits)); err != nil {
		return Digest{}, Errorf(BadRequest, "digest %.100q is not \"sha256:\" and 64 lower-case hexadecimal digits", s)
	}
	if d.IsZero() {
		return d, Errorf(BadRequest, "digest is all zeros, which stands for none")
	}
	return d, nil
}

// String returns "sha256:" and 64 hexadecimal digits, or "-" for none.
func (d Digest) String() string {
	if d.IsZero() {
		return "-"
	}
	return digestPrefix + d.Hex()
}

// Hex returns the 64 hexadecimal digits alone.
func (d Digest) Hex() string { return hex.EncodeToString(d[:]) }

// IsZero reports whether d stands for none.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText writes the digest as [Digest.String] does.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what [Digest.MarshalText] writes.
func (d *Digest) UnmarshalText(text []byte) error {
	if string(text) == "-" {
		*d = Digest{}
		return nil
	}
	parsed, err := ParseDigest(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}

// Version names one release of one namespace.
type Version struct {
	// Namespace that was released.
	Namespace Namespace `json:"namespace"`
	// Epoch above the revision: it is raised when a domain is rebuilt.
	Epoch uint64 `json:"epoch"`
	// Revision within the epoch, from 1. It is 0 where a folder decides that
	// nobody released.
	Revision uint64 `json:"revision"`
	// Digest of the release's text; of the bundle where nobody released it.
	Digest Digest `json:"digest"`
}

// Compare orders two versions of one namespace by epoch, then revision.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Epoch, w.Epoch), cmp.Compare(v.Revision, w.Revision))
}

// Reaches reports whether v is the release w of the same namespace, or came after
// it. Another release with w's number is neither.
func (v Version) Reaches(w Version) bool {
	order := v.Compare(w)
	return order > 0 || order == 0 && v.Digest == w.Digest
}
