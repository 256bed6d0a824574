package jetstream

import (
	"context"
	"sync"
	"time"
)

// ignoringPause is how long after one event about ignored messages the next one
// comes, at least.
const ignoringPause = 5 * time.Second

// ignoring counts ignored messages that whoever may use NATS can have delivered
// here, without end. It tells of the first one at once, and then of all together
// that came within a pause, so that none of them fills a log.
type ignoring struct {
	mu   sync.Mutex
	told Ignored // what is to be told next, if Err is not nil
	came chan struct{}
}

func newIgnoring() *ignoring { return &ignoring{came: make(chan struct{}, 1)} }

// add counts a message. It may run in a callback of nats.go.
func (i *ignoring) add(subject string, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.told.Err != nil {
		i.told.More++
		return
	}
	i.told = Ignored{Subject: subject, Err: err}
	select {
	case i.came <- struct{}{}:
	default: // run looks already
	}
}

// run tells until ctx ends, and then what is left.
func (i *ignoring) run(ctx context.Context, after func(time.Duration) <-chan time.Time, tell func(Event)) {
	for {
		select {
		case <-i.came:
		case <-ctx.Done():
		}
		i.mu.Lock()
		next := i.told
		i.told = Ignored{}
		i.mu.Unlock()
		if next.Err != nil {
			tell(next)
		}
		if ctx.Err() != nil {
			return
		}
		select {
		case <-after(ignoringPause):
		case <-ctx.Done():
		}
	}
}
