package remote

import (
	"iter"
	"time"

	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/policy"
)

// CacheStats returns what the cache did, as collectors of metrics ask for it. There
// is none here: it is all zero.
func (s Status) CacheStats() cache.Stats { return cache.Stats{} }

// Releases yields the releases that are known to decide. None are known here.
func (s Status) Releases() iter.Seq2[policy.Version, time.Duration] {
	return func(func(policy.Version, time.Duration) bool) {}
}

// Asking returns how many requests wait for an answer now, how many were asked and
// failed, and how many were answered by the call of another one.
func (s Status) Asking() (waiting int, asked, failed, coalesced uint64) {
	return 0, s.Asked, s.Failed, 0
}
