package reads_test

import (
	"flag"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// The race detector, under which everything takes many times as long, has an
// eighth of what is tried without it. What no machine tries at every commit is
//
//	go test ./policy/rego/internal/reads -full
var (
	full  = flag.Bool("full", false, "try every change of every input, and many more generated policies")
	first = flag.Uint("first", 0, "which of every eight is tried under the race detector")
)

// part returns how much of n is tried.
func part(n int) int {
	if underRace && !*full {
		return n / 8
	}
	return n
}

// skipped reports whether the number i is not tried.
func skipped(i int) bool { return underRace && !*full && i%8 != int(*first%8) }

// A tally counts what was tried.
type tally struct{ policies, whole, inputs, changed int }

// unnoticed changes the inputs of a specimen everywhere outside of its set, and
// fails the test if a result or an error changes with them.
func (n *tally) unnoticed(t *testing.T, s specimen, limit int) {
	t.Helper()
	n.policies++
	set := readsOf(s.policy)
	if set.Whole() {
		n.whole++
	}
	strict, lenient := *s.question, *s.question
	strict.prepared, lenient.prepared, lenient.lenient = nil, nil, true
	d, l := newPerturbation(&strict, s.policy, set), newPerturbation(&lenient, s.policy, set)
	d.limit, l.limit = limit, limit
	for _, input := range s.inputs {
		n.try(t, s.name, d, input)
		// Where no call fails, OPA evaluates both in the same way.
		if d.failed {
			n.try(t, s.name, l, input)
		}
	}
	n.changed += d.evaluated + l.evaluated
}

func (n *tally) try(t *testing.T, name string, d *perturbation, input ast.Value) {
	t.Helper()
	complaint, err := d.on(t.Context(), input)
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if complaint != "" {
		t.Errorf("%s\nnotices what is not in its set\n%s", name, complaint)
	}
	n.inputs++
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
	limit := part(300)
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
	limit := part(150)
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
		if skipped(seed) {
			continue
		}
		if s, ok := generated(t, seed); ok {
			n.unnoticed(t, s, limit)
		}
		if t.Failed() {
			break
		}
	}
	n.log(t)
	if n.policies < part(policies)/2 {
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
		d := newPerturbation(q, p, readsOf(p))
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
