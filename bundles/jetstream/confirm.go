package jetstream

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

const (
	// confirmGroup is the queue of those who confirm: one of them is asked.
	confirmGroup = "pdp"
	// confirmTimeout is how long one PDP takes at most, and how long a client
	// waits before it asks again.
	confirmTimeout = 5 * time.Second
	// confirming is how many requests one PDP answers at once.
	confirming = 4096
	// errorHeader has the kind of an error, whose text is the message's data.
	errorHeader = "Microwall-Error"
)

// ConfirmConfig configures [ServeConfirm]. Conn, Domain and Confirm are required.
type ConfirmConfig struct {
	// Conn is a connection of a PDP.
	Conn *nats.Conn
	// Domain is the name of the trust domain.
	Domain string
	// Confirm returns a signed beacon of the namespace whose tick was committed
	// after it was called. It is called by many at once.
	Confirm func(ctx context.Context, ns policy.Namespace) ([]byte, error)
	// Events is told what was ignored; nil tells nobody.
	Events func(Event)
	// After is as in [FollowConfig].
	After func(time.Duration) <-chan time.Time
}

// ServeConfirm answers clients that ask for the confirmed head of a namespace,
// until ctx ends, which is no error. Of all PDPs that do so, one is asked.
func ServeConfirm(ctx context.Context, c ConfirmConfig) error {
	if err := checkDomain(c.Domain); err != nil {
		return err
	}
	events := c.Events
	if events == nil {
		events = func(Event) {}
	}
	after := c.After
	if after == nil {
		after = time.After
	}
	ignored := newIgnoring()
	free := make(chan struct{}, confirming)
	var mu sync.Mutex
	var work sync.WaitGroup
	stopped := false
	begin := func() bool {
		mu.Lock()
		defer mu.Unlock()
		if !stopped {
			work.Add(1)
		}
		return !stopped
	}
	sub, err := c.Conn.QueueSubscribe(confirmSubject(c.Domain, "*"), confirmGroup, func(m *nats.Msg) {
		ns, err := parseToken(c.Domain, strings.TrimSuffix(strings.TrimPrefix(m.Subject, "pdp.confirm."+c.Domain+"."), "."+confirmHead))
		if !isInbox(m.Reply) {
			ignored.add(m.Subject, policy.Errorf(policy.Denied, "the answer is to go to %.100q, which is no inbox", m.Reply))
			return
		}
		if err != nil {
			// A question of another account that is not answered takes the broker's
			// memory for minutes.
			respond(m, nil, err)
			return
		}
		select {
		case free <- struct{}{}:
		default:
			respond(m, nil, policy.Errorf(policy.Exhausted, "%d heads are being confirmed here already; ask again later", confirming))
			return
		}
		if !begin() {
			<-free
			return
		}
		go func() {
			defer work.Done()
			defer func() { <-free }()
			ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
			defer cancel()
			note, err := c.Confirm(ctx, ns)
			respond(m, note, err)
		}()
	})
	if err != nil {
		return policy.Errorf(policy.Unavailable, "cannot subscribe to %s: %w", confirmSubject(c.Domain, "*"), err)
	}
	ignored.run(ctx, after, events)
	_ = sub.Unsubscribe() // it fails only if the connection is closed
	mu.Lock()
	stopped = true
	mu.Unlock()
	work.Wait()
	return nil
}

// isInbox reports whether a subject is one where answers are received. Whoever
// asks chooses it, and a PDP may publish anywhere: streams among others.
func isInbox(subject string) bool { return strings.HasPrefix(subject, "_") }

// respond answers; whoever asked may be gone.
func respond(m *nats.Msg, note []byte, err error) {
	answer := &nats.Msg{Data: note}
	if err != nil {
		answer.Data = []byte(err.Error())
		answer.Header = nats.Header{errorHeader: {policy.KindOf(err).String()}}
	}
	_ = m.RespondMsg(answer)
}

// Confirm asks a PDP for a beacon of a namespace whose tick was committed after
// Confirm was called, and returns its note. As is the kind of principal whose
// connection it is. It asks again, and so another one,
// until one can say or ctx ends (after 15 s if it has no deadline).
//
// The note is not verified, and who carries it may have kept an older one:
// whoever takes it verifies it, and compares its time with their own clock. It is
// policy.NotFound if the PDP says that the namespace has no head, and
// policy.Unavailable if none could say in time.
func Confirm(ctx context.Context, nc *nats.Conn, as Kind, domain string, ns policy.Namespace) ([]byte, error) {
	names, err := as.names(domain)
	if err != nil {
		return nil, err
	}
	if err := checkNamespace(domain, ns); err != nil {
		return nil, err
	}
	ctx, cancel := bounded(ctx, readTimeout)
	defer cancel()
	for n := 0; ; n++ {
		var note []byte
		err := attempt(ctx, nc, func(ctx context.Context) error {
			m, err := nc.RequestWithContext(ctx, names.askConfirm(token(ns)), nil)
			if err == nil {
				note, err = confirmed(m)
			}
			return err
		})
		kind := policy.KindOf(err)
		switch _, answered := errors.AsType[*policy.Error](err); {
		case err == nil:
			return note, nil
		case answered && kind != policy.Unavailable && kind != policy.Exhausted:
			return nil, err
		}
		if ctx.Err() != nil || pause(ctx, n) != nil {
			return nil, policy.Errorf(policy.Unavailable, "no PDP confirmed the head of %s in time (%w; last: %v); see that one runs with --beacon-key", ns, ctx.Err(), err)
		}
	}
}

// confirmed reads an answer.
func confirmed(m *nats.Msg) ([]byte, error) {
	if kind := m.Header.Get(errorHeader); kind != "" {
		for _, k := range []policy.Kind{policy.BadRequest, policy.NotFound, policy.Failed, policy.Conflict, policy.Denied, policy.Exhausted} {
			if k.String() == kind {
				return nil, policy.Errorf(k, "PDP: %.1000s", m.Data)
			}
		}
		return nil, policy.Errorf(policy.Unavailable, "PDP: %.1000s", m.Data)
	}
	if len(m.Data) > bundles.MaxNote {
		return nil, policy.Errorf(policy.Exhausted, "beacon is %d bytes, the limit is %d", len(m.Data), bundles.MaxNote)
	}
	return m.Data, nil
}
