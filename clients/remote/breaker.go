package remote

import (
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// trips is after how many calls in a row that no PDP answered a breaker opens,
	// and window and share when it does so because of so many of the last ones.
	trips  = 5
	window = 50
	share  = window / 2
	// A breaker that opened lets nobody through for firstPause, and twice that
	// each time its probe fails as well, up to lastPause, less a random half.
	firstPause = 500 * time.Millisecond
	lastPause  = 5 * time.Second
)

// breaker keeps calls from a PDP that does not answer, so that they end at once
// and not after their deadlines. Once it has been open for a while, one call is
// let through to see. The zero value lets everybody through. It is safe for
// concurrent use.
type breaker struct {
	mu      sync.Mutex
	row     int  // calls without an answer, since the last one that had one
	calls   int  // of the window
	failed  int  // of those
	open    bool // nobody is let through before until
	probing bool // but one
	until   time.Time
	pause   time.Duration
	opened  uint64
	round   ticket // of those who are let through
}

// ticket is for when a call was let through.
type ticket uint64

// allow reports whether a call may be made. Whoever makes it says by done how it
// ended.
func (b *breaker) allow(now time.Time) (ticket, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return b.round, true
	}
	if b.probing || now.Before(b.until) {
		return 0, false
	}
	b.probing = true
	b.round++
	return b.round, true
}

// outcome is how a call ended.
type outcome int

const (
	answered outcome = iota // also with an error that the PDP gave
	unanswered
	withdrawn // by the one who made it: that says nothing of the PDP
)

// done says how a call ended that allow let through. It returns whether nobody is
// let through now. A call from before the breaker opened or closed says nothing
// any more: the answer of a PDP that has died since may be read late.
func (b *breaker) done(t ticket, o outcome, now time.Time) (open bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case t != b.round:
	case o == withdrawn:
		b.probing = false // the next one will see
	case b.open && o == answered:
		b.open, b.probing, b.pause = false, false, 0
		b.row, b.calls, b.failed = 0, 0, 0
		b.round++
	case b.open:
		b.trip(now)
	case o == answered:
		b.row = 0
		b.count(false)
	default:
		b.row++
		if b.count(true); b.row >= trips || b.failed > share {
			b.trip(now)
		}
	}
	return b.open
}

func (b *breaker) count(failed bool) {
	if b.calls++; b.calls > window {
		b.calls, b.failed = 1, 0
	}
	if failed {
		b.failed++
	}
}

func (b *breaker) trip(now time.Time) {
	if b.pause = min(2*b.pause, lastPause); b.pause == 0 {
		b.pause = firstPause
	}
	b.open, b.probing = true, false
	b.until = now.Add(b.pause/2 + rand.N(b.pause/2+1)) //nolint:gosec // so that not all look at once
	b.row, b.calls, b.failed = 0, 0, 0
	b.opened++
	b.round++
}

// reconnected has the next call find out whether the PDP is back.
func (b *breaker) reconnected() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.until = time.Time{}
}

// state returns whether nobody is let through, and how often that began.
func (b *breaker) state() (open bool, opened uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open, b.opened
}

// budget bounds retries to a part of the calls, so that PDPs which fail because
// they have too much to do do not get twice as much. The zero value has its
// reserve. It is safe for concurrent use.
type budget struct {
	mu    sync.Mutex
	spent float64
}

const (
	// A call earns a tenth of a retry, and so many can be made without.
	retryShare   = 0.1
	retryReserve = 10
)

// earn counts a call.
func (b *budget) earn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent = max(0, b.spent-retryShare)
}

// spend reports whether there may be a retry.
func (b *budget) spend() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.spent+1 > retryReserve {
		return false
	}
	b.spent++
	return true
}
