package bundles_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

// signedRelease is a release of b whose statement was changed before it was
// signed.
func signedRelease(t testing.TB, b *bundles.Bundle, change func(*bundles.Release)) *bundles.Signed {
	t.Helper()
	cart := newKey(t, "cart-ci")
	r := releaseOf(b)
	if change != nil {
		change(&r)
	}
	return open(t, trust(t, "{boutique: {signers: [cart-ci]}}", cart), sign(t, r, cart))
}

func TestBundlesThatAreNotWhatWasSigned(t *testing.T) {
	b := read(t, folder("authz.rego", rego, "data.json", `{"a":1}`))
	size := int64(len(b.Tar()))
	other := read(t, folder("authz.rego", strings.Replace(rego, "alice", "mally", 1), "data.json", `{"a":1}`))
	packed := bundles.Pack(b.Tar())
	change := func(f func(p []byte) []byte) []byte { return f(bytes.Clone(packed)) }
	header := func(h gzip.Header) []byte {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		w.Header = h
		if _, err := w.Write(b.Tar()); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	notCanonical := writeTar(t, entry{"../evil.rego", rego, nil})
	for _, c := range []struct {
		attack string
		packed []byte
		signed func(*bundles.Release)
		says   string
	}{
		{"another bundle of the same size", bundles.Pack(other.Tar()), nil, "digest"},
		{"size larger than signed", bundles.Pack(append(bytes.Clone(b.Tar()), 0)), nil, "larger than the"},
		{"size smaller than signed", bundles.Pack(b.Tar()[:size-1]), nil, "signed were"},
		{"signed size too small", packed, func(r *bundles.Release) { r.Size = size - 1 }, "larger than the"},
		{"signed size too large", packed, func(r *bundles.Release) { r.Size = size + 1 }, "signed were"},
		{"signed size beyond any memory", packed, func(r *bundles.Release) { r.Size = 500 << 20 }, "signed were"},
		{"signed tar that is no bundle", bundles.Pack(notCanonical), func(r *bundles.Release) {
			r.Bundle, r.Size = policy.DigestOf(notCanonical), int64(len(notCanonical))
		}, "does not begin with"},
		{"nothing", nil, nil, "EOF"},
		{"no gzip", b.Tar(), nil, "gzip"},
		{"truncated", packed[:len(packed)/2], nil, "EOF"},
		{"truncated trailer", packed[:len(packed)-1], nil, "EOF"},
		{"trailing byte", change(func(p []byte) []byte { return append(p, 0) }), nil, "follows"},
		{"second member, empty", change(func(p []byte) []byte { return append(p, bundles.Pack(nil)...) }), nil, "follows"},
		{"second member", change(func(p []byte) []byte { return append(p, p...) }), nil, "follows"},
		{"bundle in two members", append(bundles.Pack(b.Tar()[:512]), bundles.Pack(b.Tar()[512:])...), nil, "signed were"},
		{"forged size in the trailer", change(func(p []byte) []byte {
			binary.LittleEndian.PutUint32(p[len(p)-4:], 0xffffffff)
			return p
		}), nil, "checksum"},
		{"forged check sum in the trailer", change(func(p []byte) []byte {
			binary.LittleEndian.PutUint32(p[len(p)-8:], crc32.ChecksumIEEE(other.Tar()))
			return p
		}), nil, "checksum"},
		{"unknown method in the header", change(func(p []byte) []byte { p[2] = 9; return p }), nil, "header"},
		{"check sum of a header that has none", change(func(p []byte) []byte { p[3] |= 2; return p }), nil, "header"},
		{"extra field that claims 64 KB", change(func(p []byte) []byte {
			p[3] |= 4
			return append(p[:10:10], append([]byte{0xff, 0xff}, p[10:]...)...)
		}), nil, "EOF"},
		{"name without an end", change(func(p []byte) []byte {
			p[3] |= 8
			return append(p[:10:10], bytes.Repeat([]byte{'x'}, 1<<16)...)
		}), nil, "header"},
	} {
		t.Run(c.attack, func(t *testing.T) {
			s := signedRelease(t, b, c.signed)
			_, err := s.Unpack(bytes.NewReader(c.packed), bundles.Limits{})
			wantErr(t, err, policy.BadRequest, "boutique.cart revision 1", c.says)
		})
	}
	t.Run("harmless header", func(t *testing.T) {
		if _, err := signedRelease(t, b, nil).Unpack(bytes.NewReader(header(gzip.Header{Name: "../evil", Comment: "c", Extra: []byte("x")})), bundles.Limits{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("byte by byte", func(t *testing.T) {
		if _, err := signedRelease(t, b, nil).Unpack(iotest.OneByteReader(bytes.NewReader(packed)), bundles.Limits{}); err != nil {
			t.Error(err)
		}
	})
}

// endless counts how much is read of a stream that does not end.
type endless struct {
	r    io.Reader
	read int64
}

func (e *endless) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.read += int64(n)
	return n, err
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// bomb is a gzip of so many zeros.
func bomb(t testing.TB, size int64) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := io.CopyN(w, zeros{}, size); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// allocated returns how many bytes f allocates in all.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestZipBombIsStoppedAtTheSignedSize(t *testing.T) {
	b := read(t, folder("authz.rego", rego))
	s := signedRelease(t, b, nil)
	packed := bomb(t, 16<<20)
	used := allocated(func() {
		_, err := s.Unpack(bytes.NewReader(packed), bundles.Limits{})
		wantErr(t, err, policy.BadRequest, "larger than the")
	})
	if used > 1<<20 {
		t.Errorf("a bundle of %d bytes made it allocate %d bytes", len(b.Tar()), used)
	}
}

func TestForgedSizeCostsNoMemory(t *testing.T) {
	b := read(t, folder("authz.rego", rego))
	s := signedRelease(t, b, func(r *bundles.Release) { r.Size = 512 << 20 })
	packed := bundles.Pack(b.Tar())
	used := allocated(func() {
		_, err := s.Unpack(bytes.NewReader(packed), bundles.Limits{})
		wantErr(t, err, policy.BadRequest, "signed were")
	})
	if used > 1<<20 {
		t.Errorf("a claim of 512 MiB made it allocate %d bytes", used)
	}
}

func TestLimitsAreCheckedBeforeReading(t *testing.T) {
	b := read(t, folder("authz.rego", rego))
	t.Run("unpacked", func(t *testing.T) {
		for _, c := range []struct {
			size int64
			l    bundles.Limits
		}{
			{512<<20 + 1, bundles.Limits{}},
			{1<<63 - 1, bundles.Limits{}},
			{int64(len(b.Tar())), bundles.Limits{Unpacked: int64(len(b.Tar())) - 1}},
		} {
			s := signedRelease(t, b, func(r *bundles.Release) { r.Size = c.size })
			in := &endless{r: bytes.NewReader(bundles.Pack(b.Tar()))}
			_, err := s.Unpack(in, c.l)
			wantErr(t, err, policy.Exhausted, "limit", "--max-bundle-unpacked")
			if in.read != 0 {
				t.Errorf("read %d bytes of a bundle of %d", in.read, c.size)
			}
		}
	})
	t.Run("packed", func(t *testing.T) {
		// Blocks of stored nothing: a gzip that never gets anywhere.
		in := &endless{r: io.MultiReader(bytes.NewReader(bundles.Pack(nil)[:10]), &repeat{[]byte{0, 0, 0, 0xff, 0xff}, 0})}
		_, err := signedRelease(t, b, nil).Unpack(in, bundles.Limits{Packed: 1 << 20})
		wantErr(t, err, policy.Exhausted, "1048576 bytes packed", "--max-bundle-packed")
		if in.read > 1<<20+1 {
			t.Errorf("read %d bytes", in.read)
		}
	})
	t.Run("packed to the byte", func(t *testing.T) {
		packed := bundles.Pack(b.Tar())
		l := bundles.Limits{Packed: int64(len(packed)), Unpacked: int64(len(b.Tar()))}
		if _, err := signedRelease(t, b, nil).Unpack(bytes.NewReader(packed), l); err != nil {
			t.Error(err)
		}
		l.Packed--
		_, err := signedRelease(t, b, nil).Unpack(bytes.NewReader(packed), l)
		wantErr(t, err, policy.Exhausted, "packed")
	})
	t.Run("none to speak of", func(t *testing.T) {
		l := bundles.Limits{Packed: 1<<63 - 1, Unpacked: 1<<63 - 1}
		if _, err := signedRelease(t, b, nil).Unpack(bytes.NewReader(bundles.Pack(b.Tar())), l); err != nil {
			t.Error(err)
		}
		s := signedRelease(t, b, func(r *bundles.Release) { r.Size = 1<<63 - 1 })
		_, err := s.Unpack(bytes.NewReader(bundles.Pack(b.Tar())), l)
		wantErr(t, err, policy.BadRequest, "signed were")
	})
}

// repeat yields the same bytes over and over.
type repeat struct {
	what []byte
	at   int
}

func (r *repeat) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = r.what[r.at%len(r.what)]
		r.at++
	}
	return len(p), nil
}

func TestTransportThatFailsIsNotABadBundle(t *testing.T) {
	b := read(t, folder("authz.rego", rego))
	s := signedRelease(t, b, nil)
	broken := errors.New("connection reset")
	_, err := s.Unpack(iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(bundles.Pack(b.Tar())))), bundles.Limits{})
	wantErr(t, err, policy.Unavailable, "timeout")
	_, err = s.Unpack(iotest.ErrReader(broken), bundles.Limits{})
	wantErr(t, err, policy.Unavailable, "connection reset", "fetch it again")
	if !errors.Is(err, broken) {
		t.Error("the cause is lost")
	}
	_, err = s.Unpack(iotest.ErrReader(policy.Errorf(policy.NotFound, "swept")), bundles.Limits{})
	wantErr(t, err, policy.NotFound, "swept")
}

func TestRetirementHasNoBundle(t *testing.T) {
	b := read(t, folder("authz.rego", rego))
	s := signedRelease(t, b, func(r *bundles.Release) { r.Bundle, r.Size = policy.Digest{}, 0 })
	if !s.Release().Retired() {
		t.Error("not retired")
	}
	_, err := s.Unpack(bytes.NewReader(bundles.Pack(b.Tar())), bundles.Limits{})
	wantErr(t, err, policy.BadRequest, "retires")
}

// FuzzUnpack: whatever arrives, only the bundle that was signed comes out.
func FuzzUnpack(f *testing.F) {
	b := read(f, folder("authz.rego", rego, "data.json", `{"a":1}`))
	s := signedRelease(f, b, nil)
	packed := bundles.Pack(b.Tar())
	f.Add(packed)
	f.Add(append(bytes.Clone(packed), packed...))
	f.Add(bomb(f, 1<<20))
	f.Add(packed[:len(packed)-8])
	f.Fuzz(func(t *testing.T, packed []byte) {
		got, err := s.Unpack(bytes.NewReader(packed), bundles.Limits{Packed: 1 << 20})
		if err == nil && !bytes.Equal(got.Tar(), b.Tar()) {
			t.Error("another bundle came out")
		}
	})
}
