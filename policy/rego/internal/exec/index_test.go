package exec_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/convert"
	"github.com/microwall/microwall/policy/rego/internal/exec"
	"github.com/microwall/microwall/policy/rego/internal/front"
	"github.com/microwall/microwall/policy/rego/internal/reference"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// compileBoth compiles modules for the native evaluator and for the reference.
func compileBoth(t *testing.T, module, query string) (*exec.Program, *reference.Query) {
	t.Helper()
	compiled, err := front.Compile(t.Context(), front.Source{Modules: []front.Module{{Path: "a.rego", Text: module}}, RegoVersion: ast.RegoV1, Topdown: true})
	if err != nil {
		t.Fatalf("%v\n%s", err, module)
	}
	plan, err := compiled.Plan(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	data, err := value.ParseData([]byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := exec.Compile(t.Context(), plan.Policy, exec.Options{Data: data, Strict: true, Functions: compiled.Functions(), Find: builtin.Find})
	if err != nil {
		t.Fatal(err)
	}
	q, err := reference.New(compiled.Compiler(), nil, ast.MustParseBody(query))
	if err != nil {
		t.Fatal(err)
	}
	return p, q
}

// manyRules returns rules of one name that test values of the input, in all the
// ways in which an index can find them, or cannot.
func manyRules(r *rand.Rand, rules int) string {
	n := 0 // variables
	constants := []string{`"a"`, `"b"`, `"c"`, `"1"`, `1`, `1.0`, `1e0`, `-0`, `0`, `true`, `false`, `null`, `18446744073709551616`, `[1]`, `{"a"}`, `2.5`, `""`}
	constant := func() string { return constants[r.IntN(len(constants))] }
	paths := []string{"input.x", "input.y", "input.deep.x", `input["odd name"]`, "input.list[0]"}
	path := func() string { return paths[r.IntN(len(paths))] }
	// What can fail must not be hidden by an index: f is 1 or fails.
	clauses := []func() string{
		func() string { return path() + " == " + constant() },
		func() string { return constant() + " == " + path() },
		func() string { return fmt.Sprintf("%s in {%s, %s}", path(), constant(), constant()) },
		func() string { return fmt.Sprintf("%s in [%s]", path(), constant()) },
		func() string { return path() + " != " + constant() },
		func() string { n++; return fmt.Sprintf("p%d := %s; p%d == %s", n, path(), n, constant()) },
		func() string { return fmt.Sprintf("not %s == %s", path(), constant()) },
		func() string { return "fails == 1" },
		func() string { return fmt.Sprintf("count(%s) == 1", path()) },
		func() string { n++; return fmt.Sprintf("some v%d in [%s]; %s == v%d", n, constant(), path(), n) },
		func() string { return fmt.Sprintf("%s == %s with input.x as %s", path(), constant(), constant()) },
		func() string { return fmt.Sprintf("is_string(%s)", path()) },
	}
	var b strings.Builder
	b.WriteString("package p\nfails := to_number(input.number)\n")
	head := []string{"q if", "q := 1 if", `q contains "%d" if`, "q contains input.x if", "q[input.y] := 1 if", "q := input.x if"}[r.IntN(6)]
	for i := range rules {
		b.WriteString(strings.ReplaceAll(head, "%d", fmt.Sprint(i)) + " {\n")
		for range 1 + r.IntN(3) {
			// Equality with a constant is what most rules begin with.
			clause := clauses[0]
			if r.IntN(3) == 0 {
				clause = clauses[r.IntN(len(clauses))]
			}
			b.WriteString("\t" + clause() + "\n")
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func TestAnIndexHidesNothing(t *testing.T) {
	policies := 60
	if testing.Short() {
		policies = 15
	}
	r := rand.New(rand.NewPCG(1, 2))
	values := []string{`"a"`, `"b"`, `"1"`, `1`, `1.0`, `0`, `true`, `null`, `18446744073709551616`, `[1]`, `2.5`, `""`, `{"a": 1}`}
	failed, defined := 0, 0
	for range policies {
		module := manyRules(r, 8+r.IntN(40))
		program, query := compileBoth(t, module, "x = data.p.q")
		for range 40 {
			some := func() string { return values[r.IntN(len(values))] }
			text := fmt.Sprintf(`{"x": %s, "y": %s, "deep": {"x": %s}, "odd name": %s, "list": [%s], "number": %s}`,
				some(), some(), some(), some(), some(), []string{"1", `"1"`, `"one"`, "2"}[r.IntN(4)])
			if r.IntN(8) == 0 {
				text = some()
			}
			input := ast.MustParseTerm(text).Value
			want, wantErr := query.Eval(t.Context(), input, reference.Mode{})
			in, err := convert.FromAST(input)
			if err != nil {
				t.Fatal(err)
			}
			got, gotErr := program.Query(t.Context(), in, budget.Limits{})
			if (wantErr == nil) != (gotErr == nil) {
				t.Fatalf("OPA's error: %v\nours: %v\ninput: %s\n%s", wantErr, gotErr, text, module)
			}
			if gotErr != nil {
				failed++
				continue
			}
			if len(want.Bindings) != len(got) {
				t.Fatalf("want %v, got %v\ninput: %s\n%s", want.Bindings, got, text, module)
			}
			if len(got) > 0 {
				defined++
				x := got[0].GetText("x")
				if w := want.Bindings[0]["x"]; w.Compare(convert.ToAST(x)) != 0 {
					t.Fatalf("want %v, got %v\ninput: %s\n%s", w, x, text, module)
				}
			}
		}
	}
	t.Logf("%d policies: %d evaluations defined, %d failed", policies, defined, failed)
	if failed == 0 || defined == 0 {
		t.Error("there were no errors, or no results, to compare")
	}
}

// A rule stands in the index once for each way in which it can hold: in 64^4 places
// each of these would.
func TestAnIndexIsNoLargerThanThePolicy(t *testing.T) {
	var constants, policy strings.Builder
	for i := range 64 {
		fmt.Fprintf(&constants, "%d, ", i)
	}
	policy.WriteString("package a\n")
	for i := range 16 {
		fmt.Fprintf(&policy, "deny contains \"%d\" if {\n", i)
		for path := range 4 {
			fmt.Fprintf(&policy, "input.p%d in {%s-%d}\n", path, constants.String(), i+1)
		}
		policy.WriteString("}\n")
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	p, _ := compileBoth(t, policy.String(), "x = data.a.deny")
	runtime.ReadMemStats(&after)
	if built := after.TotalAlloc - before.TotalAlloc; built > 200<<20 {
		t.Errorf("%d MiB were built", built>>20)
	}
	input, err := convert.FromAST(ast.MustParseTerm(`{"p0": 1, "p1": 2, "p2": -3, "p3": 63}`).Value)
	if err != nil {
		t.Fatal(err)
	}
	results, err := p.Query(t.Context(), input, budget.Limits{})
	if err != nil || results[0].String() != `{"x": {"2"}}` {
		t.Errorf("got %v, %v", results, err)
	}
}
