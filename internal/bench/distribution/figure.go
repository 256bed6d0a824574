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
	// bar is what the value may be at most.
	bar  float64
	what string
	// measure returns the value in the unit.
	measure func(context.Context) (float64, error)
}

// figures returns all there are. Those that come of the same measurement share
// it, and whoever is asked first makes it.
func figures(p progress) []figure {
	push := once(func(ctx context.Context) (samples, error) { return push16k(ctx, p, pushes) })
	return []figure{
		{"push16k", "ms", 25, fmt.Sprintf("median of %d pushes of 1 KB of Rego and 16 KB of data, from the call of Push to the first decision by the release in an embedded client", pushes), push.quantile(0.5)},
		{"push16k_p99", "ms", 100, "99th percentile of the same pushes", push.quantile(0.99)},
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
	return result{Value: value, Unit: f.unit, Bar: f.bar, OK: value <= f.bar}, err
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

// measurement makes samples once.
type measurement struct {
	take  func(context.Context) (samples, error)
	taken bool
	all   samples
	err   error
}

func once(take func(context.Context) (samples, error)) *measurement { return &measurement{take: take} }

func (m *measurement) quantile(q float64) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		if !m.taken {
			m.all, m.err = m.take(ctx)
			m.taken = true
		}
		return m.all.quantile(q), m.err
	}
}
