package jetstream

import (
	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/policy"
)

// pendingBeats is how many beacons wait in a subscription: a round brings one
// of each namespace, and they are small.
const pendingBeats = 16 << 10

// subscribe subscribes to pushed heads and beacons. The function that it
// returns, also with an error, ends the subscriptions.
func (f *Follower) subscribe() (unsubscribe func(), err error) {
	var subs []*nats.Subscription
	unsubscribe = func() {
		for _, sub := range subs {
			_ = sub.Unsubscribe() // it fails only if the connection is closed
		}
	}
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
			sub, err := f.listen(subject, dropped, func(m *nats.Msg) { f.takeAny(m, t) })
			if err != nil {
				return unsubscribe, policy.Errorf(policy.Unavailable, "cannot subscribe to %s: %w", subject, err)
			}
			subs = append(subs, sub)
			if err := sub.SetPendingLimits(pending, pendingBytes); err != nil {
				return unsubscribe, policy.Errorf(policy.Unavailable, "cannot bound the subscription to %s: %w", subject, err)
			}
		}
	}
	return unsubscribe, nil
}

var errMisdelivered = policy.Errorf(policy.Denied, "a message was delivered here that the broker has not stored as this; see who may use NATS")

// listen calls take for every message of a subject until the follower stops, and
// dropped when some were dropped.
func (f *Follower) listen(subject string, dropped func(), take nats.MsgHandler) (*nats.Subscription, error) {
	known := 0
	return f.config.Conn.Subscribe(subject, func(m *nats.Msg) {
		if !f.begin() {
			return
		}
		defer f.tasks.Done()
		// What is dropped is dropped because others wait here, so at least one
		// of those comes by after it.
		if n, err := m.Sub.Dropped(); err == nil && n != known {
			known = n
			f.config.Events(SlowConsumer{Subject: subject, Dropped: n})
			dropped()
		}
		take(m)
	})
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
