package bundles

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math"

	"github.com/microwall/microwall/policy"
)

// Limits bound a bundle before it is looked at any further. A field that is
// zero has its default.
type Limits struct {
	// Packed is how many bytes a bundle has at most in transport. Zero is
	// 128 MiB.
	Packed int64
	// Unpacked is how many bytes its tar has at most. Zero is 512 MiB.
	Unpacked int64
}

// WithDefaults returns l with its zero fields replaced by their defaults.
func (l Limits) WithDefaults() Limits {
	if l.Packed == 0 {
		l.Packed = 128 << 20
	}
	if l.Unpacked == 0 {
		l.Unpacked = 512 << 20
	}
	return l
}

// Pack compresses a tar for transport (gzip, RFC 1952).
func Pack(tar []byte) []byte {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	// Writing to memory does not fail.
	_, _ = w.Write(tar)
	_ = w.Close()
	return packed.Bytes()
}

// unpack decompresses a tar of which the size and the digest are known. It
// believes neither what gzip says of the size nor the size itself: memory grows
// only with what really arrives, and ends at size.
func unpack(packed io.Reader, size int64, digest policy.Digest, l Limits) ([]byte, error) {
	l = l.WithDefaults()
	if size > l.Unpacked {
		return nil, policy.Errorf(policy.Exhausted, "bundle is %d bytes unpacked, the limit is %d; make it smaller, or raise --max-bundle-unpacked", size, l.Unpacked)
	}
	limited := &limitedReader{r: packed, left: l.Packed, most: l.Packed}
	buffered := bufio.NewReader(limited)
	tar, err := gunzip(buffered, size)
	if err != nil {
		if own, ok := errors.AsType[*policy.Error](err); ok {
			return nil, own
		}
		if limited.err != nil {
			return nil, policy.Errorf(policy.Unavailable, "the bundle did not arrive whole: %w; fetch it again", limited.err)
		}
		return nil, policy.Errorf(policy.BadRequest, "bundle is not the gzip that it must be: %w; fetch it again", err)
	}
	if got := policy.DigestOf(tar); got != digest {
		return nil, policy.Errorf(policy.BadRequest, "bundle has digest %s, signed was %s; it is not the bundle of this release", got, digest)
	}
	return tar, nil
}

// gunzip returns the one member of a gzip stream, which must be size bytes and
// be followed by nothing.
func gunzip(r *bufio.Reader, size int64) ([]byte, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	z.Multistream(false)
	// One byte more than signed tells a larger bundle from one that fits, and
	// lets the reader see the end, where gzip has its check sum.
	most := min(size, math.MaxInt64-1) + 1
	tar := make([]byte, 0, min(most, 64<<10))
	for {
		if len(tar) == cap(tar) {
			tar = grow(tar, min(most, 2*int64(cap(tar))))
		}
		n, err := z.Read(tar[len(tar):cap(tar)])
		tar = tar[:len(tar)+n]
		if int64(len(tar)) > size {
			return nil, policy.Errorf(policy.BadRequest, "bundle is larger than the %d bytes that were signed; it is not the bundle of this release", size)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if int64(len(tar)) < size {
		return nil, policy.Errorf(policy.BadRequest, "bundle is %d bytes, signed were %d; it is not the bundle of this release", len(tar), size)
	}
	if _, err := r.Peek(1); err == nil {
		return nil, policy.Errorf(policy.BadRequest, "something follows the bundle; it is not what was packed")
	} else if err != io.EOF {
		return nil, err
	}
	return tar, nil
}

// grow returns b with room for so many bytes. Nothing interrupts the copying of a
// large slice at once, into memory that is new to the process: for that long it
// holds up a garbage collection, and with it every decision.
func grow(b []byte, to int64) []byte {
	const piece = 64 << 10
	grown := make([]byte, 0, to)
	for ; len(b) > piece; b = b[piece:] {
		grown = append(grown, b[:piece]...)
	}
	return append(grown, b...)
}

// limitedReader fails, rather than ends, after most bytes, and keeps the error
// of what it reads from.
type limitedReader struct {
	r          io.Reader
	left, most int64
	err        error
}

func (l *limitedReader) Read(p []byte) (int, error) {
	if int64(len(p))-1 > l.left {
		p = p[:l.left+1]
	}
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, policy.Errorf(policy.Exhausted, "bundle is larger than %d bytes packed; make it smaller, or raise --max-bundle-packed", l.most)
	}
	if err != nil && err != io.EOF {
		l.err = err
	}
	return n, err
}
