package figures

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Figure is one number that may have a bar.
type Figure struct {
	// Name is NAME of -only. A figure NAME_MORE is measured with NAME.
	Name, Unit string
	Bar        Bar
	// What it is, in words.
	What string
	// Measure returns the value in the unit.
	Measure func(context.Context) (float64, error)
}

// Bar is what a value is held against; the zero value lets everything pass.
type Bar struct {
	bar   float64
	least bool
}

// AtMost is the bar of values that had better be small. It is above 0.
func AtMost(bar float64) Bar { return Bar{bar: bar} }

// AtLeast is the bar of values that had better be large. It is above 0.
func AtLeast(bar float64) Bar { return Bar{bar: bar, least: true} }

func (b Bar) keeps(value float64) bool {
	switch {
	case b.bar == 0:
		return true
	case b.least:
		return value >= b.bar
	}
	return value <= b.bar
}

func (b Bar) in(unit string) string {
	switch {
	case b.bar == 0:
		return "-"
	case b.least:
		return fmt.Sprintf("at least %g %s", b.bar, unit)
	}
	return fmt.Sprintf("at most %g %s", b.bar, unit)
}

// result is what became of a figure.
type result struct {
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Bar   float64 `json:"bar"`
	OK    bool    `json:"ok"`
}

func (f Figure) result(ctx context.Context) (result, error) {
	value, err := f.Measure(ctx)
	if err == nil && (math.IsNaN(value) || math.IsInf(value, 0)) {
		err = fmt.Errorf("it came out as %v", value)
	}
	// What is printed is what is judged.
	value = math.Round(value*1000) / 1000
	return result{Value: value, Unit: f.Unit, Bar: f.Bar.bar, OK: f.Bar.keeps(value)}, err
}

func names(all []Figure) []string {
	list := make([]string, len(all))
	for i, f := range all {
		list[i] = f.Name
	}
	return list
}

// choose returns the figure of that name and those that are called after it
// (push16k_p99 after push16k), or all of them for "".
func choose(all []Figure, only string) []Figure {
	if only == "" {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(f Figure) bool {
		return f.Name != only && !strings.HasPrefix(f.Name, only+"_")
	})
}

// Samples are times of the same thing.
type Samples []time.Duration

// Quantile returns the smallest sample that a share q of all does not exceed,
// in milliseconds; NaN if there is none.
func (s Samples) Quantile(q float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	i := int(math.Ceil(q*float64(len(s)))) - 1
	return sorted[max(i, 0)].Seconds() * 1000
}

// Median returns the middle of values, of two the lower one; NaN if there is none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	return slices.Sorted(slices.Values(values))[(len(values)-1)/2]
}

// Shared is a measurement that several figures come of: whoever is asked first
// makes it.
type Shared[T any] struct {
	take  func(context.Context) (T, error)
	taken bool
	all   T
	err   error
}

// Share returns a measurement that take makes.
func Share[T any](take func(context.Context) (T, error)) *Shared[T] { return &Shared[T]{take: take} }

// Value is the Measure of a figure that comes of the measurement.
func (m *Shared[T]) Value(of func(T) float64) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		if !m.taken {
			m.all, m.err = m.take(ctx)
			m.taken = true
		}
		return of(m.all), m.err
	}
}
