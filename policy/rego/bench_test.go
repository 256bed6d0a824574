package rego_test

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
)

var ratios = flag.Bool("ratios", false, "let TestRatios run: it takes minutes, and a machine that does nothing else")

// BenchmarkDecide asks the same questions of Microwall, OPA and cedar-go. See
// BENCHMARKS.md. What is timed is one decision, all four rules, the mean over a
// shape's questions in turn.
func BenchmarkDecide(b *testing.B) {
	for _, makeShape := range shapes() {
		s := makeShape(b)
		b.Run(s.name, func(b *testing.B) {
			for _, e := range engines {
				b.Run(e.name, func(b *testing.B) {
					asked := e.prepare(b, s)
					if asked == nil {
						b.Skip("the question cannot be put to it")
					}
					checkAnswers(b, s, asked)
					benchmarkAnswers(b, s, asked)
				})
			}
		})
	}
}

// bars are how many times as long as Microwall the others must take; zero is no
// bar.
var bars = map[string]map[string]float64{
	"attributes":     {"opa-input": 80, "opa-parsed": 30, "cedar": 2},
	"roles":          {"opa-input": 20, "opa-parsed": 12, "cedar": 2},
	"rules10k":       {"opa-input": 20, "opa-parsed": 10},
	"groups":         {"opa-input": 5, "opa-parsed": 4},
	"comprehensions": {"opa-input": 8, "opa-parsed": 6},
	"strings":        {"opa-input": 10, "opa-parsed": 5},
}

// withoutAllocation are the shapes that Microwall answers without any.
var withoutAllocation = []string{"attributes", "roles", "rules10k"}

// TestRatios prints the table of BENCHMARKS.md: what each engine takes, the
// median of five rounds in which all of them take their turn, and how many
// times as long as Microwall. It fails where a bar is missed.
func TestRatios(t *testing.T) {
	if !*ratios {
		t.Skip("run it with -ratios, and with -benchtime for how long each turn is")
	}
	const rounds = 5
	var table strings.Builder
	table.WriteString("| shape | microwall | opa-input | opa-parsed | cedar | allocations |\n|---|---|---|---|---|---|\n")
	ours := make(map[string]float64)
	for _, makeShape := range shapes() {
		s := makeShape(t)
		prepared := make([]asked, len(engines))
		for i, e := range engines {
			if prepared[i] = e.prepare(t, s); prepared[i] != nil {
				checkAnswers(t, s, prepared[i])
			}
		}
		times := make([][]float64, len(engines))
		var allocations int64
		for range rounds {
			for i, e := range prepared {
				if e == nil {
					continue
				}
				r := testing.Benchmark(func(b *testing.B) { benchmarkAnswers(b, s, e) })
				if r.N == 0 {
					t.Fatalf("%s: %s failed", s.name, engines[i].name)
				}
				times[i] = append(times[i], float64(r.T.Nanoseconds())/float64(r.N))
				if i == 0 {
					allocations = max(allocations, r.AllocsPerOp())
				}
			}
		}
		fmt.Fprintf(&table, "| %s ", s.name)
		for i, e := range engines {
			if times[i] == nil {
				table.WriteString("| - ")
				continue
			}
			slices.Sort(times[i])
			median := times[i][rounds/2]
			if i == 0 {
				ours[s.name] = median
				fmt.Fprintf(&table, "| %s ", nanoseconds(median))
				continue
			}
			ratio, bar := median/ours[s.name], bars[s.name][e.name]
			fmt.Fprintf(&table, "| %s, %sx ", nanoseconds(median), digits(ratio))
			if ratio < bar {
				t.Errorf("%s: %s takes %s times as long, the bar is %g", s.name, e.name, digits(ratio), bar)
			}
		}
		fmt.Fprintf(&table, "| %d |\n", allocations)
		if slices.Contains(withoutAllocation, s.name) && allocations > 0 {
			t.Errorf("%s: %d allocations, the bar is none", s.name, allocations)
		}
	}
	if r := ours["rules10k"] / ours["rules100"]; r > 2 {
		t.Errorf("10,000 rules take %s times as long as 100, the bar is 2", digits(r))
	}
	t.Log("\n" + table.String())
}

// nanoseconds prints a time in the unit that suits it.
func nanoseconds(ns float64) string {
	switch {
	case ns < 1e3:
		return digits(ns) + " ns"
	case ns < 1e6:
		return digits(ns/1e3) + " us"
	}
	return digits(ns/1e6) + " ms"
}

// digits prints three digits, or all that stand before the point.
func digits(f float64) string {
	if f >= 100 {
		return fmt.Sprintf("%.0f", f)
	}
	return fmt.Sprintf("%.3g", f)
}

func benchmarkAnswers(b *testing.B, s *shape, e asked) {
	want := make([]bool, len(s.questions))
	for i, q := range s.questions {
		want[i] = q.allow && len(q.deny) == 0
	}
	ctx, next := b.Context(), 0
	b.ReportAllocs()
	for b.Loop() {
		allowed, err := e.allows(ctx, next)
		if err != nil || allowed != want[next] {
			b.Fatalf("%s: %t, %v", s.questions[next].name, allowed, err)
		}
		if next++; next == len(want) {
			next = 0
		}
	}
}

// TestShapesAgree holds every engine's answers against the ones that the
// questions have.
func TestShapesAgree(t *testing.T) {
	for _, makeShape := range shapes() {
		s := makeShape(t)
		t.Run(s.name, func(t *testing.T) {
			if race && s.name == "rules10k" {
				t.Skip("it is rules100, only larger, for which the race detector takes long: run it without")
			}
			for _, e := range engines {
				t.Run(e.name, func(t *testing.T) {
					asked := e.prepare(t, s)
					if asked == nil {
						t.Skip("the question cannot be put to it")
					}
					checkAnswers(t, s, asked)
				})
			}
		})
	}
}

func checkAnswers(tb testing.TB, s *shape, e asked) {
	tb.Helper()
	for i, q := range s.questions {
		got, err := e.answer(tb.Context(), i)
		if err != nil || !got.equal(q.want()) {
			tb.Errorf("%s: got %+v, %v, want %+v", q.name, got, err, q.want())
		}
	}
}
