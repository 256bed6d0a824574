package jetstream

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

// beatBatch is how many beacons are sent before the broker is heard: few enough
// that it need not drop any.
const beatBatch = 500

// Beacon is a signed beacon on its way. Nothing of it has been verified.
type Beacon struct {
	// Namespace that it is for.
	Namespace policy.Namespace
	// Note is the signed beacon.
	Note []byte
}

// PutBeacons makes each of the beacons the newest of its namespace, which those
// who follow it hear. A broker that was restarted has lost the stream; it is
// made again. After an error of kind [policy.Unavailable] some of them may be
// stored.
func (s *Store) PutBeacons(ctx context.Context, all []Beacon) error {
	ctx, cancel := bounded(ctx, putTimeout)
	defer cancel()
	for _, b := range all {
		if err := checkNamespace(s.config.Domain, b.Namespace); err != nil {
			return err
		}
		if err := checkNote(b.Note); err != nil {
			return err
		}
	}
	for len(all) > 0 {
		batch := all[:min(beatBatch, len(all))]
		all = all[len(batch):]
		err := s.putBatch(ctx, batch)
		if gone(err) {
			if err = s.ensure(ctx); err == nil {
				err = s.putBatch(ctx, batch)
			}
		}
		switch {
		case err == nil:
		case transient(err) || ctx.Err() != nil:
			return policy.Errorf(policy.Unavailable, "the broker did not take the beacons (%w); see that it runs and can be reached", err)
		default:
			return refused("cannot store a beacon", err)
		}
	}
	return nil
}

// Beacons returns the newest beacon of each namespace of the domain, in no order.
// There need not be one, and a PDP may have stored an older one over it: none of
// them is verified.
func (s *Store) Beacons(ctx context.Context) (all []Beacon, err error) {
	ctx, cancel := bounded(ctx, readTimeout)
	defer cancel()
	s.listing.Lock() // one at a time: it may be much
	defer s.listing.Unlock()
	err = s.persist(ctx, "cannot read the beacons", func(ctx context.Context) error {
		all = nil
		return s.eachLast(ctx, beatStream, beatOf(s.config.Domain, "*"), func(m *nats.Msg, _ *nats.MsgMetadata) bool {
			ns, err := parseToken(s.config.Domain, strings.TrimPrefix(m.Subject, beatOf(s.config.Domain, "")))
			if err == nil && checkNote(m.Data) == nil {
				all = append(all, Beacon{Namespace: ns, Note: m.Data})
			}
			return true
		})
	})
	return all, err
}

// gone reports whether there may be no stream that takes beacons.
func gone(err error) bool {
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, js.ErrNoStreamResponse) || errors.Is(err, js.ErrStreamNotFound)
}

// putBatch sends beacons, and hears the broker after the last one only: one
// connection keeps their order.
func (s *Store) putBatch(ctx context.Context, batch []Beacon) error {
	last := len(batch) - 1
	for _, b := range batch[:last] {
		if err := s.nc.Publish(beatInSubject(s.config.Domain, b.Namespace), b.Note); err != nil {
			return err
		}
	}
	_, err := s.publish(ctx, beatStream, &nats.Msg{Subject: beatInSubject(s.config.Domain, batch[last].Namespace), Data: batch[last].Note})
	return err
}

// takeBeat takes a beacon that was heard. It runs in a callback of nats.go and
// must be quick.
func (f *Follower) takeBeat(ns policy.Namespace, m *nats.Msg) {
	if len(m.Data) > bundles.MaxNote {
		f.config.Events(Ignored{Subject: m.Subject, Err: policy.Errorf(policy.Exhausted, "beacon is %d bytes, the limit is %d", len(m.Data), bundles.MaxNote)})
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	// A namespace that is not known has a head that is about to be: its next
	// beacon comes soon.
	// One that comes again is left to the poll: who may not publish can have the
	// newest one delivered without end, and it costs a signature each time.
	if s := f.slots[ns]; s != nil && !bytes.Equal(m.Data, s.lastBeat) {
		s.beat, s.lastBeat, s.heard = m.Data, m.Data, true
		f.enqueue(s)
	}
}

// prove hands a beacon to the callback. If it names a head that is not held, the
// head is asked for at once: the push of it may be lost.
func (f *Follower) prove(ctx context.Context, s *slot, note []byte) {
	err := f.config.Beacon(ctx, s.ns, note)
	if err == nil || policy.KindOf(err) != policy.Unavailable || ctx.Err() != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s.ask, s.fresh = true, true // work looks at it again
}

// askBeat asks for the newest beacon, which there need not be.
func (f *Follower) askBeat(ctx context.Context, s *slot) {
	m, err := f.names.get(ctx, f.config.Conn, f.names.askBeat(token(s.ns)))
	switch {
	case err == nil:
		f.prove(ctx, s, m.data)
	case ctx.Err() != nil, errors.Is(err, errAbsent), gone(err): // nobody issues any, or not yet
	default:
		f.config.Events(AskFailed{Namespace: s.ns, Beacon: true, Err: err})
	}
}
