package jetstream

import (
	"bytes"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

// message is what travels on a head subject. It has a packed bundle or chunks,
// or, if it retires its namespace, neither.
type message struct {
	note   []byte
	packed []byte
	chunks []policy.Digest
}

// append writes the one form of m. What it is made from was checked by Put.
func (m message) append(dst []byte) []byte {
	dst = append(dst, m.note...)
	switch {
	case len(m.packed) > 0:
		dst = append(dst, 0, 'I')
		dst = append(dst, m.packed...)
	case len(m.chunks) > 0:
		dst = append(dst, 0, 'C')
		for _, sum := range m.chunks {
			dst = append(dst, sum[:]...)
		}
	}
	return dst
}

// parseMessage reads what append writes, in place, and nothing else.
func parseMessage(b []byte) (message, error) {
	if len(b) > maxHead {
		return message{}, policy.Errorf(policy.Exhausted, "head message is %d bytes, the limit is %d", len(b), maxHead)
	}
	note, rest, has := bytes.Cut(b, []byte{0})
	if err := checkNote(note); err != nil {
		return message{}, err
	}
	m := message{note: note}
	if !has {
		return m, nil
	}
	if len(rest) < 2 {
		return message{}, policy.Errorf(policy.BadRequest, "head message ends where its bundle should begin")
	}
	form, rest := rest[0], rest[1:]
	switch form {
	case 'I':
		if len(rest) > MaxInline {
			return message{}, policy.Errorf(policy.Exhausted, "head message holds a packed bundle of %d bytes, the limit is %d", len(rest), MaxInline)
		}
		m.packed = rest
	case 'C':
		if len(rest)%sumSize != 0 || len(rest) > maxChunks*sumSize {
			return message{}, policy.Errorf(policy.BadRequest, "head message lists chunks in %d bytes, not in 1 to %d times %d", len(rest), maxChunks, sumSize)
		}
		for ; len(rest) > 0; rest = rest[sumSize:] {
			m.chunks = append(m.chunks, policy.Digest(rest[:sumSize]))
		}
	default:
		return message{}, policy.Errorf(policy.BadRequest, "head message has the unknown form %q", form)
	}
	return m, nil
}

func checkNote(note []byte) error {
	switch {
	case len(note) == 0:
		return policy.Errorf(policy.BadRequest, "head message has no note")
	case len(note) > bundles.MaxNote:
		return policy.Errorf(policy.Exhausted, "note is %d bytes, the limit is %d", len(note), bundles.MaxNote)
	case bytes.IndexByte(note, 0) >= 0:
		return policy.Errorf(policy.BadRequest, "note contains a NUL, which no signed note does")
	}
	return nil
}
