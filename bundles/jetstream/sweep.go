package jetstream

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/policy"
)

const (
	// sweepAge is how long a chunk is left alone that no head names: its author
	// may still be at it, or try again.
	sweepAge = 24 * time.Hour
	// sweepPause is between marking, purging, and marking again in a namespace:
	// far longer than a put takes, or than a server that is no leader any more
	// takes itself for one.
	sweepPause = 15 * time.Minute
)

// Sweep removes chunks that no kept head names and that are older than a day, one
// step for each namespace; see the package comment. To sweep what there is, call it
// every so often, in any number of processes. It may be ended by ctx, or by a kill,
// at any moment.
//
// How old a mark or a chunk is, the server says that leads its stream, as one of the
// broker's has stamped it: a process with a wrong clock sweeps nothing too early. ahead, which is
// zero outside tests, has it sweep as that much later.
//
// What fails in one namespace is reported as [SweepFailed] and leaves the others
// alone. The error is that nothing can be swept at all.
func (s *Store) Sweep(ctx context.Context, ahead time.Duration) error {
	stream, err := s.stream(ctx, blobStream)
	if err != nil {
		return err
	}
	heads, err := s.stream(ctx, headStream)
	if err != nil {
		return err
	}
	now := times{marks: heads.CachedInfo().TimeStamp.Add(ahead), chunks: stream.CachedInfo().TimeStamp.Add(ahead)}
	if stream.CachedInfo().Config.DenyPurge {
		return policy.Errorf(policy.Failed, "chunks cannot be swept: the stream %s denies purging; remove it and push everything again, or raise its size for ever", blobStream)
	}
	// One page of subjects is all that is held of the stream. What is purged
	// shifts the pages, so that a round may overlook some: the next one finds
	// them.
	for offset := 0; ; {
		subjects, total, err := s.chunkSubjects(ctx, offset)
		if err != nil {
			return err
		}
		byNamespace := map[policy.Namespace][]policy.Digest{}
		for _, subject := range subjects {
			// What is no chunk of ours is left alone.
			if ns, sum, err := parseBlobSubject(s.config.Domain, subject); err == nil {
				byNamespace[ns] = append(byNamespace[ns], sum)
			}
		}
		for _, ns := range slices.Sorted(maps.Keys(byNamespace)) {
			err := s.sweep(ctx, ns, byNamespace[ns], now)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil && !conflict(err) { // who came first has done it, or will
				s.config.Events(SweepFailed{Namespace: ns, Err: err})
			}
		}
		if offset += len(subjects); len(subjects) == 0 || offset >= total {
			return nil
		}
	}
}

// times are the same time, as the servers have it that lead the streams of marks and
// of chunks.
type times struct{ marks, chunks time.Time }

// sweep takes the next step in a namespace that has these chunks.
func (s *Store) sweep(ctx context.Context, ns policy.Namespace, have []policy.Digest, now times) error {
	tip, err := s.tip(ctx, ns)
	if err != nil {
		return err
	}
	newest, stored, err := s.newestMark(ctx, ns, tip)
	if err != nil {
		return err
	}
	if tip.mark != 0 && now.marks.Sub(stored) < sweepPause {
		return nil
	}
	named, err := s.named(ctx, ns, tip.head)
	if err != nil {
		return err
	}
	next := mark{head: tip.head}
	if tip.mark == 0 || newest.purged {
		next.lost, err = s.unnamed(ctx, ns, named, have, now.chunks)
	} else {
		next.purged, next.lost = true, newest.lost
		err = s.purgeAll(ctx, ns, named, newest.lost, func() error { return s.stillMarked(ctx, ns, tip, stored) })
	}
	if err != nil || len(next.lost) == 0 {
		return err
	}
	if _, err := s.putTip(ctx, ns, markSubject(s.config.Domain, ns), next.append(nil), tip); err != nil {
		return refused("cannot mark chunks for sweeping", err)
	}
	s.config.Events(Swept{Namespace: ns, Chunks: len(next.lost), Purged: next.purged})
	return nil
}

// unnamed returns which of the chunks no kept head names, if they are old
// enough, and their numbers.
func (s *Store) unnamed(ctx context.Context, ns policy.Namespace, named map[policy.Digest]bool, have []policy.Digest, now time.Time) (map[policy.Digest]uint64, error) {
	lost := map[policy.Digest]uint64{}
	for _, sum := range have {
		if named[sum] {
			continue
		}
		chunk, err := s.readLast(ctx, blobStream, blobSubject(s.config.Domain, ns, sum))
		switch {
		case errors.Is(err, errAbsent):
		case err != nil:
			return nil, err
		case now.Sub(chunk.time) >= sweepAge:
			lost[sum] = chunk.seq
		}
		if len(lost) == maxMarked {
			break
		}
	}
	return lost, nil
}

