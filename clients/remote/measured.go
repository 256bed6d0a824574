package remote

import (
	"iter"
	"time"

	"google.golang.org/grpc/connectivity"

	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/internal/staleness"
	"github.com/microwall/microwall/policy"
)

// CacheStats returns s.Cache, as collectors of metrics ask for it.
func (s Status) CacheStats() cache.Stats { return s.Cache }

// Releases yields the releases that decide in the namespaces that are watched, and
// the age of the oldest proof along the path of each, -1 if one of it was never
// proven.
func (s Status) Releases() iter.Seq2[policy.Version, time.Duration] {
	return func(yield func(policy.Version, time.Duration) bool) {
		for _, n := range s.Namespaces {
			age := n.Age
			if age == staleness.Forever {
				age = -1
			}
			// The last one is the namespace's own: guardrails belong to many.
			if last := len(n.Versions) - 1; last >= 0 && !yield(n.Versions[last], age) {
				return
			}
		}
	}
}

// Staleness yields whether what decides in a namespace that is watched is older than
// it is believed without proof, its guardrails among it.
func (s Status) Staleness() iter.Seq2[policy.Namespace, bool] {
	return func(yield func(policy.Namespace, bool) bool) {
		for _, n := range s.Namespaces {
			if len(n.Versions) > 0 && !yield(n.Namespace, n.Stale) {
				return
			}
		}
	}
}

// Asking returns how many calls wait for an answer now, how many requests were asked
// and failed, and how many were answered by the call of another one.
func (s Status) Asking() (waiting int, asked, failed, coalesced uint64) {
	return s.Waiting, s.Asked, s.Failed, s.Coalesced
}

// Breakers calls yield for each PDP: whether it is left alone now, how often that
// began, and whether there is a connection to it.
func (s Status) Breakers(yield func(server string, open bool, opened uint64, connected bool)) {
	for _, p := range s.PDPs {
		yield(p.Server, p.LeftAlone, p.Ejected, p.Connection == connectivity.Ready.String())
	}
}
