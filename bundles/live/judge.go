package live

import (
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/staleness"
	"github.com/microwall/microwall/policy"
)

// limit is for how long a release is believed without proof that it is the
// head, and what happens after that.
type limit struct {
	namespace policy.Namespace
	most      time.Duration
	when      bundles.WhenStale
	proof     *proof
}

func (l *limit) stale(now time.Time) bool { return l.proof.Load().age(now) > l.most }

// Judge returns what is handed out for a decision of this path at a time. Each
// namespace on the path that has been without proof for longer than it is
// believed is named in Decision.Stale, and if any of those says "deny", the
// decision is a denial whose reasons say so, beside those of d if it is one, too.
// Otherwise it is d.
//
// It depends on when it is asked: it comes after a look-up in a cache, and what
// it returns is not cached. A decision of a folder, or by a trust file that
// lists no keys that sign beacons, is never stale.
func (p *Path) Judge(d policy.Decision, now time.Time) policy.Decision {
	for i := range p.limits {
		if p.limits[i].stale(now) {
			return p.stale(d, now)
		}
	}
	return d
}

func (p *Path) stale(d policy.Decision, now time.Time) policy.Decision {
	path := make([]staleness.Believed, len(p.limits))
	for i := range p.limits {
		l := &p.limits[i]
		path[i] = staleness.Believed{Namespace: l.namespace, Age: l.proof.Load().age(now), Most: l.most, Deny: l.when == bundles.Deny}
	}
	return staleness.Judge(d, p.versions, path, now)
}

// Proof says for how long one version is believed.
type Proof struct {
	Version policy.Version
	// Time at which it was the newest, as the newest beacon says; zero if none
	// does.
	Time time.Time
	// MaxStaleness is how long after that it is believed, and WhenStale what
	// happens then. Zero: it never becomes stale.
	MaxStaleness time.Duration
	WhenStale    bundles.WhenStale
}

// Proofs returns for how long each of [Path.Versions] is believed. A beacon
// changes what they say, without another snapshot.
func (p *Path) Proofs() []Proof {
	all := make([]Proof, len(p.versions))
	for i, v := range p.versions {
		all[i].Version = v
		if len(p.limits) == 0 {
			continue
		}
		l := &p.limits[i] // all on a path can become stale, or none
		all[i].MaxStaleness, all[i].WhenStale = l.most, l.when
		if t := l.proof.Load(); t != nil {
			all[i].Time = t.beacon.Time()
		}
	}
	return all
}
