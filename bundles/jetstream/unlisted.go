package jetstream

import (
	"context"
	"time"

	"github.com/microwall/microwall/policy"
)

const (
	// listPause is how long to wait, at least, before the namespaces are listed
	// once more because of a push.
	listPause = 500 * time.Millisecond
	// maxUnlisted bounds how many names wait to be looked up in the list. The
	// list brings what is real among the others as well.
	maxUnlisted = 1024
)

// unlisted is what a follower of all namespaces was pushed of those that it does
// not know. Anybody who may publish can make up names without end, so that a
// push is only a reason to list the namespaces again: what it carries is not
// kept, and only the list makes a slot.
type unlisted struct {
	names map[policy.Namespace]bool
	more  int           // messages beyond maxUnlisted names
	look  chan struct{} // receives when there is something to look up
}

// add runs under the follower's mu.
func (u *unlisted) add(ns policy.Namespace) {
	switch {
	case u.names[ns]:
	case len(u.names) < maxUnlisted:
		u.names[ns] = true
	default:
		u.more++
	}
	select {
	case u.look <- struct{}{}:
	default: // will be looked up already
	}
}

// lookLoop looks pushed names up until ctx ends.
func (f *Follower) lookLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.unlisted.look:
		}
		f.lookUp(ctx)
		if f.wait(ctx, jitter(listPause)) != nil {
			return
		}
	}
}

// lookUp lists the namespaces, and asks for the heads of those that are new.
func (f *Follower) lookUp(ctx context.Context) {
	f.mu.Lock()
	names, more := f.unlisted.names, f.unlisted.more
	f.unlisted.names, f.unlisted.more = map[policy.Namespace]bool{}, 0
	f.mu.Unlock()

	all, err := f.config.List(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		f.config.Events(AskFailed{Err: err})
		f.askSoon() // which lists until it succeeds
		return
	}
	f.mu.Lock()
	for _, ns := range all {
		if f.slots[ns] == nil {
			s := f.slot(ns)
			s.ask, s.fresh, s.askBeat = true, true, true
			f.enqueue(s)
		}
	}
	subject := "pdp.head." + f.config.Domain + ".*"
	for ns := range names {
		if f.slots[ns] == nil {
			subject = f.names.hearHead(token(ns))
			more++
		}
	}
	f.mu.Unlock()
	if more > 0 {
		f.config.Events(Ignored{Subject: subject, More: more - 1, Err: policy.Errorf(policy.NotFound, "a head was pushed of a namespace that has none; see who may publish on pdp.head.>")})
	}
}
