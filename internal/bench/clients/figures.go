package main

import (
	"context"
	"fmt"

	"github.com/microwall/microwall/internal/bench/figures"
)

// all returns all figures there are.
func all(p figures.Progress) []figures.Figure {
	together := figures.Share(func(ctx context.Context) (parallel, error) { return hitParallel(ctx, p, rounds, phase) })
	skewed := figures.Share(func(ctx context.Context) (gain, error) { return zipf(ctx, p, zipfSize) })
	first := figures.Share(func(ctx context.Context) (figures.Samples, error) { return head(ctx, p, pushes) })
	death := figures.Share(func(ctx context.Context) (fates, error) { return killed(ctx, p, callers, watched) })
	return []figures.Figure{
		{Name: "hitParallel", Unit: "%", Bar: figures.AtLeast(80), What: fmt.Sprintf("hits that two goroutines get of one client, of those that they get of a client each in the same run: the median of %d rounds, of the client where it is less", rounds),
			Measure: together.Value(func(p parallel) float64 { return min(p.embedded, p.remote) })},
		{Name: "hitParallel_embedded", Unit: "%", What: "the same of the embedded client",
			Measure: together.Value(func(p parallel) float64 { return p.embedded })},
		{Name: "hitParallel_remote", Unit: "%", What: "the same of the remote client",
			Measure: together.Value(func(p parallel) float64 { return p.remote })},
		{Name: "hitParallel_machine", Unit: "%", What: "hits that two goroutines get of a client each, of those that one gets alone: 200 where two processors are free, and where they are not, the figures above say little",
			Measure: together.Value(func(p parallel) float64 { return p.machine })},
		{Name: "zipf", Unit: "x", Bar: figures.AtLeast(10), What: fmt.Sprintf("decisions a second that %d callers get of a remote client, of those that they get without its cache, by a Zipf distribution over %d requests of which %g %% are hits", zipfCallers, keys, wantHits),
			Measure: skewed.Value(func(g gain) float64 { return g.cached / g.bare })},
		{Name: "zipf_hits", Unit: "%", What: "how many of them were hits",
			Measure: skewed.Value(func(g gain) float64 { return g.hits })},
		{Name: "zipf_cached", Unit: "/s", What: "decisions a second with the cache",
			Measure: skewed.Value(func(g gain) float64 { return g.cached })},
		{Name: "zipf_bare", Unit: "/s", What: "decisions a second without it",
			Measure: skewed.Value(func(g gain) float64 { return g.bare })},
		{Name: "head", Unit: "ms", Bar: figures.AtMost(120), What: fmt.Sprintf("%d pushes, from the call of Push to the remote client's first answer by the release, by way of another PDP than the one that was pushed to: 99th percentile", pushes),
			Measure: first.Value(func(s figures.Samples) float64 { return s.Quantile(0.99) })},
		{Name: "head_median", Unit: "ms", What: "median of the same pushes",
			Measure: first.Value(func(s figures.Samples) float64 { return s.Quantile(0.5) })},
		{Name: "killed", Unit: "%", Bar: figures.AtLeast(99), What: fmt.Sprintf("a PDP is killed under %d callers: of the calls in the %g s after, how many are answered of those that are remembered, or of all where another PDP lives, whichever is less", callers, watched.Seconds()),
			Measure: death.Value(func(f fates) float64 { return min(f.alone.share(), f.other.share()) })},
		{Name: "killed_remembered", Unit: "%", What: "the only PDP is killed: of those that are remembered",
			Measure: death.Value(func(f fates) float64 { return f.alone.share() })},
		{Name: "killed_other", Unit: "%", What: "one of two PDPs is killed: of all, none of which is remembered",
			Measure: death.Value(func(f fates) float64 { return f.other.share() })},
		{Name: "killed_late", Unit: "ms", Bar: figures.AtMost(tolerance.Seconds() * 1000), What: fmt.Sprintf("how long after its deadline, of %g ms, the last of all calls ended from the kill on; the bar is what it takes to wake it", deadline.Seconds()*1000),
			Measure: death.Value(func(f fates) float64 { return max(f.alone.late, f.other.late).Seconds() * 1000 })},
		{Name: "killed_machine", Unit: "ms", What: "how late a timer was meanwhile, in the same process: what the machine adds by itself",
			Measure: death.Value(func(f fates) float64 { return max(f.alone.machine, f.other.machine).Seconds() * 1000 })},
		{Name: "killed_longest", Unit: "ms", What: "how long the longest of them took",
			Measure: death.Value(func(f fates) float64 { return max(f.alone.longest, f.other.longest).Seconds() * 1000 })},
	}
}
