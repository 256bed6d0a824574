package bundles

import (
	"bytes"

	"github.com/microwall/microwall/policy"
)

// Sealed is what a disk keeps of a release: the bytes that were verified, so
// that they can be verified again.
//
// Its form is the signed note, one NUL, and the packed bundle, which a
// retirement has none of. A note holds no control character but the line feed,
// so the first NUL is the one between the two.
type Sealed struct {
	// Note is the signed release, as [Signed.Note] returns it.
	Note []byte
	// Packed is the bundle as it arrived, see [Pack].
	Packed []byte
}

// Pieces returns what s consists of, one after the other, without copying any.
func (s Sealed) Pieces() [][]byte { return [][]byte{s.Note, {0}, s.Packed} }

// Append appends s to dst.
func (s Sealed) Append(dst []byte) []byte {
	for _, piece := range s.Pieces() {
		dst = append(dst, piece...)
	}
	return dst
}

// ParseSealed takes apart what [Sealed.Append] put together, in place. It
// verifies nothing: that is for [Trust.Open] and [Signed.Unpack].
func ParseSealed(b []byte) (Sealed, error) {
	// What is longer than a note may be is not searched through.
	i := bytes.IndexByte(b[:min(len(b), MaxNote+1)], 0)
	if i <= 0 || b[i-1] != '\n' {
		return Sealed{}, policy.Errorf(policy.BadRequest, "the stored release is damaged: it does not begin with a signed note; delete it, and it is fetched again")
	}
	return Sealed{Note: b[:i:i], Packed: b[i+1:]}, nil
}
