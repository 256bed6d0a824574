package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/policy"
)

const (
	// attemptTimeout bounds a request, and lastTimeout one that was made before and
	// may be long on its way, as it carries a chunk. A broker answers in
	// milliseconds; what is asked of a server that dies or is paused, and of a
	// stream that has no leader, is lost, and asked again. A stream whose leader
	// is lost has another after 5 to 10 s.
	attemptTimeout = 2 * time.Second
	lastTimeout    = 8 * time.Second
	// quick is how many requests that are lost in a row are taken to have met a
	// stream without a leader, before they are given more time.
	quick = 4
	// readTimeout and putTimeout bound what has no deadline of its own.
	readTimeout = 15 * time.Second
	putTimeout  = 30 * time.Second
	// maxPut bounds a put with any deadline: it is far below sweepPause.
	maxPut = 5 * time.Minute
	// unconnected is how long a request waits for a connection: those of a cluster
	// that loses a server are made again sooner.
	unconnected = 5 * time.Second
)

// Error codes of JetStream that nats.go has no names for.
const (
	codeAccountResources js.ErrorCode = 10002
	codeNoPeers          js.ErrorCode = 10005
	codeClusterNotAvail  js.ErrorCode = 10008
	codeInsufficient     js.ErrorCode = 10023
	codeStorageResources js.ErrorCode = 10047
	codeStreamStore      js.ErrorCode = 10049 // its files are just being removed
	// codeStoreFailed is the answer of a full stream and of a write-once
	// subject that holds a message.
	codeStoreFailed  js.ErrorCode = 10077
	codeNoCluster    js.ErrorCode = 10074
	codeOffline      js.ErrorCode = 10118
	codeNotReady     js.ErrorCode = 10163 // to compare what is the head
	codeOfflineSince js.ErrorCode = 10194
)

// errLost is why a request was given up whose connection is gone: its answer
// cannot come any more.
var errLost = errors.New("the connection to the broker was lost")

// errAbsent says that a subject holds no message.
var errAbsent = errors.New("no message")

// stored is a message of a stream.
type stored struct {
	subject string
	seq     uint64
	header  nats.Header
	data    []byte
	time    time.Time
}

// bounded returns ctx with a deadline: one of after from now, or a little before its
// own, so that whoever waits until then is still told why in vain.
func bounded(ctx context.Context, after time.Duration) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok {
		return context.WithDeadline(ctx, end.Add(-min(time.Until(end)/10, time.Second)))
	}
	return context.WithTimeout(ctx, after)
}

// attempt makes one request. It has a time limit of its own, and is given up when
// the connection is lost.
func attempt(ctx context.Context, nc *nats.Conn, request func(context.Context) error) error {
	return attemptAgain(ctx, nc, 0, request)
}

// attemptAgain is attempt after others that were too short: each has twice the
// time of the one before.
func attemptAgain(ctx context.Context, nc *nats.Conn, tooShort int, request func(context.Context) error) error {
	bound, cancel := context.WithTimeoutCause(ctx, min(attemptTimeout<<min(tooShort, 8), lastTimeout), nats.ErrTimeout)
	defer cancel()
	lose, done := untilLost(bound, nc)
	defer done(nil)
	err := request(lose)
	if err != nil && lose.Err() != nil {
		err = context.Cause(lose)
	}
	// A question that may not be asked is not answered, but told of besides.
	if last := nc.LastError(); errors.Is(err, nats.ErrTimeout) && errors.Is(last, nats.ErrPermissionViolation) {
		err = fmt.Errorf("%w; %w", err, last)
	}
	return err
}

// untilLost returns a context that also ends when the connection is lost, by
// errLost. end ends it, and must be called.
func untilLost(ctx context.Context, nc *nats.Conn) (_ context.Context, end context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	status := nc.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-status:
			cancel(errLost)
		case <-ctx.Done():
		}
	}()
	return ctx, func(cause error) {
		cancel(cause)
		<-watched
		nc.RemoveStatusListener(status)
	}
}

