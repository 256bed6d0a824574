package remote

import (
	"cmp"
	"slices"
	"time"

	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/policy"
)

// Status is what a client is at.
type Status struct {
	// PDPs in the order of Config.Servers.
	PDPs []PDP
	// Asked counts the requests that were put to PDPs, each one of a batch.
	// What was refused before, or remembered, is not among them.
	Asked uint64
	// Failed counts those of them that got an error instead of a decision.
	Failed uint64
	// Waiting is how many calls wait for PDPs now.
	Waiting int
	// Coalesced counts requests that were answered by the call of another one.
	Coalesced uint64
	// Cache counts hits and misses.
	Cache cache.Stats
	// Watched is the PDP that tells what decides, HOST:PORT; "" if none does now.
	Watched string
	// WatchEnded is why the last watch ended; nil if none has.
	WatchEnded error
	// Ignored counts what was told or answered by older versions than were seen.
	Ignored uint64
	// Namespaces that are watched, sorted.
	Namespaces []Namespace
}

// PDP is what a client knows of one PDP.
type PDP struct {
	// Server is HOST:PORT.
	Server string
	// Connection is gRPC's word for its state: IDLE, CONNECTING, READY,
	// TRANSIENT_FAILURE (it will be tried again) or SHUTDOWN.
	Connection string
	// LeftAlone is true while it is not asked, as it has not answered lately, and
	// Ejected counts how often that began.
	LeftAlone bool
	Ejected   uint64
}

// Namespace is what a client knows of one namespace that it watches.
type Namespace struct {
	Namespace policy.Namespace
	// Versions that decide, as was told last; guardrails from the outermost in,
	// then the namespace.
	Versions []policy.Version
	// Age of the oldest proof that one of them is the newest; zero if none becomes
	// stale, and the longest duration there is if one was never proven. A proof that
	// is over 30 seconds ahead of the clock here is none.
	Age time.Duration
	// Stale is true if one of them is older than it is believed.
	Stale bool
	// Remembered says whether decisions are looked up: not before anything was
	// told, and not while newer versions are known than what was told.
	Remembered bool
	// Undecided is why nothing decides there; nil if something does.
	Undecided error
}

// Status returns what the client is at.
func (c *Client) Status() Status {
	s := Status{
		Asked: c.asked.Load(), Failed: c.failed.Load(), Waiting: int(c.waiting.Load()),
		Coalesced: c.flight.Coalesced(), Cache: c.cache.Stats(), Namespaces: c.known.status(c.now()),
	}
	for _, p := range c.pool.pdps {
		open, ejected := p.breaker.state()
		s.PDPs = append(s.PDPs, PDP{Server: p.server, Connection: p.conn.GetState().String(), LeftAlone: open, Ejected: ejected})
	}
	if p := c.watcher.at.Load(); p != nil {
		s.Watched = p.server
	}
	if err := c.watcher.ended.Load(); err != nil {
		s.WatchEnded = *err
	}
	c.known.mu.Lock()
	defer c.known.mu.Unlock()
	s.Ignored = c.known.ignored + c.ignored.Load()
	return s
}

func (k *known) status(now time.Time) (all []Namespace) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for n, s := range *k.spaces.Load() {
		one := Namespace{Namespace: n, Undecided: s.err, Remembered: s.current.Load() != nil}
		if s.newest != nil {
			one.Versions, one.Stale = s.newest.layout.Versions(), s.newest.stale(now)
			for i := range s.newest.limits {
				one.Age = max(one.Age, s.newest.limits[i].age(now))
			}
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Namespace) int { return cmp.Compare(a.Namespace, b.Namespace) })
	return all
}
