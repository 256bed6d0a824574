package jetstream

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/policy"
)

// maxAnnouncement bounds what is said of the newest trust file, in bytes.
const maxAnnouncement = 64

// trustSubject is where a version of the trust file is stored, once and for all.
func trustSubject(domain string, version uint64) string {
	return blobOf(domain, trustToken, strconv.FormatUint(version, 10))
}

// announcement is what is said of the newest trust file: its version alone. Nobody
// believes it; it is a reason to ask.
func announcement(version uint64) []byte {
	return []byte("version: " + strconv.FormatUint(version, 10) + "\n")
}

var errNoAnnouncement = policy.Errorf(policy.BadRequest, "this announces no version of the trust file")

func parseAnnouncement(data []byte) (version uint64, ok bool) {
	if len(data) > maxAnnouncement {
		return 0, false
	}
	digits, ok := strings.CutPrefix(string(data), "version: ")
	version, err := strconv.ParseUint(strings.TrimSuffix(digits, "\n"), 10, 63)
	return version, ok && err == nil && string(announcement(version)) == string(data)
}

// PutTrust stores a signed trust file as a version of it. A version is stored
// once: what PutTrust returns is what is there then, note or another one that
// somebody stored before. The caller has verified note, and judges what is there.
func (s *Store) PutTrust(ctx context.Context, version uint64, note []byte) (held []byte, err error) {
	if len(note) == 0 || len(note) > ChunkSize {
		return nil, policy.Errorf(policy.Exhausted, "signed trust file is %d bytes, one that travels has %d at most; put it into place by hand", len(note), ChunkSize)
	}
	ctx, cancel := bounded(ctx, putTimeout)
	defer cancel()
	m, err := s.putOnce(ctx, trustSubject(s.config.Domain, version), note)
	switch {
	case err != nil && (ctx.Err() != nil || transient(err)):
		return nil, unanswered(ctx, err)
	case err != nil:
		return nil, refused("cannot store the trust file", err)
	}
	return m.data, nil
}

// AnnounceTrust tells all who follow the trust file that a version is stored,
// unless a newer one was announced already and is stored.
func (s *Store) AnnounceTrust(ctx context.Context, version uint64) error {
	ctx, cancel := bounded(ctx, putTimeout)
	defer cancel()
	subject := headOf(s.config.Domain, trustToken)
	for n := 0; ; n++ {
		last, err := s.readLast(ctx, headStream, subject)
		if err != nil && !errors.Is(err, errAbsent) {
			return err
		}
		if newest, ok := parseAnnouncement(last.data); ok && newest >= version {
			if newest == version {
				return nil
			}
			if _, err := s.Trust(ctx, newest); err == nil || policy.KindOf(err) != policy.NotFound {
				return err
			}
		}
		_, err = s.publish(ctx, headStream, &nats.Msg{Subject: subject, Data: announcement(version)}, js.WithExpectLastSequencePerSubject(last.seq))
		switch {
		case err == nil:
			return nil
		case ctx.Err() == nil && !transient(err) && !conflict(err):
			return refused("cannot announce the trust file", err)
		}
		// Somebody else announced one meanwhile, or it is not known whether this
		// was stored: the stream says.
		if pause(ctx, n) != nil {
			return unanswered(ctx, err)
		}
	}
}

// NewestTrust returns the version of the trust file that was announced last, 0 if
// none was.
func (s *Store) NewestTrust(ctx context.Context) (uint64, error) {
	last, err := s.readLast(ctx, headStream, headOf(s.config.Domain, trustToken))
	if err != nil && !errors.Is(err, errAbsent) {
		return 0, err
	}
	version, _ := parseAnnouncement(last.data)
	return version, nil
}

// Trust returns a version of the signed trust file as it is stored, or a
// [policy.NotFound] error. It has not been verified.
func (s *Store) Trust(ctx context.Context, version uint64) ([]byte, error) {
	m, err := s.readLast(ctx, blobStream, trustSubject(s.config.Domain, version))
	if errors.Is(err, errAbsent) {
		return nil, policy.Errorf(policy.NotFound, "version %d of the trust file was not pushed here", version)
	}
	return m.data, err
}

// TrustFollowConfig configures a [TrustFollower]. Conn, As, Domain, Version and
// Offer are required.
type TrustFollowConfig struct {
	// Conn is a connection that may subscribe to what is announced of the trust
	// file, and ask for its versions. It remains the caller's, and need not be
	// connected yet.
	Conn *nats.Conn
	// As is the kind of principal whose connection it is.
	As Kind
	// Domain is the name of the trust domain.
	Domain string
	// Version returns which version is in force.
	Version func() uint64
	// Offer takes the version after that: it verifies it and puts it in force, or
	// returns an error. It is never called twice at once.
	Offer func(note []byte) error
	// Pushed returns the newest version that is known to have been pushed; nil does
	// not ask. While the one in force is newer, which somebody put into place by
	// hand, Offer is also given what was pushed under its version.
	Pushed func() uint64
	// Mode other than [ByPush] only asks, and listens to no announcement.
	Mode Mode
	// Poll, After and Events are as in [FollowConfig].
	Poll   time.Duration
	After  func(time.Duration) <-chan time.Time
	Events func(Event)
}

// TrustFollower brings the versions of the trust file to a callback, one by one
// and in order, from the one after that which is in force. It asks for it when one
// is announced, when it connects, and on a slow poll: nothing depends on an
// announcement.
type TrustFollower struct {
	config TrustFollowConfig
	names  names
	news   chan struct{} // has room for one: something was announced
	heard  atomic.Uint64 // the highest version that was announced
	looked chan struct{}
	// ignored are what was announced and cannot be.
	ignored *ignoring
}

