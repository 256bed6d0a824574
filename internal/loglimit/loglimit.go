// Package loglimit thins out lines of a log that strangers can cause without end,
// so that they fill neither a disk nor the screen of who looks for something else.
package loglimit

import (
	"sync"
	"time"
)

// Most is how many lines go through in each Span.
const (
	Most = 100
	Span = 10 * time.Second
)

// Limiter counts lines. Its zero value is ready for use, also by several at once.
type Limiter struct {
	mu     sync.Mutex
	begun  time.Time // of the span that now is in
	lines  int       // in it
	unsaid int       // since the last line that went through
}

// Allow reports whether a line goes through, and if so, how many did not since the
// last one that did.
func (l *Limiter) Allow(now time.Time) (ok bool, unsaid int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := now.Sub(l.begun); d >= Span || d < 0 {
		l.begun, l.lines = now, 0
	}
	if l.lines++; l.lines > Most {
		l.unsaid++
		return false, 0
	}
	unsaid, l.unsaid = l.unsaid, 0
	return true, unsaid
}
