package jetstream

import (
	"bytes"
	"context"
	"errors"
	"strconv"

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
// broker did not answer before ctx ended (after 30 s if it has no deadline), or
// that what followed the head with the number after is not kept any more: then it
// may or may not have been, and the message says so. The same Put may always be
// made again, and releases nothing twice.
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
	ctx, cancel = context.WithTimeout(ctx, maxPut)
	defer cancel()

	m := message{note: note}
	if len(packed) <= MaxInline {
		m.packed = packed
	} else {
		m.chunks = sums(packed)
	}
	p := put{store: s, ns: ns, after: after, message: m, packed: packed, data: m.append(nil)}
	return p.run(ctx)
}

// put is one release on its way.
type put struct {
	store   *Store
	ns      policy.Namespace
	after   uint64
	message message
	packed  []byte
	data    []byte // of message

	chunked bool   // the chunks are there,
	mark    uint64 // and were not lost by this mark
	sent    bool   // the head may have been stored
}

// run stores the chunks and then the head, however often that takes.
func (p *put) run(ctx context.Context) (uint64, error) {
	// A leader that was deposed without knowing it may not know the head yet
	// that others have seen, so its ignorance is not believed at once.
	const looks = 4
	unknown := 0
	for n := 0; ; n++ {
		seq, err := p.try(ctx)
		if err == nil {
			return seq, nil
		}
		// Whatever went wrong: an earlier attempt may have been stored, so the
		// stream says what is so.
		seq, found, readErr := p.behind(ctx)
		switch {
		case readErr != nil && (ctx.Err() != nil || policy.KindOf(readErr) == policy.Unavailable):
			return 0, p.gaveUp(ctx, readErr)
		case readErr != nil:
			return 0, readErr
		case found == mine:
			return seq, nil
		case found == theirs:
			return 0, lostRace(p.ns)
		case found == forgotten:
			return 0, policy.Errorf(policy.Unavailable, "so many have released %s since that it is not known any more whether this was released before them: look at it (microwall history %s), and push again what it lacks; to know, keep more releases (microwall serve --keep)", p.ns, p.ns)
		case found == nowhere && conflict(err):
			if unknown++; unknown == looks {
				return 0, lostRace(p.ns)
			}
		case !transient(err) && !conflict(err) && ctx.Err() == nil:
			return 0, refused("cannot store the release of "+string(p.ns), err)
		}
		// Nothing is behind the known head. A conflict then means that a
		// cluster is just storing something there, or that a mark has come.
		if pause(ctx, n) != nil {
			return 0, p.gaveUp(ctx, err)
		}
	}
}

// errMoved says that the head or the mark is another than was known.
var errMoved = errors.New("another head or mark came first")

// try makes one attempt. Nothing is known of the head after an error.
func (p *put) try(ctx context.Context) (uint64, error) {
	s := p.store
	tip, err := s.tip(ctx, p.ns)
	switch {
	case err != nil:
		return 0, err
	case tip.head != p.after:
		return 0, errMoved
	case len(p.message.chunks) > 0 && (!p.chunked || p.mark != tip.mark):
		newest, _, err := s.newestMark(ctx, p.ns, tip)
		if err != nil {
			return 0, err
		}
		if err := p.putChunks(ctx, newest.lost); err != nil {
			return 0, err
		}
		p.chunked, p.mark = true, tip.mark
	}
	p.sent = true
	return s.putTip(ctx, p.ns, headSubject(s.config.Domain, p.ns), p.data, tip)
}

// publish stores one message, or says why not; which of the two happened is not
// known after a transient error.
func (s *Store) publish(ctx context.Context, stream string, m *nats.Msg, options ...js.PublishOpt) (seq uint64, err error) {
	return s.publishAgain(ctx, 0, stream, m, options...)
}

// publishAgain is publish after attempts that were too short.
func (s *Store) publishAgain(ctx context.Context, tooShort int, stream string, m *nats.Msg, options ...js.PublishOpt) (seq uint64, err error) {
	err = attemptAgain(ctx, s.nc, tooShort, func(ctx context.Context) error {
		ack, err := s.api.PublishMsg(ctx, m, append(options, js.WithExpectStream(stream), js.WithRetryAttempts(0))...)
		if err != nil {
			return err
		}
		seq = ack.Sequence
		s.numbers.saw(stream, seq)
		return nil
	})
	return seq, err
}

// putChunks stores what is not there of the bundle.
func (p *put) putChunks(ctx context.Context, lost map[policy.Digest]uint64) error {
	for i, sum := range p.message.chunks {
		chunk := p.packed[i*ChunkSize : min((i+1)*ChunkSize, len(p.packed))]
		if err := p.store.putChunk(ctx, blobSubject(p.store.config.Domain, p.ns, sum), chunk, lost[sum]); err != nil {
			return err
		}
	}
	return nil
}