// NewTrustFollower returns a follower that does nothing before Run.
func NewTrustFollower(c TrustFollowConfig) (*TrustFollower, error) {
	if c.Conn == nil || c.Version == nil || c.Offer == nil {
		return nil, policy.Errorf(policy.BadRequest, "the follower of the trust file needs a connection, a version and somebody to offer to")
	}
	names, err := c.As.names(c.Domain)
	if err != nil {
		return nil, err
	}
	if c.Poll == 0 {
		c.Poll = DefaultPoll
	}
	if c.After == nil {
		c.After = time.After
	}
	if c.Events == nil {
		c.Events = func(Event) {}
	}
	return &TrustFollower{config: c, names: names, news: make(chan struct{}, 1), looked: make(chan struct{}), ignored: newIgnoring()}, nil
}

// Looked is closed once the broker was asked for what follows the version that was
// in force at the start, and all that it answered was offered; or once it could
// not be asked. Releases that are offered before are judged by an older version.
func (f *TrustFollower) Looked() <-chan struct{} { return f.looked }

// Run follows until ctx ends, which is no error, or the connection is closed. It
// may be called once.
func (f *TrustFollower) Run(ctx context.Context) error {
	var telling sync.WaitGroup
	defer telling.Wait()
	ctx, end := context.WithCancel(ctx)
	defer end()
	telling.Go(func() { f.ignored.run(ctx, f.config.After, f.config.Events) })
	status := f.config.Conn.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer f.config.Conn.RemoveStatusListener(status)
	if f.config.Mode == ByPush {
		sub, err := f.config.Conn.Subscribe(f.names.hearHead(trustToken), f.announced)
		if err != nil {
			return policy.Errorf(policy.Unavailable, "cannot subscribe to the trust file: %w", err)
		}
		defer func() { _ = sub.Unsubscribe() }() // it fails only if the connection is closed
		if err := sub.SetPendingLimits(pendingMessages, pendingBytes); err != nil {
			return policy.Errorf(policy.Unavailable, "cannot bound the subscription to the trust file: %w", err)
		}
	}
	// A replica may be behind when something has just changed: then it is asked
	// again soon.
	const again = 5
	var once sync.Once
	for looks := 1; ; {
		wait := jitter(f.config.Poll)
		if f.config.Conn.IsConnected() {
			behind, err := f.catchUp(ctx)
			once.Do(func() { close(f.looked) })
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				f.config.Events(AskFailed{Err: err})
				wait = backoff(looks, f.config.Poll)
				looks++
			case looks > 0 && (behind || looks == 1):
				wait = backoff(again-looks, 2*time.Second)
				looks--
			case behind:
				f.config.Events(Ignored{Subject: f.names.hearHead(trustToken), Err: policy.Errorf(policy.NotFound,
					"version %d of the trust file was announced, but version %d, which leads there, is not to be had; push it, or put the newest one into place by hand", f.heard.Load(), f.config.Version()+1)})
				f.heard.Store(0) // said once
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case s := <-status:
			if s == nats.CLOSED {
				return policy.Errorf(policy.Unavailable, "the connection to NATS was closed; no trust file arrives any more")
			}
			looks = 1
		case <-f.news:
			looks = again
		case <-f.config.After(wait):
		}
	}
}

// announced runs in a callback of nats.go and must be quick.
func (f *TrustFollower) announced(m *nats.Msg) {
	version, ok := parseAnnouncement(m.Data)
	if !ok {
		f.ignored.add(m.Subject, errNoAnnouncement)
		return
	}
	if version <= f.config.Version() && !f.unconfirmed() {
		return // who may not publish can still have it delivered again, without end
	}
	f.heard.Store(max(f.heard.Load(), version))
	f.Ask()
}

// Ask asks for the next version soon, because there is reason to believe that
// there is one. It does not wait.
func (f *TrustFollower) Ask() {
	select {
	case f.news <- struct{}{}:
	default: // already to be asked for
	}
}

// unconfirmed reports whether it is not known that the version in force was pushed,
// by somebody who wants to know.
func (f *TrustFollower) unconfirmed() bool {
	return f.config.Pushed != nil && f.config.Pushed() < f.config.Version()
}

// catchUp offers what follows the version in force, as far as it is to be had,
// and reports whether more was announced.
func (f *TrustFollower) catchUp(ctx context.Context) (behind bool, err error) {
	if f.unconfirmed() {
		m, err := f.get(ctx, f.config.Version())
		if err == nil {
			_ = f.config.Offer(m.data) // it has said why
		}
	}
	for {
		next := f.config.Version() + 1
		m, err := f.get(ctx, next)
		if errors.Is(err, errAbsent) {
			return f.heard.Load() >= next, nil
		}
		if err != nil {
			return false, policy.Errorf(policy.Unavailable, "version %d of the trust file cannot be asked for: %w", next, err)
		}
		if f.config.Offer(m.data) != nil || f.config.Version() < next {
			return false, nil //nolint:nilerr // Offer has said why; it is offered again on the next poll
		}
	}
}

// get asks for a version.
func (f *TrustFollower) get(ctx context.Context, version uint64) (stored, error) {
	return f.names.get(ctx, f.config.Conn, f.names.askBlob(trustToken, strconv.FormatUint(version, 10)))
}
