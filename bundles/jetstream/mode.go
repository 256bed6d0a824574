package jetstream

// Mode says how a follower hears of what is new. The zero value is [ByPush].
type Mode uint8

const (
	// ByPush is to be told, and to ask on a slow poll, as a push may be lost.
	ByPush Mode = iota
	// ByPoll is to ask on every poll and nothing else: no subscription.
	ByPoll
	// ByAsking is to ask once, until all that there was has been taken or refused
	// for good; then Run returns. A change after that is not heard of.
	ByAsking
)

// checkAsked ends a follower that asks once when nothing is left to be done. It
// runs under mu, when that may have come about.
func (f *Follower) checkAsked() {
	if f.config.Mode != ByAsking || f.unanswered == nil || len(f.unanswered) > 0 {
		return
	}
	for _, s := range f.slots {
		if s.queued || s.busy || s.ask || s.askBeat || s.due || s.asking || s.ticking {
			return
		}
	}
	select {
	case f.asked <- struct{}{}:
	default: // it ends already
	}
}
