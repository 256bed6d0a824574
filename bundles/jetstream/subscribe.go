package jetstream

import (
	"strings"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/policy"
)

// pendingBeats is how many beacons wait in a subscription: a round brings one
// of each namespace, and they are small.
const pendingBeats = 16 << 10

// pushKind are messages of one kind that come by themselves.
type pushKind struct {
	prefix  string // of their subjects
	pending int
	// stored is the subject of a stream that they come from.
	stored  func(domain, token string) string
	take    func(policy.Namespace, *nats.Msg)
	dropped func() // what to do if some were dropped
}

// subscribe subscribes to pushed heads and beacons. The function that it
// returns, also with an error, ends the subscriptions.
func (f *Follower) subscribe() (unsubscribe func(), err error) {
	var subs []*nats.Subscription
	unsubscribe = func() {
		for _, sub := range subs {
			_ = sub.Unsubscribe() // it fails only if the connection is closed
		}
	}
	add := func(p pushKind, to string, take nats.MsgHandler) error {
		subject := p.prefix + f.config.Domain + "." + to
		sub, err := f.listen(subject, p.dropped, func(m *nats.Msg) {
			if f.genuine(p, m) {
				take(m)
			}
		})
		if err != nil {
			return policy.Errorf(policy.Unavailable, "cannot subscribe to %s: %w", subject, err)
		}
		subs = append(subs, sub)
		if err := sub.SetPendingLimits(p.pending, pendingBytes); err != nil {
			return policy.Errorf(policy.Unavailable, "cannot bound the subscription to %s: %w", subject, err)
		}
		return nil
	}
	all := []pushKind{{"pdp.head.", pendingMessages, headOf, f.take, f.askSoon}}
	if f.config.Beacon != nil {
		// The next beacons come in a moment.
		all = append(all, pushKind{"pdp.beat.", pendingBeats, beatOf, f.takeBeat, func() {}})
	}
	for _, p := range all {
		if f.config.Namespaces == nil {
			if err := add(p, "*", func(m *nats.Msg) { f.takeAny(m, p.take) }); err != nil {
				return unsubscribe, err
			}
		}
		for _, ns := range f.config.Namespaces {
			if err := add(p, token(ns), func(m *nats.Msg) { p.take(ns, m) }); err != nil {
				return unsubscribe, err
			}
		}
	}
	return unsubscribe, nil
}

// genuine reports whether the broker says that it stored a message under the very
// name that it came by. Who may not publish can still have the broker answer a
// question to this subject: what comes so was stored elsewhere, or nowhere, and
// must not take the place of what waits here.
func (f *Follower) genuine(p pushKind, m *nats.Msg) bool {
	name := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
	if m.Header.Get(js.SubjectHeader) == p.stored(f.config.Domain, name) {
		return true
	}
	f.ignored.add(m.Subject, errMisdelivered)
	return false
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

// takeAny has a message taken for the namespace that its subject names, when all
// are followed. It runs in a callback of nats.go and must be quick.
func (f *Follower) takeAny(m *nats.Msg, take func(policy.Namespace, *nats.Msg)) {
	name := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
	if isReserved(name) {
		return
	}
	ns, err := parseToken(f.config.Domain, name)
	if err != nil {
		f.config.Events(Ignored{Subject: m.Subject, Err: err})
		return
	}
	take(ns, m)
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
