package rego_test

import (
	"testing"
)

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
