package live

import (
	"cmp"
	"slices"
	"time"

	"github.com/microwall/microwall/policy"
)

// Status is what one namespace is at.
type Status struct {
	// Namespace that this is about.
	Namespace policy.Namespace
	// Version that decides; its Revision is 0 if none does.
	Version policy.Version
	// Retired is true if that version retired the namespace.
	Retired bool
	// Since is when the version was activated here.
	Since time.Time
	// Refused is why the newest release that was offered is not the one that
	// decides; nil if it is.
	Refused error
}

// Status returns every namespace that is held, or of which something was
// refused, sorted.
func (l *Live) Status() []Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []Status
	for n, h := range l.held {
		all = append(all, Status{Namespace: n, Version: h.signed.Version(), Retired: h.program == nil, Since: h.since, Refused: l.refused[n]})
	}
	for n, err := range l.refused {
		if l.held[n] == nil {
			all = append(all, Status{Namespace: n, Refused: err})
		}
	}
	slices.SortFunc(all, func(a, b Status) int { return cmp.Compare(a.Namespace, b.Namespace) })
	return all
}