// putChunk stores a chunk, unless it is there already. What is there with a
// number up to lost is going to be swept: it is purged, and stored anew.
func (s *Store) putChunk(ctx context.Context, subject string, chunk []byte, lost uint64) error {
	for n := 0; ; n++ {
		held, err := s.putOnce(ctx, subject, chunk)
		switch {
		case err != nil:
			return err
		case held.seq <= lost:
			if err := s.purge(ctx, subject, lost); err != nil {
				return err
			}
			if n > 0 {
				if err := pause(ctx, n); err != nil {
					return err
				}
			}
		case !bytes.Equal(held.data, chunk):
			return policy.Errorf(policy.Internal, "the broker holds other bytes under %s than their sum says: its storage is damaged or was tampered with; purge that subject (nats stream purge %s --subject %s) and push again", subject, blobStream, subject)
		default:
			return nil
		}
	}
}

// putOnce stores a message on a write-once subject, and returns what is there
// then: that message, or the one that was there before.
func (s *Store) putOnce(ctx context.Context, subject string, data []byte) (stored, error) {
	// A cluster also refuses what another author is storing at this moment and
	// what therefore cannot be read yet, so an absent message is looked for a few
	// times before the stream is taken to be full.
	const looks = 4
	absent, lost := 0, 0
	for n := 0; ; n++ {
		seq, err := s.publishAgain(ctx, max(0, lost-quick), blobStream, &nats.Msg{Subject: subject, Data: data})
		switch {
		case err == nil:
			return stored{seq: seq, data: data}, nil
		case code(err) != codeStoreFailed && !transient(err), ctx.Err() != nil:
			return stored{}, err
		}
		// Whatever went wrong: the stream says what is so. One that was removed
		// does not answer whoever publishes; reading makes it again.
		held, readErr := s.readLast(ctx, blobStream, subject)
		if !errors.Is(readErr, errAbsent) {
			return held, readErr
		}
		if errors.Is(err, nats.ErrTimeout) {
			lost++
		}
		if code(err) == codeStoreFailed {
			if absent++; absent == looks {
				return stored{}, err
			}
		}
		if pause(ctx, n) != nil {
			return stored{}, err
		}
	}
}

func lostRace(ns policy.Namespace) error {
	return policy.Errorf(policy.Conflict, "somebody else released %s first; look at it (microwall history %s), then push again", ns, ns)
}

// gaveUp is the error of a put whose ctx ended, after the error last.
func (p *put) gaveUp(ctx context.Context, last error) error {
	if policy.KindOf(last) != policy.Unavailable {
		last = unanswered(ctx, last)
	}
	if !p.sent {
		return policy.Errorf(policy.Unavailable, "%w; nothing was released", last)
	}
	return policy.Errorf(policy.Unavailable, "%w; it is not known whether %s was released: look at it (microwall history %s), or push again, which releases nothing twice", last, p.ns, p.ns)
}

func conflict(err error) bool {
	if errors.Is(err, errMoved) {
		return true
	}
	c := code(err)
	return c == js.JSErrCodeStreamWrongLastSequence || c == js.JSErrCodeStreamWrongLastSequenceConstant
}

// place says what is behind the head that a release was to follow.
type place int

const (
	free      place = iota // nothing: that head is still the head
	mine                   // the release itself
	theirs                 // another release
	forgotten              // other releases, of which the first are not kept any more
	nowhere                // that head is not there
)

// behind looks for the first head behind the one with the number after. As
// nothing goes in there but by compare-and-swap, that is the release itself if
// it was stored, even if others have followed it since: unless there were so many
// that it made room for them. So each head says which one it follows.
func (p *put) behind(ctx context.Context) (uint64, place, error) {
	subject := headSubject(p.store.config.Domain, p.ns)
	m, err := p.store.readNext(ctx, headStream, subject, p.after+1)
	switch {
	case err == nil && bytes.Equal(m.data, p.data):
		return m.seq, mine, nil
	case err == nil:
		// One that does not say was not stored by this code.
		if follows := m.header.Get(afterHeader); follows != "" && follows != strconv.FormatUint(p.after, 10) {
			return 0, forgotten, nil
		}
		return 0, theirs, nil
	case !errors.Is(err, errAbsent):
		return 0, free, err
	}
	last, err := p.store.readLast(ctx, headStream, subject)
	switch {
	case err != nil && !errors.Is(err, errAbsent):
		return 0, free, err
	case last.seq == p.after: // both 0 if there is none
		return 0, free, nil
	case last.seq < p.after:
		return 0, nowhere, nil
	}
	// It came between the two questions.
	return p.behind(ctx)
}
