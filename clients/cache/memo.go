package cache

import (
	"sync/atomic"

	"github.com/microwall/microwall/policy"
)

const (
	// slots is how many decisions a memo has, and largest what one of them takes at
	// most: what memos have is beside the cache's room.
	slots   = 16
	largest = 2 << 10
	// through is how many hits of a memo there are to one that goes through to the
	// shard: a decision that is asked for often must not be the oldest one there.
	through = 16
)

// memo has the decisions that were hit last on one processor, so that all who want
// the same one do not wait for each other at its shard's lock. What it has is true
// whatever happens to the shard, as a key says all that its decision depends on.
// It is used by one goroutine at a time.
type memo struct {
	slots [slots]slot
	hits  *counter
}

type slot struct {
	hash      uint64 // of the key: most that is not here is seen by it
	namespace policy.Namespace
	entry     *entry
	uses      uint8
}

// counter counts the hits of some memos; mostly of one.
type counter struct {
	n atomic.Uint64
	_ [56]byte // two counters in one line of a processor's cache would be one
}

// of returns the slot for a key.
func (m *memo) of(hash uint64) *slot { return &m.slots[(hash>>32)%slots] }

// get returns what is asked for, or nil if it is not here or it is time to ask the
// shard.
func (s *slot) get(n policy.Namespace, hash uint64, key []byte) *entry {
	if s.entry == nil || s.hash != hash || s.entry.key != string(key) || s.namespace != n {
		return nil
	}
	if s.uses++; s.uses%through == 0 {
		return nil
	}
	return s.entry
}

func (s *slot) put(n policy.Namespace, hash uint64, e *entry) {
	if e.size <= largest {
		s.hash, s.namespace, s.entry = hash, n, e
	}
}
