package jetstream

import (
	"maps"
	"strings"
	"testing"

	"github.com/microwall/microwall/policy"
)

func TestAMarkIsReadBack(t *testing.T) {
	full := mark{head: 1 << 60, lost: map[policy.Digest]uint64{}}
	for i := range maxMarked {
		full.lost[policy.DigestOf([]byte{byte(i), byte(i >> 8)})] = uint64(i)
	}
	for _, m := range []mark{{}, {purged: true, head: 7}, {lost: map[policy.Digest]uint64{policy.DigestOf(nil): 1<<64 - 1}}, full} {
		b := m.append(nil)
		got, err := parseMark(b)
		if err != nil || got.purged != m.purged || got.head != m.head || !maps.Equal(got.lost, m.lost) {
			t.Errorf("%.100q came back as %+v, %v", b, got, err)
		}
		if len(b) > maxHead {
			t.Errorf("a mark of %d bytes is not taken by the stream", len(b))
		}
	}
}

func TestAMalformedMarkIsRefused(t *testing.T) {
	const head = "\x00\x00\x00\x00\x00\x00\x00\x01"
	entry := strings.Repeat("s", entrySize)
	for name, tt := range map[string]struct{ b, says string }{
		"empty":        {"", "0 bytes"},
		"no head":      {"M", "1 bytes"},
		"half a head":  {"M\x00\x00", "3 bytes"},
		"half a chunk": {"M" + head + entry[1:], "48 bytes"},
		"a later form": {"N" + head, "unknown form 'N'"},
		"a head":       {"microwall release v1\n", "bytes long"},
		"twice":        {"P" + head + entry + entry, "twice"},
		"too long":     {"M" + head + strings.Repeat(entry, maxMarked+1), "bytes long"},
	} {
		if m, err := parseMark([]byte(tt.b)); err == nil || policy.KindOf(err) != policy.Failed || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
}

func FuzzParseMark(f *testing.F) {
	f.Add(mark{}.append(nil))
	f.Add(mark{purged: true, head: 9, lost: map[policy.Digest]uint64{policy.DigestOf(nil): 3}}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMark(b)
		if err != nil {
			return
		}
		again, err := parseMark(m.append(nil))
		if err != nil || again.purged != m.purged || again.head != m.head || !maps.Equal(again.lost, m.lost) || len(m.append(nil)) != len(b) {
			t.Errorf("%q came back as %+v, %v", b, again, err)
		}
	})
}
