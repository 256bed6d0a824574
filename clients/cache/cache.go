package cache

import (
	"fmt"
	"hash/maphash"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/microwall/microwall/policy"
)

// Config bounds a cache. The zero value has the defaults. Beside it, up to 32 KiB of
// what was used last is held for each processor.
type Config struct {
	// Entries at most. Zero is 65,536; a negative number keeps none.
	Entries int
	// Bytes that keys and decisions take at most, roughly. Zero is 64 MiB.
	Bytes int
}

const (
	defaultEntries = 1 << 16
	defaultBytes   = 64 << 20
	// fewest entries and bytes that a shard is worth its lock for.
	fewestEntries = 64
	fewestBytes   = 64 << 10
)

// Cache holds the decisions that were used last. It is safe for concurrent use.
type Cache struct {
	seed   maphash.Seed
	shards []shard // none if it keeps none; a power of two
	memos  sync.Pool
	made   atomic.Uint64 // memos
	hits   []counter     // of memos; a power of two
}

// New returns an empty cache.
func New(config Config) *Cache {
	if config.Entries == 0 {
		config.Entries = defaultEntries
	}
	if config.Bytes == 0 {
		config.Bytes = defaultBytes
	}
	c := &Cache{seed: maphash.MakeSeed()}
	if config.Entries < 0 || config.Bytes < 0 {
		return c
	}
	// So many that two processors seldom want the same.
	n := 1
	for n < 16*runtime.GOMAXPROCS(0) && config.Entries/(2*n) >= fewestEntries && config.Bytes/(2*n) >= fewestBytes {
		n *= 2
	}
	c.shards = make([]shard, n)
	for i := range c.shards {
		c.shards[i].entries, c.shards[i].bytes = config.Entries/n, config.Bytes/n
		c.shards[i].rooms = map[policy.Namespace]*room{}
	}
	c.hits = make([]counter, n)
	c.memos.New = func() any {
		return &memo{hits: &c.hits[c.made.Add(1)&uint64(n-1)]} //nolint:gosec // n is at least one
	}
	return c
}

// Get returns the decision of a namespace that was put in under key. It
// allocates nothing.
func (c *Cache) Get(n policy.Namespace, key []byte) (policy.Decision, bool) {
	if len(c.shards) == 0 {
		return policy.Decision{}, false
	}
	hash := maphash.Bytes(c.seed, key)
	m := c.memos.Get().(*memo)
	defer c.memos.Put(m)
	last := m.of(hash)
	if e := last.get(n, hash, key); e != nil {
		m.hits.n.Add(1)
		return e.decision, true
	}
	e := c.shard(hash).get(n, key)
	if e == nil {
		return policy.Decision{}, false
	}
	last.put(n, hash, e)
	return e.decision, true
}

// Put keeps a decision of a namespace under key, and lets go of others if there
// is no room: of the namespace that has most, those that were not used for
// longest. One that would take more than an eighth of the room of its shard is
// not kept.
func (c *Cache) Put(n policy.Namespace, key []byte, d policy.Decision) {
	if len(c.shards) == 0 {
		return
	}
	c.shard(maphash.Bytes(c.seed, key)).put(n, &entry{string(key), own(d), overhead + len(key) + sizeOf(&d)})
}

// shard returns where a key of a hash is kept. Which one it is decides nothing:
// keys are compared there.
func (c *Cache) shard(hash uint64) *shard {
	//nolint:gosec // there is at least one shard
	return &c.shards[hash&uint64(len(c.shards)-1)]
}

// Stats count what a cache did since it was made.
type Stats struct {
	Hits, Misses, Evictions uint64
	// Entries and Bytes are what it holds now.
	Entries, Bytes int
}

// Stats returns what the cache did and holds.
func (c *Cache) Stats() (all Stats) {
	for i := range c.shards {
		c.shards[i].addTo(&all)
	}
	for i := range c.hits {
		all.Hits += c.hits[i].n.Load()
	}
	return all
}

// shard is a part of the keys, whatever their namespaces.
type shard struct {
	mu             sync.Mutex
	entries, bytes int // at most
	rooms          map[policy.Namespace]*room
	stats          Stats
	_              [64]byte // two shards in one line of a processor's cache would be one lock
}

// room is what a shard keeps of one namespace.
type room struct {
	lru   *simplelru.LRU[string, *entry]
	bytes int
}

// entry is one decision. It is immutable.
type entry struct {
	key      string
	decision policy.Decision
	size     int
}

// get returns what is kept, or nil.
func (s *shard) get(n policy.Namespace, key []byte) *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.rooms[n]; r != nil {
		// The text is looked up, not kept.
		//nolint:gosec // for as long as the look-up takes, in which nobody changes the key
		if e, ok := r.lru.Get(unsafe.String(unsafe.SliceData(key), len(key))); ok {
			s.stats.Hits++
			return e
		}
	}
	s.stats.Misses++
	return nil
}

func (s *shard) put(n policy.Namespace, e *entry) {
	if e.size > s.bytes/8 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rooms[n]
	if r == nil {
		r = newRoom(s.entries)
		s.rooms[n] = r
	}
	if old, ok := r.lru.Peek(e.key); ok {
		s.count(r, -1, -old.size)
	}
	r.lru.Add(e.key, e)
	s.count(r, 1, e.size)
	for s.stats.Entries > s.entries || s.stats.Bytes > s.bytes {
		s.evict()
	}
}

func newRoom(entries int) *room {
	// The shard counts for itself what all rooms have: this bound is never met.
	lru, err := simplelru.NewLRU[string, *entry](entries+1, nil)
	if err != nil {
		panic(fmt.Sprintf("cache: %v", err)) // only a size below one fails
	}
	return &room{lru: lru}
}

func (s *shard) count(r *room, entries, bytes int) {
	s.stats.Entries += entries
	s.stats.Bytes += bytes
	r.bytes += bytes
}

// evict lets go of the oldest decision of the namespace that has most.
func (s *shard) evict() {
	var most policy.Namespace
	var from *room
	for n, r := range s.rooms {
		if from == nil || r.bytes > from.bytes {
			most, from = n, r
		}
	}
	_, e, _ := from.lru.RemoveOldest()
	s.count(from, -1, -e.size)
	s.stats.Evictions++
	if from.lru.Len() == 0 {
		delete(s.rooms, most)
	}
}

func (s *shard) addTo(all *Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all.Hits += s.stats.Hits
	all.Misses += s.stats.Misses
	all.Evictions += s.stats.Evictions
	all.Entries += s.stats.Entries
	all.Bytes += s.stats.Bytes
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
