package embedded

import (
	"iter"
	"time"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/policy"
)

// Status is what a client is at.
type Status struct {
	// Mode is how the client hears of releases: "push", "poll", "once" or
	// "directory".
	Mode string
	// Connected is true while there is a connection to NATS.
	Connected bool
	// Fault is why nothing new is heard from NATS, and what to do about it: there
	// is no connection, or it does not hand out a release. Nil if nothing is wrong
	// that is known here, and where the mode leaves NATS alone.
	Fault error
	// TrustVersion is the version of the trust file in force.
	TrustVersion uint64
	// Namespaces that are held, guardrails among them, sorted.
	Namespaces []live.Status
	// Beacons counts those that were taken and ignored. What they prove is in
	// Namespaces.
	Beacons live.Beacons
	// Cache counts hits and misses.
	Cache cache.Stats
}

// Status returns what the client is at.
func (c *Client) Status() Status {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	var fault error
	if c.config.Mode.dir == "" {
		fault = c.fault.Err()
	}
	return Status{
		Fault:        fault,
		Mode:         c.config.Mode.String(),
		Connected:    conn != nil && conn.IsConnected(),
		TrustVersion: c.live.Trust().Version(),
		Namespaces:   c.live.Status(),
		Beacons:      c.live.Beacons(),
		Cache:        c.cache.Stats(),
	}
}

// CacheStats returns s.Cache, as collectors of metrics ask for it.
func (s Status) CacheStats() cache.Stats { return s.Cache }

// Releases yields the releases that decide and the age of their proof, -1 if there
// is none.
func (s Status) Releases() iter.Seq2[policy.Version, time.Duration] {
	return func(yield func(policy.Version, time.Duration) bool) {
		for _, n := range s.Namespaces {
			age := n.Age
			if age == live.Forever {
				age = -1
			}
			if n.Version.Revision > 0 && !n.Retired && !yield(n.Version, age) {
				return
			}
		}
	}
}

// Staleness yields whether the release that decides in a namespace is older than it
// is believed without proof. A guardrail's is its own.
func (s Status) Staleness() iter.Seq2[policy.Namespace, bool] {
	return func(yield func(policy.Namespace, bool) bool) {
		for _, n := range s.Namespaces {
			if n.Version.Revision > 0 && !n.Retired && !yield(n.Namespace, n.Stale) {
				return
			}
		}
	}
}
