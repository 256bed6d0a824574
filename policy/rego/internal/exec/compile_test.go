package exec_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/exec"
	"github.com/microwall/microwall/policy/rego/internal/front"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// planned plans a module's rule q, and returns what compiles the plan.
func planned(t *testing.T, rules string) func(ctx context.Context) error {
	t.Helper()
	compiled, err := front.Compile(t.Context(), front.Source{
		Modules: []front.Module{{Path: "a.rego", Text: "package p\n" + rules}}, RegoVersion: ast.RegoV1,
	})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := compiled.Plan(t.Context(), "x = data.p.q")
	if err != nil {
		t.Fatal(err)
	}
	data, err := value.ParseData([]byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context) error {
		_, err := exec.Compile(ctx, plan.Policy, exec.Options{Data: data, Strict: true, Functions: compiled.Functions(), Find: builtin.Find})
		return err
	}
}

// each repeats a line with numbers in the place of %d.
func each(n int, line string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.ReplaceAll(line, "%d", fmt.Sprint(i)))
	}
	return b.String()
}

// TestAttackSlowToCompile has rules of which OPA's compiler and planner think
// nothing, and that took up to thirty seconds here when what is known of a rule's
// locals was found by going through the rest of the rule again and again.
func TestAttackSlowToCompile(t *testing.T) {
	if underRace || testing.Short() {
		t.Skip("measures time")
	}
	table := "y := [" + strings.Repeat("true,", 20_000) + "true]\ny == input.b\n"
	equation := "[" + strings.Repeat("input.a,", 7) + "input.a] == [%d,1,1,1,1,1,1,1]\n"
	for _, c := range []struct{ name, rules string }{
		{"loops in loops", "q if {\n" + strings.Repeat("input.l[_]\n", 4000) + table + "}"},
		{"loops in loops that are tested", "q if {\n" + each(2000, "x%d := input.l[_]\nx%d > 1\n") + table + "}"},
		{"names for names", "q if {\n" + each(2000, "x%d := input.a\n") + table + "}"},
		{"loops in loops, then names", "q contains x if {\n" + each(1200, "x%d := input.l[_]\n") + "x := 1\n" + each(1200, "y%d := input.z\n") + "}"},
		{
			"equations beside rules",
			each(8, "f(x) := %d if input.id == \"%d\"\n") + "f(x) := 9 if {\n" + each(1500, equation) + "}\nq if { some i in numbers.range(1, 9); f(i) == 7 }",
		},
		{"a long path", "q if input" + strings.Repeat(".a", 40_000) + " == 1"},
		{"a long path from an element", "q if input[0]" + strings.Repeat(".a", 40_000) + " == 1"},
		{"a long path that is a name", "q if {\nx := input" + strings.Repeat(".a", 40_000) + "\n" + strings.Repeat("x == 1\n", 2000) + "}"},
		{"many arguments", "f(" + each(10_000, "a%d,") + "z) := 1 if a0 == 1\nq if f(" + each(10_000, "input.x%d,") + "1) == 1"},
		{"functions that are replaced", each(200, "r.a%d.b := input.x%d\n") + "g(x) := 1\nq if {\n" + each(100, "r[input.y%d].b == 1 with g as 2\n") + "}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			compile := planned(t, c.rules)
			start := time.Now()
			if err := compile(t.Context()); err != nil {
				t.Fatal(err)
			}
			took := time.Since(start)
			t.Logf("%d bytes in %s", len(c.rules), took)
			if took > 2*time.Second {
				t.Errorf("%d bytes of Rego take %s", len(c.rules), took)
			}
		})
	}
}

func TestCompilingEndsWithItsContext(t *testing.T) {
	compile := planned(t, each(10_000, "q contains %d if { some x in input.l; x == \"u%d\"; input.x == 1 }\n"))
	start := time.Now()
	if err := compile(t.Context()); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(start)

	enough := errors.New("that is enough")
	for _, share := range []time.Duration{0, 100, 20} {
		var wait time.Duration
		if share > 0 {
			wait = whole / share
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), wait, enough)
		start := time.Now()
		err := compile(ctx)
		took := time.Since(start)
		cancel()
		if !errors.Is(err, enough) {
			t.Errorf("after %s of %s: %v", wait, whole, err)
		}
		t.Logf("of %s: ended %s after its context", whole, took-wait)
		if late := took - wait; late > whole/2+100*time.Millisecond {
			t.Errorf("ended %s after its context, the whole takes %s", late, whole)
		}
	}
}
