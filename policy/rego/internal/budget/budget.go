// Package budget bounds what one evaluation may cost: steps, bytes, and time.
//
// A step is about one statement of a policy, or one element that a built-in
// looks at; it takes some ten nanoseconds. Bytes are what an evaluation builds,
// counted when it is built and never given back. Both are counted the same way
// on every machine, so that whether a policy fits does not depend on where it
// runs; the deadline is what is left to stop it by where it does.
package budget

import (
	"context"
	"errors"
	"math"
	"time"
)

// Limits of one evaluation. A field that is zero sets no limit.
type Limits struct {
	Steps, Bytes int64
	Time         time.Duration
}

// The errors of an evaluation that does not fit.
var (
	ErrSteps = errors.New("over its budget of steps")
	ErrBytes = errors.New("over its budget of bytes")
	ErrTime  = errors.New("over its budget of time")
)

// interval is how many steps are taken between two looks at the context: well
// below a millisecond's worth.
const interval = 1 << 12

// Meter counts what an evaluation costs. It belongs to one goroutine. [Meter.Reset]
// begins an evaluation; the zero Meter allows none.
type Meter struct {
	fuel  int64 // steps until the next look at the context
	steps int64 // steps left beyond fuel
	bytes int64 // bytes left
	ctx   context.Context
	time  time.Duration
	// end is when time is over. It is worked out at the first look at the clock,
	// which short evaluations never take.
	end     time.Time
	limited bool
}

// Reset starts a new evaluation.
func (m *Meter) Reset(ctx context.Context, l Limits) {
	m.ctx, m.steps, m.bytes, m.time = ctx, l.Steps, l.Bytes, l.Time
	m.limited, m.end = l.Steps > 0 || l.Time > 0, time.Time{}
	if l.Steps == 0 {
		m.steps = math.MaxInt64
	}
	if l.Bytes == 0 {
		m.bytes = math.MaxInt64
	}
	m.fuel = min(interval, m.steps)
	m.steps -= m.fuel
}

// Step counts n steps, n >= 0. Whoever does n steps' work counts them before, and
// in a loop without bound at least every thousand.
func (m *Meter) Step(n int64) error {
	m.fuel -= n
	if m.fuel >= 0 {
		return nil
	}
	return m.refill()
}

func (m *Meter) refill() error {
	if m.ctx != nil {
		if err := m.ctx.Err(); err != nil {
			return err
		}
	}
	if m.time > 0 {
		switch now := time.Now(); {
		case m.end.IsZero():
			m.end = now.Add(m.time)
		case now.After(m.end):
			return ErrTime
		}
	}
	if m.steps < -m.fuel {
		m.steps, m.fuel = 0, 0
		return ErrSteps
	}
	m.steps += m.fuel
	m.fuel = min(interval, m.steps)
	m.steps -= m.fuel
	return nil
}

// Bytes counts n bytes that are about to be built, n >= 0. What is refused, and is
// not built, is not counted.
func (m *Meter) Bytes(n int64) error {
	if n > m.bytes {
		return ErrBytes
	}
	m.bytes -= n
	return nil
}

// Work counts n steps and as many bytes.
func (m *Meter) Work(steps, bytes int64) error {
	if err := m.Bytes(bytes); err != nil {
		return err
	}
	return m.Step(steps)
}

// Context returns what the evaluation ends with, for work that cannot count its
// steps; nil if there is none.
func (m *Meter) Context() context.Context { return m.ctx }

// Limited reports whether there is a limit of steps or of time: whether what takes
// too long must not begin.
func (m *Meter) Limited() bool { return m.limited }

// IsOver reports whether an evaluation ended because it was over its limits.
func IsOver(err error) bool {
	return errors.Is(err, ErrSteps) || errors.Is(err, ErrBytes) || errors.Is(err, ErrTime)
}

// Product returns a*b for sizes, at most math.MaxInt64.
func Product(a, b int64) int64 {
	if a <= 0 || b <= 0 {
		return 0
	}
	if a > math.MaxInt64/b {
		return math.MaxInt64
	}
	return a * b
}
