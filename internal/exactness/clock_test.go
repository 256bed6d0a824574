package exactness_test

import (
	"sync"
	"sync/atomic"
	"time"
)

// clock is one that is set, and that knows what it has shown.
type clock struct {
	ahead atomic.Int64 // of the machine's

	mu    sync.Mutex
	shown []setting // the newest last
}

// setting is how far a clock was ahead for a while.
type setting struct {
	ahead    time.Duration
	from, to time.Time // by the machine's clock; to is zero for what holds now
}

// rememberSettings is how many a clock knows. Calls are over before as many came.
const rememberSettings = 64

func newClock(ahead time.Duration) *clock {
	c := &clock{}
	c.set(ahead)
	return c
}

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (c *clock) set(ahead time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shown = append(c.shown, setting{ahead: ahead, from: time.Now()})
	c.ahead.Store(int64(ahead))
	if n := len(c.shown); n > 1 {
		c.shown[n-2].to = time.Now()
	}
	if len(c.shown) > rememberSettings {
		c.shown = c.shown[1:]
	}
}

// between returns all seconds since 1970 that the clock may have shown between
// two moments.
func (c *clock) between(begin, end time.Time) (all []int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.shown {
		if s.from.After(end) || !s.to.IsZero() && s.to.Before(begin) {
			continue
		}
		for at := begin.Add(s.ahead).Unix(); at <= end.Add(s.ahead).Unix(); at++ {
			all = append(all, at)
		}
	}
	return all
}
