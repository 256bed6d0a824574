package jetstream

import (
	"context"
	"encoding/binary"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/policy"
)

// mark names chunks of a namespace that are lost: no head may ever name them as
// they lie there. It is what [Store.Sweep] and [Store.Put] agree by; see the
// package comment.
type mark struct {
	// purged says that the chunks are gone.
	purged bool
	// head is the number of the head that the mark stands behind.
	head uint64
	// lost has the number that each chunk has, or had, in its stream. One that
	// was stored again after that has a higher number, and is not lost.
	lost map[policy.Digest]uint64
}

const (
	phaseMarked = 'M'
	phasePurged = 'P'
	markSize    = 1 + 8
	entrySize   = sumSize + 8
	// maxMarked is how many chunks one mark names; more wait for the next one.
	maxMarked = 1024
)

// append writes a mark: its phase, the number of the head, and for each chunk,
// in any order, its sum and its number. Numbers are big-endian.
func (m mark) append(dst []byte) []byte {
	phase := byte(phaseMarked)
	if m.purged {
		phase = phasePurged
	}
	dst = binary.BigEndian.AppendUint64(append(dst, phase), m.head)
	for sum, seq := range m.lost {
		dst = binary.BigEndian.AppendUint64(append(dst, sum[:]...), seq)
	}
	return dst
}

// parseMark reads what append writes.
func parseMark(b []byte) (mark, error) {
	n := len(b) - markSize
	if n < 0 || n%entrySize != 0 || n > maxMarked*entrySize {
		return mark{}, policy.Errorf(policy.Failed, "mark is %d bytes long, not %d and 0 to %d times %d", len(b), markSize, maxMarked, entrySize)
	}
	m := mark{purged: b[0] == phasePurged, head: binary.BigEndian.Uint64(b[1:]), lost: make(map[policy.Digest]uint64, n/entrySize)}
	if !m.purged && b[0] != phaseMarked {
		return mark{}, policy.Errorf(policy.Failed, "mark has the unknown form %q", b[0])
	}
	for b = b[markSize:]; len(b) > 0; b = b[entrySize:] {
		sum := policy.Digest(b[:sumSize])
		if _, twice := m.lost[sum]; twice {
			return mark{}, policy.Errorf(policy.Failed, "mark names chunk %s twice", sum)
		}
		m.lost[sum] = binary.BigEndian.Uint64(b[sumSize:])
	}
	return m, nil
}

// tip is what the last message of a namespace, head or mark, says: which head
// and which mark are the newest. The next one goes in by compare-and-swap on it
// and says so again, so a tip that is not the newest is noticed, whatever server
// it was read from.
type tip struct {
	seq, head, mark uint64 // 0 if there is none
}

// Headers by which heads and marks name, by their numbers, the newest mark and the
// newest head before them.
const (
	markHeader  = "Microwall-Mark"
	afterHeader = "Microwall-After"
)

// tip reads the tip of a namespace.
func (s *Store) tip(ctx context.Context, ns policy.Namespace) (tip, error) {
	last, err := s.readLast(ctx, headStream, fenceSubject(s.config.Domain, ns))
	if errors.Is(err, errAbsent) {
		return tip{}, nil
	}
	if err != nil {
		return tip{}, err
	}
	t := tip{seq: last.seq}
	if last.subject == markSubject(s.config.Domain, ns) {
		m, err := readMark(ns, last)
		t.head, t.mark = m.head, last.seq
		return t, err
	}
	t.head = last.seq
	if named := last.header.Get(markHeader); named != "" {
		t.mark, err = strconv.ParseUint(named, 10, 64)
		if err != nil {
			return tip{}, policy.Errorf(policy.Failed, "head %d of %s names the mark %q, which is no number; see who may write into the stream %s", last.seq, ns, named, headStream)
		}
		return t, nil
	}
	// Not stored by this code.
	newest, err := s.readLast(ctx, headStream, markSubject(s.config.Domain, ns))
	if err != nil && !errors.Is(err, errAbsent) {
		return tip{}, err
	}
	t.mark = newest.seq
	return t, nil
}

