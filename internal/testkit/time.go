package testkit

import (
	"sync/atomic"
	"testing"
	"time"
)

// Clock is one that stands at [Created] until a test moves it on. The zero value is
// ready. It is safe for concurrent use.
type Clock struct{ ahead atomic.Int64 }

// Pass lets time pass, or come back if d is negative.
func (c *Clock) Pass(d time.Duration) { c.ahead.Add(int64(d)) }

// Now returns the time.
func (c *Clock) Now() time.Time { return Created.Add(time.Duration(c.ahead.Load())) }

// Until waits for what cannot be waited for otherwise, and fails the test if it has not
// happened after twenty seconds.
func Until(t testing.TB, happened func() bool) {
	t.Helper()
	tick, late := time.NewTicker(2*time.Millisecond), time.NewTimer(20*time.Second)
	defer tick.Stop()
	defer late.Stop()
	for !happened() {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatal("it did not happen within twenty seconds")
		}
	}
}