// transient reports whether another attempt may do better.
func transient(err error) bool {
	for _, e := range []error{
		errLost, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrDisconnected, nats.ErrReconnectBufExceeded,
		nats.ErrConnectionReconnecting, js.ErrNoStreamResponse,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	switch code(err) {
	case codeNoPeers:
		return !full(err)
	case codeClusterNotAvail, codeOffline, codeOfflineSince, codeNotReady, codeStreamStore: // a cluster that is finding itself
		return true
	}
	return false
}

// code returns JetStream's error code, or 0.
func code(err error) js.ErrorCode {
	if api, ok := errors.AsType[*js.APIError](err); ok {
		return api.ErrorCode
	}
	return 0
}

// unanswered is the error when ctx ended before the broker did what it should.
func unanswered(ctx context.Context, last error) error {
	if last == nil || policy.Ended(last) { // whoever asked is told that already
		last = errors.New("no answer")
	}
	hint := "see that it runs and can be reached"
	if errors.Is(last, nats.ErrPermissionViolation) {
		hint = askForMore
	}
	if errors.Is(last, nats.ErrNoResponders) || errors.Is(last, js.ErrNoStreamResponse) {
		hint = "see that JetStream is on in this account, and that the streams are there"
	}
	return policy.Errorf(policy.Unavailable, "the NATS broker did not answer in time (%v; last: %w); %s", ctx.Err(), last, hint)
}

// refused is the error for what the broker answered.
func refused(what string, err error) error {
	if _, ok := errors.AsType[*policy.Error](err); ok {
		return err
	}
	switch {
	case errors.Is(err, nats.ErrConnectionClosed):
		return policy.Errorf(policy.Unavailable, "%s: %w; this process is shutting down", what, err)
	case errors.Is(err, js.ErrStreamNotFound):
		return policy.Errorf(policy.Unavailable, "%s: %w; the streams were removed: a PDP makes them again; then raise the epoch in the trust file, and push everything again", what, err)
	case code(err) == codeNoCluster:
		return policy.Errorf(policy.BadRequest, "%s: %w; the NATS servers are no cluster: make them one, or ask for one replica", what, err)
	case errors.Is(err, js.ErrJetStreamNotEnabled), errors.Is(err, js.ErrJetStreamNotEnabledForAccount):
		return policy.Errorf(policy.Unavailable, "%s: %w; turn JetStream on in the broker and in this account", what, err)
	case full(err):
		return policy.Errorf(policy.Exhausted, "%s: the broker's storage is full (%w); raise its bound (microwall serve --max-store), or keep fewer releases (--keep), and push again", what, err)
	case errors.Is(err, nats.ErrMaxPayload):
		return policy.Errorf(policy.Exhausted, "%s: %w; the broker must take messages of 1 MiB (max_payload)", what, err)
	}
	return policy.Errorf(policy.Internal, "%s: %w", what, err)
}

func full(err error) bool {
	switch code(err) {
	case codeNoPeers: // for want of space, or because there are none yet
		return strings.Contains(err.Error(), "insufficient storage")
	case codeAccountResources, codeInsufficient, codeStorageResources, codeStoreFailed:
		return true
	}
	return false
}

// pause waits before attempt n+1, or returns the error of a ctx that ended.
func pause(ctx context.Context, n int) error {
	// Short, as few processes ask and authors wait: a stream is back when its
	// new leader is.
	t := time.NewTimer(backoff(n, 500*time.Millisecond))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// persist makes a request again and again until it is answered for good or ctx
// ends.
func persist(ctx context.Context, nc *nats.Conn, what string, request func(context.Context) error) error {
	lost := 0
	var last error      // that the broker has caused
	var since time.Time // when there was a connection last
	for n := 0; ; n++ {
		switch connected := nc.IsConnected(); {
		case connected:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) > unconnected:
			return policy.Errorf(policy.Unavailable, "%s: there is no connection to NATS, and none was made within %s; see that NATS runs and can be reached", what, unconnected)
		}
		err := attemptAgain(ctx, nc, max(0, lost-quick), request)
		if errors.Is(err, nats.ErrTimeout) {
			lost++
		}
		if !policy.Ended(err) {
			last = err
		}
		switch {
		case err == nil, errors.Is(err, errAbsent):
			return err
		case ctx.Err() != nil:
			return unanswered(ctx, last)
		case !transient(err):
			return refused(what, err)
		}
		if pause(ctx, n) != nil {
			return unanswered(ctx, last)
		}
	}
}

// sequence returns the number that the broker gave a message that it has
// stored, or 0.
func sequence(m *nats.Msg) uint64 {
	seq, err := strconv.ParseUint(m.Header.Get(js.SequenceHeader), 10, 64)
	if err != nil {
		return 0
	}
	return seq
}
