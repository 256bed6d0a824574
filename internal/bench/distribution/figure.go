package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// figure is one number that has a bar.
type figure struct {
	name, unit string
	// bar is what the value may be at most; 0 is none.
	bar  float64
	what string
	// measure returns the value in the unit.
	measure func(context.Context) (float64, error)
}

// figures returns all there are.
func figures(p progress) []figure {
	push := &shared[samples]{take: func(ctx context.Context) (samples, error) { return push16k(ctx, p, pushes) }}
	quantile := func(q float64) func(samples) float64 { return func(s samples) float64 { return s.quantile(q) } }
	beside := &shared[latencies]{take: func(ctx context.Context) (latencies, error) { return activate10m(ctx, p, tenMB, activations, quiet) }}
	begin := &shared[beginnings]{take: func(ctx context.Context) (beginnings, error) { return startFromDisk(ctx, p, starts) }}
	return []figure{
		{"push16k", "ms", 25, fmt.Sprintf("median of %d pushes of 1 KB of Rego and 16 KB of data, from the call of Push to the first decision by the release in an embedded client", pushes), push.value(quantile(0.5))},
		{"push16k_p99", "ms", 100, "99th percentile of the same pushes", push.value(quantile(0.99))},
		{"clients1000", "ms", 3000, fmt.Sprintf("1,000 embedded clients in %d processes, each compiling 5 rules and 16 KB of data for itself: from the call of Push to the last one that decides by it, the slowest of %d", processes, rounds),
			func(ctx context.Context) (float64, error) { return clients1000(ctx, p, 1000) }},
		{"subscribers5000", "ms", 500, fmt.Sprintf("5,000 connections that subscribe to the pushes of a namespace: from the call of Push to the last one that is told, the slowest of %d", rounds),
			func(ctx context.Context) (float64, error) { return subscribers5000(ctx, p, 5000) }},
		{"idle", "KB", 30, "memory of the server for each of 1,000 idle embedded clients, connections included: heap and stacks after garbage collection, no TLS",
			func(ctx context.Context) (float64, error) { return idle(ctx, crew{}, 1000) }},
		{"idle_named", "KB", 30, "the same with credentials for one namespace and its guardrail, as behind `microwall nats-config`",
			func(ctx context.Context) (float64, error) { return idle(ctx, crew{Credentials: "own"}, 1000) }},
		{"idle_bare", "KB", 0, "the same of 1,000 connections that may do everything, and never ask nor subscribe: what nats-server takes by itself",
			func(ctx context.Context) (float64, error) { return idleBare(ctx, 1000) }},
		{"restart", "ms", 6000, fmt.Sprintf("1,000 embedded clients, the broker is restarted, and a release pushed: from the restart on to the last one that decides by it, the slowest of %d", rounds),
			func(ctx context.Context) (float64, error) { return restart(ctx, p, 1000) }},
		{"start", "ms", 50, fmt.Sprintf("a client with releases of 5 rules and 16 KB of data on disk, and no broker: from its start to its first decision, the slowest of %d", starts),
			begin.value(func(b beginnings) float64 { return b.start.quantile(1) })},
		{"start_compile", "ms", 0, "the same releases compiled, and decided by, without a client, the slowest of as many: what of that is not its own",
			begin.value(func(b beginnings) float64 { return b.compile.quantile(1) })},
		{"activate10m", "x", 2, "decisions that are due at fixed times, 5,000 a second: their latency at the 99.9th percentile while bundles of 10 MB are activated, as a multiple of that when nothing else happens",
			beside.value(func(l latencies) float64 { return l.activating / l.quiet })},
		{"activate10m_spin", "x", 0, "the same while a loop does nothing: what the machine adds by itself",
			beside.value(func(l latencies) float64 { return l.spinning / l.quiet })},
	}
}

// result is what became of a figure.
type result struct {
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Bar   float64 `json:"bar"`
	OK    bool    `json:"ok"`
}

func (f figure) result(ctx context.Context) (result, error) {
	value, err := f.measure(ctx)
	if err == nil && (math.IsNaN(value) || math.IsInf(value, 0)) {
		err = fmt.Errorf("it came out as %v", value)
	}
	// What is printed is what is judged.
	value = math.Round(value*1000) / 1000
	return result{Value: value, Unit: f.unit, Bar: f.bar, OK: f.bar == 0 || value <= f.bar}, err
}

func names(all []figure) []string {
	list := make([]string, len(all))
	for i, f := range all {
		list[i] = f.name
	}
	return list
}

// choose returns the figure of that name and those that are called after it
// (push16k_p99 after push16k), or all of them for "".
func choose(all []figure, only string) []figure {
	if only == "" {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(f figure) bool {
		return f.name != only && !strings.HasPrefix(f.name, only+"_")
	})
}

// samples are times of the same thing.
type samples []time.Duration

// quantile returns the smallest sample that a share q of all does not exceed,
// in milliseconds.
func (s samples) quantile(q float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	i := int(math.Ceil(q*float64(len(s)))) - 1
	return sorted[max(i, 0)].Seconds() * 1000
}

// shared is a measurement that several figures come of: whoever is asked first
// makes it.
type shared[T any] struct {
	take  func(context.Context) (T, error)
	taken bool
	all   T
	err   error
}

func (m *shared[T]) value(of func(T) float64) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		if !m.taken {
			m.all, m.err = m.take(ctx)
			m.taken = true
		}
		return of(m.all), m.err
	}
}
