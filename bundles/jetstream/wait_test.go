package jetstream_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/jetstream"
)

// patience bounds every wait of a test for what must come.
const patience = time.Minute

// wantEvent waits for the next event of a type that the test wants.
func wantEvent[E jetstream.Event](t *testing.T, events <-chan jetstream.Event, wanted func(E) bool) E {
	t.Helper()
	late := time.After(patience)
	var others []jetstream.Event
	for {
		select {
		case came := <-events:
			if e, ok := came.(E); ok && (wanted == nil || wanted(e)) {
				return e
			}
			others = append(others, came)
		case <-late:
			var e E
			t.Fatalf("no %T that the test waits for came within %s; %s", e, patience, story(others))
		}
	}
}

// drain takes the events that are there.
func drain(events <-chan jetstream.Event) (all []jetstream.Event) {
	for {
		select {
		case e := <-events:
			all = append(all, e)
		default:
			return all
		}
	}
}

// story tells which events came, for a test that waited for something else.
func story(all []jetstream.Event) string {
	const most = 20
	var b strings.Builder
	fmt.Fprintf(&b, "%d events came that nobody waited for", len(all))
	for i, e := range all[max(0, len(all)-most):] {
		if i == 0 {
			b.WriteString(", the last of them:")
		}
		fmt.Fprintf(&b, "\n\t%T%+v", e, e)
	}
	return b.String()
}

// receive waits for what a channel brings, or for its end.
func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not come within %s", what, patience)
		panic("unreachable")
	}
}

// clock hands out timers that go off when the test says so.
type clock struct {
	mu     sync.Mutex
	timers []timer
	made   chan struct{}
}

type timer struct {
	d time.Duration
	c chan time.Time
}

func newClock() *clock { return &clock{made: make(chan struct{}, 1)} }

func (c *clock) after(d time.Duration) <-chan time.Time {
	t := timer{d, make(chan time.Time, 1)}
	c.mu.Lock()
	c.timers = append(c.timers, t)
	c.mu.Unlock()
	select {
	case c.made <- struct{}{}:
	default:
	}
	return t.c
}

// fire sets off the next timer, waiting for it if need be, that the test wants
// and that is not set off yet.
func (c *clock) fire(t *testing.T, wanted func(time.Duration) bool) time.Duration {
	t.Helper()
	late := time.After(patience)
	for {
		c.mu.Lock()
		for i, timer := range c.timers {
			if wanted(timer.d) {
				c.timers = append(c.timers[:i:i], c.timers[i+1:]...)
				c.mu.Unlock()
				timer.c <- time.Time{}
				return timer.d
			}
		}
		var set []time.Duration
		for _, timer := range c.timers {
			set = append(set, timer.d)
		}
		c.mu.Unlock()
		select {
		case <-c.made:
		case <-late:
			t.Fatalf("the timer that the test waits for was not set within %s; those that are: %v", patience, set)
		}
	}
}
