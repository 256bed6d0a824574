// Package cache keeps decisions that were made, so that the same question by
// the same policies is not evaluated twice.
//
// A cached decision is the decision. The key ([AppendKey]) is everything that
// the decision depends on: the digests of the releases on its path, and the
// whole request. A new release makes new keys, so that nothing is invalidated,
// nothing expires, and no stale entry can be hit. What also depends on the time
// (a policy that reads input.time) must not be put in.
//
// Errors are never cached. Whether a decision is stale is no part of it and is
// worked out by whoever hands it out.
package cache

import (
	"fmt"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/microwall/microwall/policy"
)

// Config bounds a cache. The zero value has the defaults.
type Config struct {
	// Entries at most. Zero is 65,536; a negative number keeps none.
	Entries int
	// Bytes that keys and decisions take at most, roughly. Zero is 64 MiB.
	Bytes int
}

const (
	defaultEntries = 1 << 16
	defaultBytes   = 64 << 20
)

// Cache holds the decisions that were used last. It is safe for concurrent use.
type Cache struct {
	mu    sync.Mutex
	lru   *simplelru.LRU[string, entry] // nil if it keeps none
	most  int
	bytes int
	stats Stats
}

type entry struct {
	decision policy.Decision
	size     int
}

// Stats count what a cache did since it was made.
type Stats struct {
	Hits, Misses, Evictions uint64
	// Entries and Bytes are what it holds now.
	Entries, Bytes int
}

// New returns an empty cache.
func New(config Config) *Cache {
	if config.Entries == 0 {
		config.Entries = defaultEntries
	}
	if config.Bytes == 0 {
		config.Bytes = defaultBytes
	}
	c := &Cache{most: config.Bytes}
	if config.Entries < 0 {
		return c
	}
	lru, err := simplelru.NewLRU(config.Entries, func(key string, e entry) { c.bytes -= e.size })
	if err != nil {
		panic(fmt.Sprintf("cache: %v", err)) // only a size below one fails
	}
	c.lru = lru
	return c
}

// Get returns the decision that was put in under key.
func (c *Cache) Get(key []byte) (policy.Decision, bool) {
	if c.lru == nil {
		return policy.Decision{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.lru.Get(string(key))
	if !ok {
		c.stats.Misses++
		return policy.Decision{}, false
	}
	c.stats.Hits++
	return e.decision, true
}

// Put keeps a decision under key, and lets go of those that were not used for
// longest if there is no room. One that would take more than an eighth of the
// room is not kept.
func (c *Cache) Put(key []byte, d policy.Decision) {
	if c.lru == nil {
		return
	}
	size := overhead + len(key) + sizeOf(&d)
	if size > c.most/8 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.lru.Peek(string(key)); ok {
		c.bytes -= old.size // the eviction callback is not called for a replaced value
	}
	c.bytes += size
	if c.lru.Add(string(key), entry{d, size}) {
		c.stats.Evictions++
	}
	for c.bytes > c.most {
		c.lru.RemoveOldest()
		c.stats.Evictions++
	}
}

// Stats returns what the cache did and holds.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	if c.lru != nil {
		s.Entries, s.Bytes = c.lru.Len(), c.bytes
	}
	return s
}

// overhead is roughly what the list, the map and the entry's fields take.
const overhead = 256

func sizeOf(d *policy.Decision) int {
	size := 0
	for _, r := range d.Reasons {
		size += 32 + len(r.Namespace) + len(r.Text)
	}
	// Versions are shared with the snapshot that decided, until it is replaced.
	size += 72 * len(d.Versions)
	if d.Obligations.Len() > 0 {
		size += 8 * len(d.Obligations.String()) // Go maps and interfaces
	}
	return size
}
