// Package staleness says what is handed out of a decision by releases of which
// nobody has proven for a while that they are the newest. The rule is the same for
// whoever decides and for whoever remembers what was decided.
//
// Each namespace on the path of a decision is believed without proof for as long
// as its authors and the trust file say. After that it is named as stale, and if
// any that is stale says so, the decision is a denial.
package staleness

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/microwall/microwall/policy"
)

// Forever is the age of what was never proven.
const Forever = time.Duration(math.MaxInt64)

// MaxAhead is how far ahead of the clock here the time of a proof may be. One from
// beyond that proves nothing: it would have no age for as long as it is ahead.
const MaxAhead = 30 * time.Second

// Origin returns when, by the clock here, a proof of a time had no age that comes
// now. One that is from the future has none now. It keeps now's monotonic reading.
func Origin(proven, now time.Time) time.Time { return now.Add(-max(0, now.Sub(proven))) }

// Age returns how long it is since an origin. It does not shrink when the wall
// clock is set back, and goes on while the machine sleeps, when the monotonic
// clock may not.
func Age(origin, now time.Time) time.Duration {
	return max(0, now.Sub(origin), time.Duration(now.UnixNano()-origin.UnixNano()))
}

// Believed is for how long a release is believed, and how old its proof is.
type Believed struct {
	Namespace policy.Namespace
	Age, Most time.Duration
	// Deny says that past Most requests are denied, not only called stale.
	Deny bool
}

// Judge returns what is handed out now of a decision by versions, each of which is
// believed for so long. It is not to be cached.
func Judge(d policy.Decision, versions []policy.Version, path []Believed, now time.Time) policy.Decision {
	var stale []policy.Namespace
	var denials []policy.Reason
	for _, b := range path {
		if b.Age <= b.Most {
			continue
		}
		stale = append(stale, b.Namespace)
		if !b.Deny {
			continue
		}
		text := "stale: not yet proven, as no beacon has said yet that its release is the newest; " + whoProves
		if b.Age != Forever {
			since := now.Add(b.Most - b.Age).UTC().Format(time.RFC3339)
			text = fmt.Sprintf("stale since %s: for %s no beacon has proven that its release is the newest, and it is believed for %s; %s", since, b.Age.Truncate(time.Second), b.Most, whoProves)
		}
		denials = append(denials, policy.Reason{Namespace: b.Namespace, Text: text})
	}
	if len(denials) > 0 {
		if !d.Allowed { // what else denies is worth knowing
			denials = append(denials, d.Reasons...)
			slices.SortFunc(denials, func(a, b policy.Reason) int {
				return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Text, b.Text))
			})
		}
		return policy.Decision{Reasons: denials, Versions: versions, Stale: stale, StaleDenied: true, Evaluation: d.Evaluation}
	}
	d.Stale = stale
	return d
}

// whoProves is what to do about a release that is not proven.
const whoProves = "see that a PDP runs with --beacon-key, and that NATS is reached"
