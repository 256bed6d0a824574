package jetstream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/policy"
)

const (
	// logHeartbeat is how often a broker that has nothing to say says so. Twice
	// that without a word ends a reading.
	logHeartbeat = 2 * time.Second
	// logBuffer is how many messages wait here at most. Each may carry a bundle.
	logBuffer = 100
	// logIdle is how long the broker keeps a reading that nobody reads.
	logIdle = 30 * time.Second
	// allHeads matches all that the head stream takes.
	allHeads = "$KV.policy.>"
)

// errReadAgain says that the reading has ended in which something was to
// arrive.
var errReadAgain = errors.New("the head stream is read again from its beginning")

// LogConfig configures a [Log]. Store and Take are required.
type LogConfig struct {
	// Store whose head stream is read.
	Store *Store
	// Issuer is the name under which this process commits ticks. It is no
	// secret, and another process should not have it.
	Issuer string
	// Begin says that a reading begins: what was taken in the one before may
	// not be in the stream any more. Nil does nothing. It and Take are called
	// one at a time.
	Begin func()
	// Take is given the note of every head, in the order of the stream. Nothing
	// of it has been verified. What it does not return from, delays ticks.
	Take func(ns policy.Namespace, note []byte)
	// Now is the clock; nil is [time.Now].
	Now func() time.Time
	// After is the clock of pauses; nil is [time.After].
	After func(time.Duration) <-chan time.Time
	// Events is told what is ignored, and why a reading ended; nil tells
	// nobody.
	Events func(Event)
}

// Log reads the head stream of a domain in the order in which it was written,
// and knows by [Log.Tick] when it has come as far as the stream had at a time.
//
// A reading begins with the newest head of each namespace and goes on with
// everything that comes. It ends with the connection, when the broker leaves
// something out, or when the stream is removed; then another one begins from the
// beginning. So each reading is of one stream. Where messages made room for newer
// ones before they were read, no tick counts until the newer ones were taken.
type Log struct {
	config  LogConfig
	nonces  string // what those of its ticks begin with, and no other's do
	started atomic.Bool

	mu      sync.Mutex
	reading *pass
	ready   chan struct{} // closed while the reading has caught up
	waiting map[string]*tickWaiter
	newest  IssuerTick
	// stored is when the newest was, by the broker's clock, until it is known how
	// long ago that is.
	stored time.Time
	ahead  time.Duration // see Ahead
	ticks  uint64        // how many were made
	// announced is the version of the trust file that was announced last, 0 if none
	// was.
	announced uint64
}

// pass is one reading of the stream. All but cancel are of its goroutine.
type pass struct {
	cancel context.CancelCauseFunc
	// last is the number of the newest message that the stream had when messages
	// were left out before: at the beginning, those that are no heads any more,
	// and later some that made room for newer ones. When the reading has come
	// that far, it has taken what is newer than each of them.
	last  uint64
	at    uint64 // the number of the last message that was read
	count uint64 // of messages that the broker has delivered
	ready bool   // it has come as far as last
}

