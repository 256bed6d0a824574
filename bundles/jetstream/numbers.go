package jetstream

import "sync"

// numbers are the highest ones that a store has seen in each stream. A stream that
// somebody has removed is made anew behind them: what authors and sweepers, who
// are still at it, know of the old stream speaks of no message of the new one.
type numbers struct {
	mu      sync.Mutex
	highest map[string]uint64
}

// mostNumbered bounds where a stream begins: a server whose disk is full counts,
// in memory, up to the numbers of what it could not write.
const mostNumbered = 1 << 24

func (n *numbers) saw(stream string, seq uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.highest == nil {
		n.highest = map[string]uint64{}
	}
	n.highest[stream] = max(n.highest[stream], seq)
}

// next is the number that a stream begins with when it is made.
func (n *numbers) next(stream string) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if last := n.highest[stream]; last < mostNumbered {
		return last + 1
	}
	return 1
}
