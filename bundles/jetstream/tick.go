package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/policy"
)

const (
	// tickTimeout bounds a tick that has no deadline of its own. A stream whose
	// leader is lost has another after 5 to 7 s.
	tickTimeout = 10 * time.Second
	maxIssuer   = 256
	maxTick     = 4 << 10
)

// tick is what a tick message holds. Nobody signs it: a false one keeps issuers
// from issuing, and nothing more.
type tick struct {
	// Issuer that committed it, "" if it says that it stops.
	Issuer string `json:"issuer"`
	// Nonce tells it from all others, and whose log committed it.
	Nonce string `json:"nonce"`
}

// newTick returns a tick of this log. l.mu must be held.
func (l *Log) newTick(issuer string) tick {
	l.ticks++
	return tick{issuer, l.nonces + strconv.FormatUint(l.ticks, 10)}
}

// made reports whether this log made a tick. That does not end with the attempt to
// commit it: the broker may do so long after that was given up, and others were
// tried.
func (l *Log) made(t tick) bool { return strings.HasPrefix(t.Nonce, l.nonces) }

func (t tick) message() []byte {
	data, err := json.Marshal(t)
	if err != nil {
		panic(err) // two strings
	}
	return data
}

// parseTick reads a tick. What is none is a tick of nobody that is known.
func parseTick(data []byte) tick {
	var t tick
	if len(data) > maxTick || json.Unmarshal(data, &t) != nil || len(t.Issuer) > maxIssuer || t.Nonce == "" {
		return tick{Issuer: "unknown"}
	}
	return t
}

// IssuerTick is the newest tick of those who issue beacons.
type IssuerTick struct {
	// Issuer who committed it, by its own word. Empty if there is none, or if
	// the last issuer has said that it stops.
	Issuer string
	// Own is true if this process committed it, or one before it under the same
	// name.
	Own bool
	// At is when, by this process's clock. It is not compared with the clock of
	// whoever committed it, nor with the broker's.
	At time.Time

	seq uint64 // its number in the stream, 0 if there is none
}

// tickWaiter waits for a tick to be delivered.
type tickWaiter struct {
	since time.Time
	at    func(since time.Time)
	done  chan error // has room for one
}

// LastTick returns the newest tick of issuers, as far as the log has read.
// It waits until the log has caught up; if that takes longer than ctx (10 s if it
// has no deadline), the error is of kind [policy.Unavailable].
//
// How long ago another's was that is from before this reading, only the broker
// can tell: then a tick is committed to ask it.
func (l *Log) LastTick(ctx context.Context) (IssuerTick, error) {
	ctx, cancel := bounded(ctx, tickTimeout)
	defer cancel()
	for {
		if err := l.catchUp(ctx); err != nil {
			return IssuerTick{}, err
		}
		l.mu.Lock()
		caughtUp := isClosed(l.ready) // another reading may have begun since
		last, dated := l.newest, l.stored.IsZero()
		l.mu.Unlock()
		if !caughtUp {
			continue
		}
		if dated || last.Own || last.Issuer == "" {
			return last, nil
		}
		if err := l.Tick(ctx, nil, func(time.Time) {}); err != nil {
			return IssuerTick{}, err
		}
	}
}

// Ahead returns how far ahead of the broker's clock the one here was when the last
// tick of this log was delivered, less than 0 if it was behind. What may be the
// time that the tick took is no difference.
func (l *Log) Ahead() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ahead
}

// catchUp waits for a reading that has come as far as the stream had when it
// began.
func (l *Log) catchUp(ctx context.Context) error {
	l.mu.Lock()
	ready := l.ready
	l.mu.Unlock()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return policy.Errorf(policy.Unavailable, "the head stream was not read in time (%w); see that NATS runs and can be reached", ctx.Err())
	}
}

// Tick commits a tick and calls at, once, when the log has delivered everything
// up to the tick and nothing after it. since is a time before the tick was
// committed: whatever was released before it has been taken. at must be quick.
//
// With after it is a tick of issuers, and gets in only if that is the newest of
// them: of two who saw the same one, one issues. Without, it is anybody's, at any
// time.
//
// The error is of kind [policy.Conflict] if another issuer's tick came first,
// and [policy.Unavailable] if the tick was not delivered before ctx ended (after
// 10 s if it has no deadline). After an error, at was not called and will not
// be.
func (l *Log) Tick(ctx context.Context, after *IssuerTick, at func(since time.Time)) error {
	ctx, cancel := bounded(ctx, tickTimeout)
	defer cancel()
	for {
		// A reading that has ended may be one of a stream that is gone.
		err := l.tick(ctx, after, at)
		if !errors.Is(err, errReadAgain) {
			return err
		}
	}
}

