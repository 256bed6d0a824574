package embedded

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

const (
	// sampled is one of how many decisions is measured, and learned how many
	// measurements it takes to know.
	sampled = 32
	learned = 16
	// margin is by how many percent evaluating must be dearer before looking up
	// pays: what is remembered takes memory as well.
	margin = 25
	// window is after how many measured look-ups they are counted, and rest for how
	// many decisions nothing is looked up if too few were hits.
	window = 128
	rest   = 64 * sampled * window
)

// worth decides for what decides in one namespace whether its decisions are looked
// up before they are evaluated: if that is quicker, as measured here. A policy of a
// few comparisons is evaluated sooner than its key is found; one that is asked a new
// question each time has nothing to find. The answer is the same either way. The
// zero value is ready. It is safe for concurrent use.
type worth struct {
	evaluating, asking mean
	looked, hit        atomic.Int64 // since the window began
	resting            atomic.Int64 // decisions left without looking
}

// measured reports whether a decision is to be measured. Then it is looked up,
// whatever pays, and evaluated if that finds nothing, or if it is not known yet
// how long that takes.
func (w *worth) measured() bool {
	return !w.evaluating.known() || !w.asking.known() || rand.Uint32N(sampled) == 0 //nolint:gosec // which ones are measured decides nothing
}

// pays reports whether looking up is quicker, as far as is known.
func (w *worth) pays() bool {
	if w.resting.Load() > 0 {
		return false
	}
	if !w.evaluating.known() || !w.asking.known() {
		return true
	}
	return 100*w.evaluating.value() > (100+margin)*w.asking.value()
}

// counted counts a measured decision, which stands for others.
func (w *worth) counted() {
	if w.resting.Load() > 0 {
		w.resting.Add(-sampled)
	}
}

// found counts a measured look-up. If of many so few were hits that the look-ups took
// longer than what they saved, there is a rest.
func (w *worth) found(hit bool) {
	if hit {
		w.hit.Add(1)
	}
	if w.looked.Add(1) < window {
		return
	}
	looked, hits := w.looked.Swap(0), w.hit.Swap(0)
	if w.evaluating.known() && hits*w.evaluating.value() < looked*w.asking.value() {
		w.resting.Store(rest)
	}
}

// mean is of the newest measurements, in nanoseconds. One that was interrupted
// counts little, and nothing among the first ones.
type mean struct {
	n, ns atomic.Int64
}

func (m *mean) known() bool { return m.n.Load() >= learned }

func (m *mean) value() int64 { return m.ns.Load() }

func (m *mean) add(d time.Duration) {
	s := max(d.Nanoseconds(), 1)
	// Of two that measure at once, one may be lost.
	switch n, last := m.n.Add(1), m.ns.Load(); {
	case last == 0:
		m.ns.Store(s)
	case n <= learned:
		m.ns.Store(min(s, last))
	default:
		m.ns.Store(max(1, last+(min(s, 4*last)-last)/8))
	}
}
