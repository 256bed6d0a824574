package live

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/microwall/microwall/bundles"
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
	var stale []policy.Namespace
	var denials []policy.Reason
	for i := range p.limits {
		l := &p.limits[i]
		age := l.proof.Load().age(now)
		if age <= l.most {
			continue // a beacon came just now
		}
		stale = append(stale, l.namespace)
		if l.when != bundles.Deny {
			continue
		}
		text := "stale: not yet proven, as no beacon has said yet that its release is the newest; " + whoProves
		if age != Forever {
			since := now.Add(l.most - age).UTC().Format(time.RFC3339)
			text = fmt.Sprintf("stale since %s: for %s no beacon has proven that its release is the newest, and it is believed for %s; %s", since, age.Truncate(time.Second), l.most, whoProves)
		}
		denials = append(denials, policy.Reason{Namespace: l.namespace, Text: text})
	}
	if len(denials) > 0 {
		if !d.Allowed { // what else denies is worth knowing
			denials = append(denials, d.Reasons...)
			slices.SortFunc(denials, func(a, b policy.Reason) int {
				return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Text, b.Text))
			})
		}
		return policy.Decision{Reasons: denials, Versions: p.versions, Stale: stale}
	}
	d.Stale = stale
	return d
}

// whoProves is what to do about a release that is not proven.
const whoProves = "see that a PDP runs with --beacon-key, and that NATS is reached"

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
