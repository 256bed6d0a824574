package builtin

import (
	"hash/maphash"
	"sync/atomic"
)

// patterns keeps what patterns compile to, for all calls in the process. A
// pattern may come from a request, so what is kept is bounded: by the number of
// entries and by the size of each. What a call gives depends on its pattern
// alone, and so does what it is charged: compiling is charged for also where it
// was done before.
//
// It has no locks: an entry is never changed, and one that comes displaces an
// older one. Its zero value is empty.
type patterns[T any] struct {
	compile func(c *Call, pattern, options string) (*compiled[T], error)
	slots   [patternSlots]atomic.Pointer[compiled[T]]
	clock   atomic.Uint32
}

const (
	patternSlots = 1024
	patternWays  = 4        // slots in which a pattern may be
	patternBytes = 32 << 10 // the largest that is kept
)

// compiled is what a pattern with options compiles to, or why it does not.
type compiled[T any] struct {
	pattern, options string
	value            T
	err              error
	steps, bytes     int64 // what compiling it is charged
}

// charge charges for compiling, in addition to what e has been charged so far.
func (e *compiled[T]) charge(c *Call, steps, bytes int64) error {
	e.steps += steps
	e.bytes += bytes
	if err := c.Bytes(bytes); err != nil {
		return err
	}
	return c.block(steps)
}

// get compiles a pattern. An error is the meter's.
func (p *patterns[T]) get(c *Call, pattern, options string) (*compiled[T], error) {
	hash := maphash.String(patternSeed, pattern)
	set := p.slots[hash%(patternSlots/patternWays)*patternWays:][:patternWays]
	for i := range set {
		if e := set[i].Load(); e != nil && e.pattern == pattern && e.options == options {
			return e, c.Work(e.steps, e.bytes)
		}
	}
	e, err := p.compile(c, pattern, options)
	if err != nil || e.bytes > patternBytes {
		return e, err
	}
	at := int(p.clock.Add(1) % patternWays)
	for i := range set {
		if set[i].Load() == nil {
			at = i
			break
		}
	}
	set[at].Store(e)
	return e, nil
}

var patternSeed = maphash.MakeSeed()
