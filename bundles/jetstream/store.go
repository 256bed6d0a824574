package jetstream

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/policy"
)

// DefaultMaxBytes is what the streams on disk together may hold unless
// configured.
const DefaultMaxBytes = 4 << 30

// StoreConfig configures a [Store]. Conn and Domain are required.
type StoreConfig struct {
	// Conn is a connection to an account with JetStream, best one made by
	// [Connect]. It remains the caller's.
	Conn *nats.Conn
	// Domain is the name of the trust domain.
	Domain string
	// Replicas is how many servers of a cluster hold the streams. Zero is 1.
	Replicas int
	// MaxBytes bounds the streams on disk together. Zero is [DefaultMaxBytes]
	// where they are made, and leaves existing ones as they are. It must fit
	// into what the broker has, well below its disk.
	MaxBytes int64
	// Keep is how many heads of a namespace are kept, with their bundles:
	// [MinKeep] to [MaxKeep]. Zero is MaxKeep where the stream is made, and
	// leaves an existing one as it is. What is kept is a property of the stream,
	// so the last to configure it decides for all; fewer than before lets the
	// oldest go at once.
	Keep int
	// MaxPacked is how large a packed bundle may be, in bytes. Zero is
	// [DefaultMaxPacked]; more than 1 GiB cannot be named by a head.
	MaxPacked int64
	// Events is told what the store came across; nil tells nobody.
	Events func(Event)
}

// Store is where releases are durable. It is safe for concurrent use, by
// several processes as well. It reads through the streams' leaders. Streams that
// are removed while it is used are made again, empty.
type Store struct {
	config     StoreConfig
	nc         *nats.Conn
	api        js.JetStream
	configured change
	numbers    numbers
	listing    sync.Mutex // see Statuses
}

// Head is a release as it is stored. Nothing of it has been verified.
type Head struct {
	// Namespace under which it is stored.
	Namespace policy.Namespace
	// Note is the signed release.
	Note []byte
	// Seq is the number by which [Store.Put] knows what it follows.
	Seq uint64
	// Stored is when, by the broker's clock.
	Stored time.Time

	body message
}

