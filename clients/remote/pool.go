package remote

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
)

// pdp is one PDP that can be asked.
type pdp struct {
	server  string // HOST:PORT
	conn    *grpc.ClientConn
	breaker breaker
	// unanswered is the error of the last call that the PDP did not answer.
	unanswered atomic.Pointer[error]
	// lived is when it answered last, as the time since sinceWhen.
	lived atomic.Int64
}

var sinceWhen = time.Now()

// livedAfter reports whether the PDP has answered somebody after a time.
func (p *pdp) livedAfter(t time.Time) bool { return p.lived.Load() > int64(t.Sub(sinceWhen)) }

// name is how messages call it.
func (p *pdp) name() string { return "PDP at " + p.server }

// stayConnected connects again whenever the connection is gone, whether somebody
// asks or not, until ctx ends.
func (p *pdp) stayConnected(ctx context.Context) {
	for {
		state := p.conn.GetState()
		switch state {
		case connectivity.Idle:
			p.conn.Connect()
		case connectivity.Ready:
			p.breaker.reconnected()
		case connectivity.Shutdown:
			return
		}
		if !p.conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}

// invoke makes a call. An error that the PDP gave itself is an *answer: it lives.
func (p *pdp) invoke(ctx context.Context, method string, question, answered proto.Message) error {
	var trailer metadata.MD
	err := p.conn.Invoke(ctx, method, question, answered, grpc.Trailer(&trailer))
	if err != nil && len(trailer.Get(wire.Answered)) > 0 {
		return &answer{err, wire.ReadBy(trailer.Get(wire.By))}
	}
	return err
}

// answer is an error by which a PDP answered, and the versions that it comes from.
type answer struct {
	error
	by []policy.Version
}

func (a *answer) Unwrap() error { return a.error }

// passedOver is the answer of a PDP that another one may answer otherwise.
func passedOver(err error) error { return &answer{error: status.Error(codes.Unavailable, err.Error())} }

// pool spreads calls over PDPs, each of which has the same to say.
type pool struct {
	pdps   []*pdp
	next   atomic.Uint32
	budget budget
}

func (o *pool) run(ctx context.Context) {
	var work sync.WaitGroup
	for _, p := range o.pdps {
		work.Go(func() { p.stayConnected(ctx) })
	}
	work.Wait()
}

// call is how a call is made.
type call struct {
	// until is when whoever waits for it goes; zero if that is when its context
	// ends.
	until time.Time
	// patient says that a PDP may need all the time there is, as it waits for
	// something.
	patient bool
}

// ask makes a call to one PDP, and to the next one if that has no answer, until
// ctx ends. Each is asked once. What is asked changes nothing, so that it may be
// asked twice. It returns the PDP whose error it is, nil if none was asked.
func (o *pool) ask(ctx context.Context, c call, do func(context.Context, *pdp) error) (p *pdp, err error) {
	o.budget.earn()
	first := int(o.next.Add(1) % uint32(len(o.pdps))) //nolint:gosec // there are few
	for i := range o.pdps {
		one := o.pdps[(first+i)%len(o.pdps)]
		let, ok := one.breaker.allow(time.Now())
		if !ok {
			continue
		}
		var again bool
		if again, err = o.attempt(ctx, c, one, let, o.left(first+i+1, len(o.pdps)-i-1), do); !again {
			return one, err
		}
		p = one
	}
	if p == nil {
		return nil, o.closed()
	}
	return p, err
}

// left returns how many of the next n PDPs from one on may be asked.
func (o *pool) left(from, n int) (left int) {
	for i := range n {
		if open, _ := o.pdps[(from+i)%len(o.pdps)].breaker.state(); !open {
			left++
		}
	}
	return left
}

// slow is how long a call must have waited at least for its end to say something
// of the PDP: a caller without time finds nobody quick enough.
const slow = 50 * time.Millisecond

// attempt asks one PDP, and leaves time for so many others. It reports whether
// another one may be asked.
func (o *pool) attempt(ctx context.Context, c call, p *pdp, let ticket, others int, do func(context.Context, *pdp) error) (again bool, err error) {
	begun, how, open := time.Now(), withdrawn, false
	own, cancel := c.part(ctx, begun, others)
	defer cancel()
	func() {
		defer func() { open = p.breaker.done(let, how, time.Now()) }() // even if it panics
		if err = do(own, p); err != nil {
			how = c.outcome(ctx, p, err, begun)
		} else {
			how = answered
		}
	}()
	if how == answered {
		p.lived.Store(int64(time.Since(sinceWhen)))
	}
	if how == unanswered {
		p.unanswered.Store(&err)
	}
	code := status.Code(err)
	switch {
	case ctx.Err() != nil || code != codes.Unavailable && code != codes.DeadlineExceeded:
		return false, err
	case how == answered && code == codes.Unavailable:
		return true, err // it took no time, and leaves the others no more to do
	}
	if code == codes.DeadlineExceeded && others > 0 { // its part has ended, and not the call
		err = status.Errorf(codes.Unavailable, "it has not answered in its part of the call's time (%s)", status.Convert(err).Message())
	}
	// What is left undone by a PDP that nobody asks any more, is for the others
	// to do; otherwise asking again is more than there was to do.
	return open || o.budget.spend(), err
}

// outcome says what the error of an attempt means that was begun at a time. One that a
// PDP has not answered in time while it answered others, to the end, says nothing of it:
// callers choose how long they wait, and what they ask.
func (c call) outcome(ctx context.Context, p *pdp, err error, begun time.Time) outcome {
	if _, own := errors.AsType[*answer](err); own {
		return answered
	}
	took := time.Since(begun)
	timely := !c.patient && took >= slow && !p.livedAfter(begun.Add(took/2))
	switch status.Code(err) {
	case codes.Unavailable:
		return unanswered
	case codes.DeadlineExceeded:
		if timely {
			return unanswered
		}
		return withdrawn
	case codes.Canceled:
		if timely && errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			return unanswered
		}
		return withdrawn
	}
	return answered
}

// part bounds an attempt after which so many others shall have their time.
func (c call) part(ctx context.Context, now time.Time, others int) (context.Context, context.CancelFunc) {
	if others == 0 {
		return ctx, func() {}
	}
	end, ok := ctx.Deadline()
	if !c.until.IsZero() && c.until.After(now) && (!ok || c.until.Before(end)) {
		end, ok = c.until, true
	}
	if !ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, end.Sub(now)/time.Duration(others+1))
}

// closed is the error when there is nobody to ask.
func (o *pool) closed() error {
	p := o.pdps[0]
	if last := p.unanswered.Load(); last != nil {
		err := wire.Error(p.name(), *last)
		return policy.Errorf(policy.Unavailable, "%s has not answered lately, and is left alone for a few seconds%s: %s", p.name(), o.others(), err)
	}
	return policy.Errorf(policy.Unavailable, "%s has not answered lately, and is left alone for a few seconds%s; ask again", p.name(), o.others())
}

func (o *pool) others() string {
	if len(o.pdps) == 1 {
		return ""
	}
	return ", as all others are"
}
