package reads_test

import (
	"flag"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/microwall/microwall/policy/rego/internal/reads"
)

var full = flag.Bool("full", false, "try every change of every input, and many more generated policies")

// A tally counts what was tried.
type tally struct{ policies, whole, inputs, changed int }

// unnoticed changes the inputs of a specimen everywhere outside of its set, and
// fails the test if a result or an error changes with them.
func (n *tally) unnoticed(t *testing.T, s specimen, limit int) {
	t.Helper()
	for _, lenient := range []bool{false, true} {
		q := *s.question
		q.lenient, q.prepared = lenient, nil
		d := newPerturbation(&q, s.policy, reads.Of(s.policy))
		d.limit = limit
		for _, input := range s.inputs {
			complaint, err := d.on(t.Context(), input)
			if err != nil {
				t.Errorf("%s: %v", s.name, err)
			}
			if complaint != "" {
				t.Errorf("%s\nnotices what is not in its set\n%s", s.name, complaint)
			}
			n.inputs++
		}
		n.changed += d.evaluated
		if !lenient {
			n.policies++
			if d.set.Whole() {
				n.whole++
			}
		}
	}
}

func (n *tally) log(t *testing.T) {
	t.Helper()
	t.Logf("%d policies (%d read the whole input), %d inputs, %d changes outside of the sets", n.policies, n.whole, n.inputs, n.changed)
	if n.changed == 0 || n.whole > n.policies/2 {
		t.Error("this shows nothing")
	}
}

func TestSuiteNoticesNothingOutsideOfItsReads(t *testing.T) {
	var n tally
	limit := 0
	if testing.Short() {
		limit = 10
	}
	for _, s := range suite(t) {
		n.unnoticed(t, s, limit)
	}
	n.log(t)
}

func TestBoutiqueNoticesNothingOutsideOfItsReads(t *testing.T) {
	var n tally
	limit := 300
	if *full {
		limit = 0
	}
	for _, s := range shop(t) {
		if !*full {
			rand.New(rand.NewPCG(1, 1)).Shuffle(len(s.inputs), func(i, j int) { s.inputs[i], s.inputs[j] = s.inputs[j], s.inputs[i] })
			s.inputs = slices.Clone(s.inputs[:min(12, len(s.inputs))])
		}
		n.unnoticed(t, s, limit)
	}
	n.log(t)
}

func TestConstructsNoticeNothingOutsideOfTheirReads(t *testing.T) {
	var n tally
	limit := 150
	switch {
	case testing.Short():
		limit = 15
	case *full:
		limit = 0
	}
	for _, s := range constructs(t) {
		n.unnoticed(t, s, limit)
	}
	n.log(t)
}

func TestGeneratedPoliciesNoticeNothingOutsideOfTheirReads(t *testing.T) {
	var n tally
	policies, limit := 300, 40
	switch {
	case testing.Short():
		policies = 100
	case *full:
		policies, limit = 5_000, 60
	}
	for seed := range policies {
		if s, ok := generated(t, seed); ok {
			n.unnoticed(t, s, limit)
		}
		if t.Failed() {
			break
		}
	}
	n.log(t)
	if n.policies < policies/2 {
		t.Error("the grammar makes what OPA refuses")
	}
}

// FuzzReads lets the fuzzer steer the grammar.
func FuzzReads(f *testing.F) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		choices := make([]byte, 300)
		for i := range choices {
			choices[i] = byte(r.UintN(256))
		}
		f.Add(choices)
	}
	f.Fuzz(func(t *testing.T, choices []byte) {
		g := &generator{choose: func(n int) int {
			if len(choices) == 0 {
				return 0
			}
			c := int(choices[0]) % n
			choices = choices[1:]
			return c
		}}
		q, p, err := g.question(t)
		if err != nil {
			return // OPA refuses it
		}
		d := newPerturbation(q, p, reads.Of(p))
		d.limit = 40
		complaint, err := d.on(t.Context(), g.input())
		if err != nil {
			t.Fatalf("%v\n%s", err, q.name)
		}
		if complaint != "" {
			t.Fatalf("%s\n%s", q.name, complaint)
		}
	})
}