func readMark(ns policy.Namespace, m stored) (mark, error) {
	read, err := parseMark(m.data)
	if err != nil {
		return mark{}, policy.Errorf(policy.Failed, "what is marked for sweeping in %s cannot be read: %w; if another PDP is of a newer version, upgrade this one", ns, err)
	}
	return read, nil
}

// newestMark returns the newest mark, and when it was stored.
func (s *Store) newestMark(ctx context.Context, ns policy.Namespace, t tip) (mark, time.Time, error) {
	if t.mark == 0 {
		return mark{}, time.Time{}, nil
	}
	m, err := s.read(ctx, headStream, map[string]any{"seq": t.mark})
	switch {
	case errors.Is(err, errAbsent):
		return mark{}, time.Time{}, errMoved // there is a newer one, or this server is behind
	case err != nil:
		return mark{}, time.Time{}, err
	case m.subject != markSubject(s.config.Domain, ns):
		return mark{}, time.Time{}, policy.Errorf(policy.Failed, "a head of %s says that message %d is a mark, which it is not; see who may write into the stream %s", ns, t.mark, headStream)
	}
	newest, err := readMark(ns, m)
	for _, seq := range newest.lost {
		s.numbers.saw(blobStream, seq)
	}
	return newest, m.time, err
}

// stillMarked returns an error unless the newest mark of a tip is where it was
// stored at a time.
func (s *Store) stillMarked(ctx context.Context, ns policy.Namespace, t tip, at time.Time) error {
	_, stored, err := s.newestMark(ctx, ns, t)
	if err == nil && !stored.Equal(at) || policy.KindOf(err) == policy.Failed {
		return errMoved // it is of another stream
	}
	return err
}

// putTip stores the message that follows a tip: a head or a mark.
func (s *Store) putTip(ctx context.Context, ns policy.Namespace, subject string, data []byte, t tip) (uint64, error) {
	m := &nats.Msg{Subject: subject, Data: data, Header: nats.Header{
		markHeader:  {strconv.FormatUint(t.mark, 10)},
		afterHeader: {strconv.FormatUint(t.head, 10)},
	}}
	return s.publish(ctx, headStream, m, js.WithExpectLastSequenceForSubject(t.seq, fenceSubject(s.config.Domain, ns)))
}

// unmarked returns the number that the chunks' stream begins with when it is made
// anew: behind all that the newest mark of any namespace has, so that none speaks
// of a later chunk. A number that is only large would do as well, if a server
// whose disk is full did not count up to the numbers of what it could not write.
func (s *Store) unmarked(ctx context.Context) (uint64, error) {
	stream, err := s.api.Stream(ctx, headStream)
	if err != nil {
		return 0, err
	}
	info, err := stream.Info(ctx, js.WithSubjectFilter("$KV.policy.*.*.sweep"))
	if err != nil {
		return 0, err
	}
	first := uint64(1)
	for subject := range info.State.Subjects {
		found, err := askOnce[storedMessage](ctx, s, "STREAM.MSG.GET."+headStream, map[string]any{"last_by_subj": subject})
		if errors.Is(err, errAbsent) || err == nil && found.Message == nil {
			continue
		}
		if err != nil {
			return 0, err
		}
		newest, err := parseMark(found.Message.Data)
		if err != nil {
			return 0, err
		}
		for _, seq := range newest.lost {
			first = max(first, seq+1)
		}
	}
	return first, nil
}

// purge removes the chunk of a subject, unless it was stored after the one with
// the number last.
func (s *Store) purge(ctx context.Context, subject string, last uint64) error {
	type purged struct{ answer }
	_, err := ask[purged](ctx, s, "cannot sweep chunks", "STREAM.PURGE."+blobStream, map[string]any{"filter": subject, "seq": last + 1})
	return err
}
