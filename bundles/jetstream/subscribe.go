package jetstream

import (
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/policy"
)

// pendingBeats is how many beacons wait in a subscription: a round brings one
// of each namespace, and they are small.
const pendingBeats = 16 << 10

// listening is a subscription of a follower. The broker may refuse it, now or when
// it is told of other permissions, and gives none back that it has refused.
type listening struct {
	subject string
	pending int    // how many messages may wait
	dropped func() // is called when there were more
	take    nats.MsgHandler
	// sub belongs to Run.
	sub *nats.Subscription

	// Under the follower's mu. refused is that the broker did, since it was
	// subscribed to last; deaf that this is told.
	refused, deaf bool
}

// subscribe subscribes to pushed heads and beacons.
func (f *Follower) subscribe() error {
	tokens := []string{"*"}
	if f.config.Namespaces != nil {
		tokens = tokens[:0]
		for _, ns := range f.config.Namespaces {
			tokens = append(tokens, token(ns))
		}
	}
	for _, t := range tokens {
		for _, subject := range f.names.hear(t, f.config.Beacon != nil) {
			pending, dropped := pendingBeats, f.askSoon
			switch subject {
			case f.names.hearHead(t):
				pending = pendingMessages
			case f.names.hearBeat(t):
				dropped = func() {} // the next beacons come in a moment
			}
			l := &listening{subject: subject, pending: pending, dropped: dropped, take: func(m *nats.Msg) { f.takeAny(m, t) }}
			f.mu.Lock()
			f.listening = append(f.listening, l) // before it can be refused
			f.mu.Unlock()
			if err := f.listen(l); err != nil {
				return err
			}
		}
	}
	return nil
}

// unsubscribe ends the subscriptions.
func (f *Follower) unsubscribe() {
	for _, l := range f.listening {
		_ = l.sub.Unsubscribe() // it fails only if the connection is closed
	}
}

// listen subscribes.
func (f *Follower) listen(l *listening) (err error) {
	if l.sub, err = f.config.Conn.Subscribe(l.subject, f.taken(l)); err != nil {
		return policy.Errorf(policy.Unavailable, "cannot subscribe to %s: %w", l.subject, err)
	}
	if err := l.sub.SetPendingLimits(l.pending, pendingBytes); err != nil {
		return policy.Errorf(policy.Unavailable, "cannot bound the subscription to %s: %w", l.subject, err)
	}
	return nil
}

// listenAgain subscribes again to what the broker has refused: what is permitted may
// have changed.
func (f *Follower) listenAgain() error {
	for _, l := range f.listening {
		f.mu.Lock()
		refused, deaf := l.refused, l.deaf
		l.refused, l.deaf = false, refused
		f.mu.Unlock()
		switch {
		case refused:
			_ = l.sub.Unsubscribe() // the broker does not know it
			if err := f.listen(l); err != nil {
				return err // the connection is closed
			}
		case deaf: // it was subscribed to again the last time, and that holds
			f.config.Events(Deaf{Subject: l.subject})
		}
	}
	return nil
}

// hush says, when the follower has ended, that it wants to hear nothing any more.
func (f *Follower) hush() {
	for _, l := range f.listening {
		if l.deaf {
			f.config.Events(Deaf{Subject: l.subject})
		}
	}
}

// Tell takes what [Connect] tells of the follower's connection. A subscription that
// the broker refuses is known from there only; without being told, a follower is deaf
// to pushes from then on until it connects again, and has what is new by its poll. All
// other events are nothing to it. It does not block, but may call Events.
func (f *Follower) Tell(e Event) {
	refusal, ok := e.(BrokerError)
	if !ok || !errors.Is(refusal.Err, nats.ErrPermissionViolation) || !f.begin() {
		return
	}
	defer f.tasks.Done()
	f.mu.Lock()
	var deaf []Deaf
	for _, l := range f.listening {
		if strings.Contains(refusal.Err.Error(), fmt.Sprintf("Subscription to %q", l.subject)) {
			l.refused, l.deaf = true, true
			deaf = append(deaf, Deaf{l.subject, refusal.Err})
		}
	}
	f.mu.Unlock()
	for _, d := range deaf {
		f.config.Events(d)
	}
}

var errMisdelivered = policy.Errorf(policy.Denied, "a message was delivered here that the broker has not stored as this; see who may use NATS")

// taken has every message of one subscription taken until the follower stops.
func (f *Follower) taken(l *listening) nats.MsgHandler {
	known := 0
	return func(m *nats.Msg) {
		if !f.begin() {
			return
		}
		defer f.tasks.Done()
		// What is dropped is dropped because others wait here, so at least one
		// of those comes by after it.
		if n, err := m.Sub.Dropped(); err == nil && n != known {
			known = n
			f.config.Events(SlowConsumer{Subject: l.subject, Dropped: n})
			l.dropped()
		}
		l.take(m)
	}
}

// begin counts a callback as a task, unless the follower has stopped.
func (f *Follower) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped {
		return false
	}
	f.tasks.Add(1)
	return true
}

// takeAny has a message taken that a subscription brought, for the token that it
// is for or for "*". It runs in a callback of nats.go and must be quick.
//
// The broker must say that it stored the message under the very name that it came
// by. Who may not publish can still have the broker answer a question to this
// subject: what comes so was stored elsewhere, or nowhere, and must not take the
// place of what waits here.
func (f *Follower) takeAny(m *nats.Msg, only string) {
	name, beacon, ok := f.names.heard(m.Subject)
	as := headOf(f.config.Domain, name)
	if beacon {
		as = beatOf(f.config.Domain, name)
	}
	if !ok || only != "*" && only != name || m.Header.Get(js.SubjectHeader) != as {
		f.ignored.add(m.Subject, errMisdelivered)
		return
	}
	if isReserved(name) {
		return
	}
	ns, err := parseToken(f.config.Domain, name)
	switch {
	case err != nil:
		f.config.Events(Ignored{Subject: m.Subject, Err: err})
	case beacon:
		f.takeBeat(ns, m)
	default:
		f.take(ns, m)
	}
}

// take takes a pushed head.
func (f *Follower) take(ns policy.Namespace, m *nats.Msg) {
	if len(m.Data) > maxHead {
		f.config.Events(Ignored{Subject: m.Subject, Err: policy.Errorf(policy.Exhausted, "head message is %d bytes, the limit is %d", len(m.Data), maxHead)})
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.slots[ns]
	if s == nil {
		f.unlisted.add(ns)
		return
	}
	// The newest wins, by the broker's count; if that is wrong, the poll mends
	// it.
	if a := newArrival(m.Data, sequence(m), true); s.pushed == nil || a.seq >= s.pushed.seq {
		s.pushed = a
	}
	f.enqueue(s)
}
