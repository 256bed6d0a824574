package jetstream

import (
	"bytes"
	"context"
	"errors"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/policy"
)

// Put makes a release the head of its namespace, if the head is still the one
// with the sequence number after; 0 stands for none yet. It returns the new
// head's number once that is on disk. The note is a signed release that the
// caller has verified; packed is its bundle, or empty if the release retires
// its namespace.
//
// If somebody else was first the error is of kind [policy.Conflict]; if
// something is too large or the broker full, [policy.Exhausted]. In both cases
// nothing was released. An error of kind [policy.Unavailable] says that the
// broker did not answer before ctx ended (after 30 s if it has no deadline):
// then it may or may not have been, and the message says so. The same Put may
// always be made again, and releases nothing twice.
func (s *Store) Put(ctx context.Context, ns policy.Namespace, note, packed []byte, after uint64) (seq uint64, err error) {
	if err := checkNamespace(s.config.Domain, ns); err != nil {
		return 0, err
	}
	if err := checkNote(note); err != nil {
		return 0, err
	}
	if n := int64(len(packed)); n > s.config.MaxPacked || n > maxChunks*ChunkSize {
		return 0, policy.Errorf(policy.Exhausted, "bundle of %s is %d bytes packed, the limit is %d; make it smaller", ns, n, min(s.config.MaxPacked, maxChunks*ChunkSize))
	}
	ctx, cancel := bounded(ctx, putTimeout)
	defer cancel()

	m := message{note: note}
	if len(packed) <= MaxInline {
		m.packed = packed
	} else {
		m.chunks = sums(packed)
		for i, sum := range m.chunks {
			chunk := packed[i*ChunkSize : min((i+1)*ChunkSize, len(packed))]
			if err := s.putChunk(ctx, blobSubject(s.config.Domain, ns, sum), chunk); err != nil {
				return 0, err
			}
		}
	}
	return s.putHead(ctx, ns, m.append(nil), after)
}

// publish stores one message, or says why not; which of the two happened is not
// known after a transient error.
func (s *Store) publish(ctx context.Context, stream, subject string, data []byte, options ...js.PublishOpt) (seq uint64, err error) {
	err = attempt(ctx, s.nc, func(ctx context.Context) error {
		m := &nats.Msg{Subject: subject, Data: data}
		ack, err := s.api.PublishMsg(ctx, m, append(options, js.WithExpectStream(stream), js.WithRetryAttempts(0))...)
		if err != nil {
			return err
		}
		seq = ack.Sequence
		return nil
	})
	return seq, err
}

// putChunk stores a chunk, unless it is there already.
func (s *Store) putChunk(ctx context.Context, subject string, chunk []byte) error {
	// A cluster also refuses what another author is storing at this moment and
	// what therefore cannot be read yet, so an absent chunk is looked for a few
	// times before the stream is taken to be full.
	const looks = 4
	absent := 0
	for n := 0; ; n++ {
		_, err := s.publish(ctx, blobStream, subject, chunk)
		switch {
		case err == nil:
			return nil
		case code(err) == codeStoreFailed:
			held, readErr := s.readLast(ctx, blobStream, subject)
			switch {
			case errors.Is(readErr, errAbsent):
				if absent++; absent == looks {
					return refused("cannot store the bundle", err)
				}
			case readErr != nil:
				return readErr
			case !bytes.Equal(held.data, chunk):
				return policy.Errorf(policy.Internal, "the broker holds other bytes under %s than their sum says: its storage is damaged or was tampered with; purge that subject (nats stream purge %s --subject %s) and push again", subject, blobStream, subject)
			default:
				return nil
			}
		case ctx.Err() != nil:
			return notReleased(unanswered(ctx, err))
		case !transient(err):
			return refused("cannot store the bundle", err)
		}
		if pause(ctx, n) != nil {
			return notReleased(unanswered(ctx, err))
		}
	}
}

func notReleased(err error) error {
	return policy.Errorf(policy.Unavailable, "%w; nothing was released", err)
}

// putHead stores a head message behind the one with the number after.
func (s *Store) putHead(ctx context.Context, ns policy.Namespace, data []byte, after uint64) (uint64, error) {
	subject := headSubject(s.config.Domain, ns)
	// A leader that was deposed without knowing it may not know the head yet
	// that others have seen, so its ignorance is not believed at once.
	const looks = 4
	unknown := 0
	for n := 0; ; n++ {
		seq, err := s.publish(ctx, headStream, subject, data, js.WithExpectLastSequencePerSubject(after))
		if err == nil {
			return seq, nil
		}
		// Whatever the answer, and if there was none: an earlier attempt may
		// have been stored, so the stream says what is so.
		seq, found, readErr := s.behind(ctx, subject, data, after)
		switch {
		case readErr != nil && ctx.Err() != nil:
			return 0, inDoubt(ns, unanswered(ctx, err))
		case readErr != nil:
			return 0, readErr
		case found == mine:
			return seq, nil
		case found == theirs:
			return 0, lostRace(ns)
		case found == nowhere && conflict(err):
			if unknown++; unknown == looks {
				return 0, lostRace(ns)
			}
		case !transient(err) && !conflict(err) && ctx.Err() == nil:
			return 0, refused("cannot store the head", err)
		}
		// Nothing is behind the known head. A conflict then means that a
		// cluster is just storing something there.
		if pause(ctx, n) != nil {
			return 0, inDoubt(ns, unanswered(ctx, err))
		}
	}
}

func lostRace(ns policy.Namespace) error {
	return policy.Errorf(policy.Conflict, "somebody else released %s first; look at it (microwall history %s), then push again", ns, ns)
}

func inDoubt(ns policy.Namespace, err error) error {
	return policy.Errorf(policy.Unavailable, "%w; it is not known whether %s was released: look at it (microwall history %s), or push again, which releases nothing twice", err, ns, ns)
}

func conflict(err error) bool {
	c := code(err)
	return c == js.JSErrCodeStreamWrongLastSequence || c == js.JSErrCodeStreamWrongLastSequenceConstant
}

// place says what is behind the head that a release was to follow.
type place int

const (
	free    place = iota // nothing: that head is still the head
	mine                 // the release itself
	theirs               // another release
	nowhere              // that head is not there
)

// behind looks for the first message behind the one with the number after. As
// nothing goes in there but by compare-and-swap, that is the release itself if
// it was stored, even if others have followed it since.
func (s *Store) behind(ctx context.Context, subject string, data []byte, after uint64) (uint64, place, error) {
	m, err := s.readNext(ctx, headStream, subject, after+1)
	switch {
	case err == nil && bytes.Equal(m.data, data):
		return m.seq, mine, nil
	case err == nil:
		return 0, theirs, nil
	case !errors.Is(err, errAbsent):
		return 0, free, err
	}
	last, err := s.readLast(ctx, headStream, subject)
	switch {
	case err != nil && !errors.Is(err, errAbsent):
		return 0, free, err
	case last.seq == after: // both 0 if there is none
		return 0, free, nil
	case last.seq < after:
		return 0, nowhere, nil
	}
	// It came between the two questions.
	return s.behind(ctx, subject, data, after)
}
