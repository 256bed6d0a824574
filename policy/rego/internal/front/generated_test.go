package front_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/microwall/microwall/policy/rego/internal/front"
)

// A writer writes policies of what multiplies in a plan: references that may mean
// many rules, and `with`, in all places where they can stand. What a layer refers
// to is in a lower one.
type writer struct {
	*rand.Rand
	vars int
}

func (w *writer) one(of ...string) string { return of[w.IntN(len(of))] }

func (w *writer) fresh() string {
	w.vars++
	return fmt.Sprint("v", w.vars)
}

func (w *writer) policy() (modules []front.Module) {
	for layer := range 3 {
		for _, name := range []string{"a", "b"}[:1+w.IntN(2)] {
			var b strings.Builder
			fmt.Fprintf(&b, "package l%d.%s\n\nimport future.keywords.not\n\n", layer, name)
			for i := range 2 + w.IntN(3) {
				b.WriteString(w.rule(layer, i))
			}
			fmt.Fprintf(&b, "fx(x) := x\n\nfy(x) := [x] if {\n%s}\n", w.body(layer, 1))
			modules = append(modules, front.Module{Path: fmt.Sprintf("%d%s.rego", layer, name), Text: b.String()})
		}
	}
	return modules
}

func (w *writer) rule(layer, i int) string {
	switch w.IntN(7) {
	case 0:
		return fmt.Sprintf("r%d := %s if {\n%s}\ndefault r%[1]d := 0\n\n", i, w.constant(), w.body(layer, 2))
	case 1:
		return fmt.Sprintf("r%d contains x if {\n%s\tx := %s\n}\n\n", i, w.body(layer, 2), w.constant())
	case 2:
		return fmt.Sprintf("r%d[x] := y if {\n%s\tx := %s\n\ty := %s\n}\n\n", i, w.body(layer, 1), w.constant(), w.constant())
	case 3:
		return fmt.Sprintf("r%d.k[x].l contains y if {\n%s\tx := %s\n\ty := %s\n}\nr%[1]d.k.m.l contains 3\n\n", i, w.body(layer, 1), w.constant(), w.constant())
	case 4:
		return fmt.Sprintf("r%d := 1 if {\n%s} else := %s if {\n%s}\n\n", i, w.body(layer, 1), w.constant(), w.body(layer, 1))
	case 5:
		return fmt.Sprintf("f%d(x, [y, \"k\"]) := z if {\n%s\tz := [x, y]\n}\n\n", i, w.body(layer, 1))
	}
	return fmt.Sprintf("r%d.n.k := %s\nr%[1]d.n.l := %s\n\n", i, w.constant(), w.constant())
}

func (w *writer) constant() string {
	return w.one("1", `"k"`, "true", "null", `[1, {"k": 2}]`, `{1, "l"}`, `{"k": [1], "l": input.x}`, "input.y")
}

func (w *writer) body(layer, n int) string {
	var b strings.Builder
	for range 1 + w.IntN(n) {
		fmt.Fprintf(&b, "\t%s\n", w.expr(layer, 2))
	}
	return b.String()
}

func (w *writer) expr(layer, depth int) string {
	v := w.fresh()
	if depth > 0 {
		inner := func() string { return w.expr(layer, depth-1) }
		switch w.IntN(15) {
		case 0:
			return fmt.Sprintf("%s := [x | %s; x := 1]", v, inner())
		case 1:
			return fmt.Sprintf("every %s in [1, 2] { %s; %[1]s }", v, inner())
		case 2:
			return fmt.Sprintf("not { %s }", inner())
		case 3:
			return fmt.Sprintf("%s := {x: y | %s; some x, y in input.z}", v, inner())
		case 4, 5:
			return fmt.Sprintf("%s with %s as %s", w.reference(layer), w.target(layer), w.constant())
		case 6:
			return fmt.Sprintf("%s with %s as %s with input.x as 1", w.reference(layer), w.target(layer), w.constant())
		case 7:
			return fmt.Sprintf("%s := count(%s) with count as %s", v, w.reference(layer), w.one("1", "sum", "input.q"))
		case 8, 9, 10:
			return fmt.Sprintf("%s := data.l0.a.fx(%s) with %s as %s", v, w.one("1", "input.x"), w.one("data.l0.a.fx", "data.l0.a.fy", "count"),
				w.one("data.l0.a.fy", "data.l0.a.fx", "data.l0.a.r0", "count", "1", "input.x"))
		case 11:
			return fmt.Sprintf("%s with data.l0.a.fx as data.l0.a.fy", w.reference(layer))
		}
	}
	switch w.IntN(6) {
	case 0:
		return fmt.Sprintf("%s := %s; %[2]s == %[1]s", v, w.reference(layer))
	case 1:
		return fmt.Sprintf("[%s, %s] = %s", v, w.fresh(), w.reference(layer))
	case 2:
		return fmt.Sprintf("%s = %s", w.reference(layer), w.constant())
	case 3:
		return fmt.Sprintf("some %s in %s", v, w.reference(layer))
	case 4:
		if layer > 0 {
			return fmt.Sprintf("data.l0.a.%s(%s)", w.one("fx", "fy"), w.one("1", "input.x", "[1]"))
		}
	}
	return w.reference(layer)
}