func (l *Log) tick(ctx context.Context, after *IssuerTick, at func(since time.Time)) error {
	if err := l.catchUp(ctx); err != nil {
		return err
	}
	w := &tickWaiter{at: at, done: make(chan error, 1)}
	l.mu.Lock()
	t := l.newTick(l.config.Issuer)
	if l.reading == nil {
		l.mu.Unlock()
		return errReadAgain
	}
	token := confirmToken
	var options []js.PublishOpt
	if after != nil {
		token = tickToken
		options = append(options, js.WithExpectLastSequencePerSubject(after.seq))
	}
	w.since = l.config.Now()
	l.waiting[t.Nonce] = w
	l.mu.Unlock()

	s := l.config.Store
	_, err := s.publish(ctx, headStream, &nats.Msg{Subject: headOf(s.config.Domain, token), Data: t.message()}, options...)
	if err != nil && !transient(err) {
		// A conflict is also the answer to a tick that the broker got twice.
		if l.giveUp(t.Nonce) {
			if conflict(err) {
				return policy.Errorf(policy.Conflict, "another issuer's tick came first")
			}
			return refused("cannot commit a tick", err)
		}
		return <-w.done
	}
	// It may have been committed, whatever the broker did not answer.
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		if l.giveUp(t.Nonce) {
			return unanswered(ctx, err)
		}
		return <-w.done
	}
}

// giveUp reports whether a tick is not delivered yet, and then never counts.
func (l *Log) giveUp(nonce string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, waits := l.waiting[nonce]
	delete(l.waiting, nonce)
	return waits
}

// takeTick takes a tick that the reading has delivered.
func (l *Log) takeTick(ctx context.Context, r *pass, token string, data []byte, meta *js.MsgMetadata) {
	t := parseTick(data)
	now := l.config.Now()
	l.mu.Lock()
	if l.reading != r || ctx.Err() != nil {
		l.mu.Unlock()
		return
	}
	if token == tickToken {
		l.newest = IssuerTick{Issuer: t.Issuer, Own: l.made(t), At: now, seq: meta.Sequence.Stream}
		l.stored = time.Time{}
		if meta.Sequence.Stream <= r.last {
			// It is from before this reading: when, only the broker's clock
			// knows, and whose, only the name.
			l.newest.Own = l.newest.Own || t.Issuer == l.config.Issuer
			l.stored = meta.Timestamp
		}
	}
	w := l.waiting[t.Nonce]
	delete(l.waiting, t.Nonce)
	if w != nil {
		l.hearClock(meta.Timestamp, w.since, now)
	}
	l.mu.Unlock()
	if w != nil {
		w.at(w.since)
		w.done <- nil
	}
}

// hearClock takes the time at which the broker stored a tick of this log, which was
// between two others here. l.mu must be held.
func (l *Log) hearClock(broker, since, now time.Time) {
	switch {
	case broker.Before(since):
		l.ahead = since.Sub(broker)
	case broker.After(now):
		l.ahead = now.Sub(broker)
	default:
		l.ahead = 0
	}
	if !l.stored.IsZero() {
		l.newest.At = now.Add(-max(0, broker.Sub(l.stored)))
		l.stored = time.Time{}
	}
}

// Leave says that this process stops to issue, so that others need not wait to
// see that. It does nothing if another process issues.
func (l *Log) Leave(ctx context.Context) error {
	l.mu.Lock()
	own, after, t := l.newest.Own && l.newest.Issuer != "", l.newest.seq, l.newTick("")
	l.mu.Unlock()
	if !own {
		return nil
	}
	s := l.config.Store
	_, err := s.publish(ctx, headStream, &nats.Msg{Subject: headOf(s.config.Domain, tickToken), Data: t.message()}, js.WithExpectLastSequencePerSubject(after))
	if err != nil && !conflict(err) {
		return refused("cannot say that this process stops to issue beacons", err)
	}
	return nil
}