// OpenStore makes the streams, or checks that they are laid out as safety
// needs them; see the package comment. It is an error of kind
// [policy.Unavailable] if the broker does not answer before ctx ends (after
// 15 s if it has no deadline), and may then be called again; of kind
// [policy.Failed] if the streams exist but are laid out differently; and of
// kind [policy.Exhausted] if the broker has less space than MaxBytes.
func OpenStore(ctx context.Context, c StoreConfig) (*Store, error) {
	if c.Conn == nil {
		return nil, policy.Errorf(policy.BadRequest, "the store has no connection; connect first")
	}
	if err := checkDomain(c.Domain); err != nil {
		return nil, err
	}
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	if c.MaxPacked == 0 {
		c.MaxPacked = DefaultMaxPacked
	}
	configured := change{size: c.MaxBytes != 0, keep: c.Keep != 0}
	if !configured.size {
		c.MaxBytes = DefaultMaxBytes
	}
	if !configured.keep {
		c.Keep = MaxKeep
	}
	if c.Keep < MinKeep || c.Keep > MaxKeep {
		return nil, policy.Errorf(policy.BadRequest, "%d releases of a namespace are to be kept; it is %d to %d", c.Keep, MinKeep, MaxKeep)
	}
	if c.Replicas < 0 || c.MaxBytes < 2 || c.MaxPacked < 0 {
		return nil, policy.Errorf(policy.BadRequest, "the store has %d replicas, %d bytes and bundles of %d bytes; none may be negative", c.Replicas, c.MaxBytes, c.MaxPacked)
	}
	if c.Events == nil {
		c.Events = func(Event) {}
	}
	api, err := js.New(c.Conn)
	if err != nil {
		return nil, policy.Errorf(policy.Internal, "cannot use JetStream: %w", err)
	}
	s := &Store{config: c, nc: c.Conn, api: api, configured: configured}
	if err := s.ensure(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// ensure makes the streams, or checks that they are as they must be.
func (s *Store) ensure(ctx context.Context) error {
	ctx, cancel := bounded(ctx, readTimeout)
	defer cancel()
	for _, want := range layout(s.config.Replicas, s.config.MaxBytes, s.config.Keep) {
		err := persist(ctx, s.nc, "cannot set up the stream "+want.Name, func(ctx context.Context) error {
			return s.ensureStream(ctx, want)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Head returns the head of a namespace, or a [policy.NotFound] error. If what
// is stored there is malformed, so that it cannot have been a release, Head
// returns a [policy.Failed] error and a Head with Namespace, Seq and Stored
// only, so that a good release may be put over it.
func (s *Store) Head(ctx context.Context, ns policy.Namespace) (Head, error) {
	if err := checkNamespace(s.config.Domain, ns); err != nil {
		return Head{}, err
	}
	m, err := s.readLast(ctx, headStream, headSubject(s.config.Domain, ns))
	if errors.Is(err, errAbsent) {
		return Head{}, policy.Errorf(policy.NotFound, "namespace %s has no release; push one: microwall push DIR --namespace %s", ns, ns)
	}
	if err != nil {
		return Head{}, err
	}
	return head(ns, m)
}

func head(ns policy.Namespace, m stored) (Head, error) {
	h := Head{Namespace: ns, Seq: m.seq, Stored: m.time}
	body, err := parseMessage(m.data)
	if err != nil {
		return h, policy.Errorf(policy.Failed, "the head of %s is damaged (%w); push a release over it", ns, err)
	}
	h.Note, h.body = body.note, body
	return h, nil
}

// History returns the heads of a namespace that are kept, at most 100, the
// newest first; none if it has no release. What is malformed is left out and
// reported as [Ignored].
func (s *Store) History(ctx context.Context, ns policy.Namespace) ([]Head, error) {
	if err := checkNamespace(s.config.Domain, ns); err != nil {
		return nil, err
	}
	ctx, cancel := bounded(ctx, readTimeout)
	defer cancel()
	subject := headSubject(s.config.Domain, ns)
	var all []Head
	for from := uint64(1); ; {
		m, err := s.readNext(ctx, headStream, subject, from)
		if errors.Is(err, errAbsent) {
			break
		}
		if err != nil {
			return nil, err
		}
		from = m.seq + 1
		h, err := head(ns, m)
		if err != nil {
			s.config.Events(Ignored{Subject: subject, Err: err})
			continue
		}
		all = append(all, h)
	}
	slices.Reverse(all)
	return all[:min(len(all), MaxKeep)], nil
}

// Namespaces returns, sorted, the namespaces of the domain that have a head,
// retired ones included. Subjects that are no namespace are reported as
// [Ignored].
func (s *Store) Namespaces(ctx context.Context) ([]policy.Namespace, error) {
	ctx, cancel := bounded(ctx, readTimeout)
	defer cancel()
	var subjects map[string]uint64
	err := s.persist(ctx, "cannot list the namespaces", func(ctx context.Context) error {
		stream, err := s.api.Stream(ctx, headStream)
		if err != nil {
			return err
		}
		info, err := stream.Info(ctx, js.WithSubjectFilter("$KV.policy."+s.config.Domain+".*.head"))
		if err != nil {
			return err
		}
		subjects = info.State.Subjects
		return nil
	})
	if err != nil {
		return nil, err
	}
	var all []policy.Namespace
	for subject := range subjects {
		token := strings.Split(subject, ".")[3]
		if isReserved(token) {
			continue
		}
		ns, err := parseToken(s.config.Domain, token)
		if err != nil {
			s.config.Events(Ignored{Subject: subject, Err: err})
			continue
		}
		all = append(all, ns)
	}
	slices.Sort(all)
	return all, nil
}

// Bundle returns the packed bundle of a head of this store. It is a
// [policy.NotFound] error if the head retires its namespace, or if its chunks
// are gone.
func (s *Store) Bundle(ctx context.Context, h Head) ([]byte, error) {
	switch {
	case len(h.body.packed) > 0:
		return h.body.packed, nil
	case len(h.body.chunks) == 0:
		return nil, policy.Errorf(policy.NotFound, "this release of %s retires the namespace; it has no bundle", h.Namespace)
	}
	ctx, cancel := bounded(ctx, putTimeout)
	defer cancel()
	return collect(ctx, h.body.chunks, s.config.MaxPacked, func(ctx context.Context, i int) ([]byte, error) {
		m, err := s.readLast(ctx, blobStream, blobSubject(s.config.Domain, h.Namespace, h.body.chunks[i]))
		if errors.Is(err, errAbsent) {
			return nil, policy.Errorf(policy.NotFound, "chunk %d of %d of a bundle of %s is gone from the broker; push the bundle again, from the commit that the release names as its source", i+1, len(h.body.chunks), h.Namespace)
		}
		if err != nil {
			return nil, err
		}
		return m.data, checkChunk(h.body.chunks, i, m.data)
	})
}