// reference to a lower layer, or the input.
func (w *writer) reference(layer int) string {
	if layer == 0 || w.IntN(8) == 0 {
		return w.one("input.x", "input[_].y", "input.q[_][0]", "input")
	}
	parts := []string{fmt.Sprintf("[\"l%d\"]", w.IntN(layer)), w.one(`["a"]`, `["b"]`), fmt.Sprintf("[\"r%d\"]", w.IntN(4)), w.one(`["k"]`, `["n"]`), `["k"]`}
	for i := range parts {
		if i > 0 && w.IntN(3) == 0 {
			parts[i] = w.one("[_]", "[input.x]", "["+w.fresh()+"]")
		}
	}
	return "data" + strings.Join(parts[:1+w.IntN(len(parts))], "")
}

func (w *writer) target(layer int) string {
	return w.one("input.x", "input", "count", fmt.Sprintf("data.l%d.a.r%d", w.IntN(layer+1), w.IntN(3)), "data.l0.a", "data.other")
}

func TestPoliciesThatMultiplyArePlannedAsTheyWereRehearsed(t *testing.T) {
	tried, planned, unplannable, refused, all := 0, 0, 0, 0, 0
	for seed := range part(800) {
		tried++
		w := writer{Rand: rand.New(rand.NewPCG(uint64(seed), 0))}
		src := front.Source{Modules: w.policy()}
		compiled, err := front.Compile(t.Context(), src)
		if _, wrong := errors.AsType[ast.Errors](err); wrong {
			continue // a target that may not be replaced, or nothing of its type
		}
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		_, err = compiled.Plan(t.Context(), "x = data")
		switch err.(type) { //nolint:errorlint // it is returned as it is
		case nil:
			planned++
			all += asRehearsed(t, fmt.Sprint("seed ", seed), compiled, "x = data")
		case *front.Unplannable:
			unplannable++
		case *front.TooCostly:
			refused++
		default:
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	t.Logf("%d planned with %d statements, %d cannot be planned, %d refused", planned, all, unplannable, refused)
	if planned < tried/10 || *full && planned < 150 {
		t.Errorf("only %d of %d policies were planned", planned, tried)
	}
}

// Whatever the source is, OPA does not crash, and plans what was rehearsed.
func FuzzSource(f *testing.F) {
	for i, c := range cases(f) {
		if i%40 == 0 && len(c.Modules) > 0 {
			f.Add(c.Modules[0])
		}
	}
	for seed := range uint64(10) {
		w := writer{Rand: rand.New(rand.NewPCG(seed, 1))}
		f.Add(w.policy()[0].Text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		compiled, err := front.Compile(t.Context(), front.Source{Modules: []front.Module{{Path: "fuzz.rego", Text: text}}})
		var crash *front.Crash
		if errors.As(err, &crash) {
			t.Fatalf("%v\n%s", err, crash.Stack)
		}
		if err != nil {
			return
		}
		_, err = compiled.Plan(t.Context(), "x = data")
		if errors.As(err, &crash) {
			t.Fatalf("%v\n%s", err, crash.Stack)
		}
		if err == nil {
			asRehearsed(t, "fuzzed", compiled, "x = data")
		}
	})
}