// NewLog returns a log that does nothing before Run.
func NewLog(c LogConfig) (*Log, error) {
	if c.Store == nil || c.Take == nil {
		return nil, policy.Errorf(policy.BadRequest, "the log has no store, or nobody who takes heads")
	}
	if len(c.Issuer) > maxIssuer {
		return nil, policy.Errorf(policy.BadRequest, "the name %.50q... of an issuer is %d bytes, the limit is %d", c.Issuer, len(c.Issuer), maxIssuer)
	}
	if c.Begin == nil {
		c.Begin = func() {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.After == nil {
		c.After = time.After
	}
	if c.Events == nil {
		c.Events = func(Event) {}
	}
	return &Log{config: c, nonces: rand.Text() + "-", ready: make(chan struct{}), waiting: map[string]*tickWaiter{}}, nil
}

// Run reads until ctx ends, which is no error, or the connection is closed. It
// may be called once.
func (l *Log) Run(ctx context.Context) error {
	if l.started.Swap(true) {
		return policy.Errorf(policy.Internal, "a log runs once; make another")
	}
	nc := l.config.Store.nc
	connected := nc.StatusChanged(nats.CONNECTED)
	defer nc.RemoveStatusListener(connected)
	for failures := 0; ; failures++ {
		caughtUp, err := l.read(ctx)
		switch {
		case ctx.Err() != nil:
			return nil // it was told to end
		case nc.IsClosed():
			return policy.Errorf(policy.Unavailable, "the connection to NATS was closed; the head stream cannot be read any more")
		case errors.Is(err, errReadAgain): // it was asked for
			failures = -1
			continue
		case caughtUp:
			failures = 0
		}
		l.config.Events(ReadAgain{Err: err})
		select {
		case <-ctx.Done():
			return nil
		case <-connected:
		case <-l.config.After(backoff(failures, 5*time.Second)):
		}
	}
}

// Again ends the reading, so that another one begins at once: for when that
// which takes heads has changed its mind about them.
func (l *Log) Again() { l.end(nil, errReadAgain) }

// end ends a reading, or whichever there is.
func (l *Log) end(r *pass, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reading == nil || r != nil && r != l.reading {
		return
	}
	l.reading.cancel(why)
	l.reading = nil
	l.unready()
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// unready has ticks wait until a reading has caught up, and those that are on
// their way begin again. It runs under mu.
func (l *Log) unready() {
	if isClosed(l.ready) {
		l.ready = make(chan struct{})
	}
	for nonce, w := range l.waiting {
		delete(l.waiting, nonce)
		w.done <- errReadAgain
	}
}

// read does one reading, and says whether it had caught up before it ended.
func (l *Log) read(ctx context.Context) (caughtUp bool, err error) {
	nc := l.config.Store.nc
	ctx, end := untilLost(ctx, nc)
	ctx, cancel := context.WithCancelCause(ctx)
	defer func() {
		if errors.Is(err, context.Canceled) {
			err = context.Cause(ctx)
		}
		cancel(nil)
		end(nil)
	}()

	r := &pass{cancel: cancel}
	consumer, err := l.open(ctx, r)
	if err != nil {
		return false, err
	}
	defer l.close(ctx, consumer)
	messages, err := consumer.Messages(js.PullMaxMessages(logBuffer), js.PullHeartbeat(logHeartbeat), js.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return false, err
	}
	defer messages.Stop()

	l.config.Begin()
	l.mu.Lock()
	l.reading = r
	l.newest, l.stored, l.announced = IssuerTick{}, time.Time{}, 0
	l.mu.Unlock()
	defer l.end(r, errReadAgain)
	for {
		if !r.ready && r.at >= r.last {
			r.ready, caughtUp = true, true
			l.caughtUp(r)
		}
		m, err := messages.Next(js.NextContext(ctx))
		if err != nil {
			return caughtUp, err
		}
		if err := l.take(ctx, r, m); err != nil {
			return caughtUp, err
		}
	}
}

// open makes the reading's consumer. Its filter is all that the stream takes:
// then the numbers of messages have no gaps but where one was dropped to make
// room.
func (l *Log) open(ctx context.Context, r *pass) (js.Consumer, error) {
	s := l.config.Store
	ctx, cancel := bounded(ctx, readTimeout)
	defer cancel()
	var consumer js.Consumer
	err := s.persist(ctx, "cannot read the heads in order", func(ctx context.Context) error {
		stream, err := s.api.Stream(ctx, headStream)
		if err != nil {
			return err
		}
		consumer, err = stream.CreateConsumer(ctx, js.ConsumerConfig{
			Description:       "Microwall: the head stream in its order",
			DeliverPolicy:     js.DeliverLastPerSubjectPolicy,
			FilterSubject:     allHeads,
			AckPolicy:         js.AckNonePolicy,
			MaxDeliver:        1,
			Replicas:          1,
			MemoryStorage:     true,
			InactiveThreshold: logIdle,
		})
		if err != nil {
			return err
		}
		// After the consumer is there: what comes later, it delivers one by one.
		r.last, err = l.newestNumber(ctx)
		return err
	})
	return consumer, err
}

// newestNumber returns the number of the newest message of the stream, 0 if it
// has none. The stream's own counter may have gone further: a server counts what
// it could not write.
func (l *Log) newestNumber(ctx context.Context) (uint64, error) {
	newest, err := l.config.Store.readLast(ctx, headStream, allHeads)
	if errors.Is(err, errAbsent) {
		return 0, nil
	}
	return newest.seq, err
}

// close lets the broker forget a consumer now rather than after logIdle.
func (l *Log) close(ctx context.Context, consumer js.Consumer) {
	if s := l.config.Store; s.nc.IsConnected() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = s.api.DeleteConsumer(ctx, headStream, consumer.CachedInfo().Name)
	}
}

// caughtUp lets ticks begin.
func (l *Log) caughtUp(r *pass) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reading == r {
		close(l.ready)
	}
}

// take takes one message. An error ends the reading.
func (l *Log) take(ctx context.Context, r *pass, m js.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return fmt.Errorf("a message of the head stream has no number: %w", err)
	}
	seq := meta.Sequence
	if r.count++; seq.Consumer != r.count {
		return fmt.Errorf("message %d of this reading came where number %d was due", seq.Consumer, r.count)
	}
	if seq.Stream <= r.at {
		return nil // the newest head was delivered, and again where it stands
	}
	if seq.Stream > r.last && seq.Stream != max(r.at, r.last)+1 {
		if err := l.missed(ctx, r); err != nil {
			return err
		}
	}
	r.at = seq.Stream
	token := headToken(l.config.Store.config.Domain, m.Subject())
	switch token {
	case "":
		return nil // another domain's
	case tickToken, confirmToken:
		l.takeTick(ctx, r, token, m.Data(), meta)
		return nil
	case trustToken:
		l.takeAnnouncement(m)
		return nil
	}
	if isReserved(token) {
		return nil
	}
	ns, err := parseToken(l.config.Store.config.Domain, token)
	if err == nil {
		var head message
		if head, err = parseMessage(m.Data()); err == nil {
			l.config.Take(ns, head.note)
			return nil
		}
	}
	l.config.Events(Ignored{Subject: m.Subject(), Err: err})
	return nil
}

// takeAnnouncement takes what is said of the newest trust file.
func (l *Log) takeAnnouncement(m js.Msg) {
	version, ok := parseAnnouncement(m.Data())
	if !ok {
		l.config.Events(Ignored{Subject: m.Subject(), Err: errNoAnnouncement})
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.announced = version
}

// AnnouncedTrust returns the version of the trust file that was announced last, as
// far as the log has read: 0 if none was. Whoever has an older one in force may not
// know whose releases are heads.
func (l *Log) AnnouncedTrust() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.announced
}

// missed has ticks wait because messages made room for newer ones before they
// were read.
func (l *Log) missed(ctx context.Context, r *pass) error {
	ctx, cancel := bounded(ctx, readTimeout)
	defer cancel()
	last, err := l.newestNumber(ctx)
	if err != nil {
		return err
	}
	r.last, r.ready = last, false
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reading == r {
		l.unready()
	}
	return nil
}