// purgeAll purges what is marked. That no head names a chunk as it was marked
// follows from the rules; it is looked at all the same, as streams may have been
// restored from backups that do not belong together. marked is asked each time: the
// streams may have been removed and made anew meanwhile.
func (s *Store) purgeAll(ctx context.Context, ns policy.Namespace, named map[policy.Digest]bool, lost map[policy.Digest]uint64, marked func() error) error {
	for sum, seq := range lost {
		if !named[sum] {
			continue
		}
		chunk, err := s.readLast(ctx, blobStream, blobSubject(s.config.Domain, ns, sum))
		switch {
		case errors.Is(err, errAbsent):
		case err != nil:
			return err
		case chunk.seq <= seq:
			return policy.Errorf(policy.Failed, "chunk %s of %s is marked as lost, but a head names it: the streams do not belong together; remove both and push everything again", sum, ns)
		}
	}
	for sum, seq := range lost {
		if err := marked(); err != nil {
			return err
		}
		if err := s.purge(ctx, blobSubject(s.config.Domain, ns, sum), seq); err != nil {
			return err
		}
	}
	return nil
}

// named returns the chunks that the kept heads of a namespace name, the one with
// the number last being the newest. A head that cannot be read is an error: who
// knows what it names.
func (s *Store) named(ctx context.Context, ns policy.Namespace, last uint64) (map[policy.Digest]bool, error) {
	named := map[policy.Digest]bool{}
	for seq := uint64(0); seq < last; {
		m, err := s.readNext(ctx, headStream, headSubject(s.config.Domain, ns), seq+1)
		switch {
		case errors.Is(err, errAbsent):
			return nil, errMoved // this server is behind
		case err != nil:
			return nil, err
		}
		seq = m.seq
		h, err := head(ns, m)
		if err != nil {
			return nil, err
		}
		for _, sum := range h.body.chunks {
			named[sum] = true
		}
	}
	return named, nil
}

// stream returns a stream as it is now.
func (s *Store) stream(ctx context.Context, name string) (found js.Stream, err error) {
	ctx, cancel := bounded(ctx, readTimeout)
	defer cancel()
	err = s.persist(ctx, "cannot look at the stream "+name, func(ctx context.Context) error {
		found, err = s.api.Stream(ctx, name)
		return err
	})
	if err == nil {
		s.numbers.saw(name, found.CachedInfo().State.LastSeq)
	}
	return found, err
}

// chunkSubjects returns a page of the subjects that hold chunks of the domain,
// and how many there are in all.
func (s *Store) chunkSubjects(ctx context.Context, offset int) (subjects []string, total int, err error) {
	type page struct {
		answer
		Total int `json:"total"`
		State struct {
			Subjects map[string]uint64 `json:"subjects"`
		} `json:"state"`
	}
	p, err := ask[page](ctx, s, "cannot list the chunks", "STREAM.INFO."+blobStream, map[string]any{
		"subjects_filter": "pdp.blob." + s.config.Domain + ".*.*", "offset": offset,
	})
	return slices.Sorted(maps.Keys(p.State.Subjects)), p.Total, err
}

// parseBlobSubject reads what blobSubject writes.
func parseBlobSubject(domain, subject string) (policy.Namespace, policy.Digest, error) {
	tokens := strings.Split(subject, ".")
	if len(tokens) != 5 {
		return "", policy.Digest{}, policy.Errorf(policy.BadRequest, "%.200q is no subject of a chunk", subject)
	}
	ns, err := parseToken(domain, tokens[3])
	if err != nil {
		return "", policy.Digest{}, err
	}
	sum, err := policy.ParseDigest("sha256:" + tokens[4])
	return ns, sum, err
}

// Filled says how full a stream is.
type Filled struct {
	// Stream by its name.
	Stream string
	// Bytes that it holds, of Max at most.
	Bytes, Max int64
}

// Filled returns how full the streams are that have a bound.
func (s *Store) Filled(ctx context.Context) ([]Filled, error) {
	var all []Filled
	for _, name := range []string{headStream, blobStream} {
		stream, err := s.stream(ctx, name)
		if err != nil {
			return nil, err
		}
		info := stream.CachedInfo()
		if most := info.Config.MaxBytes; most > 0 {
			all = append(all, Filled{name, int64(info.State.Bytes), most}) //nolint:gosec // G115: it is no more than a disk has
		}
	}
	return all, nil
}
