package front_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/builtin"
	evaluator "github.com/microwall/microwall/policy/rego/internal/exec"
	"github.com/microwall/microwall/policy/rego/internal/front"
	"github.com/microwall/microwall/policy/rego/internal/suite"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

func source(texts ...string) front.Source {
	src := front.Source{}
	for i, text := range texts {
		src.Modules = append(src.Modules, front.Module{Path: fmt.Sprintf("%d.rego", i), Text: text})
	}
	return src
}

// What is wrong with a policy is said in OPA's words, whatever is skipped or
// done in between.
func TestAWrongPolicyIsReportedAsOPADoes(t *testing.T) {
	for name, texts := range map[string][]string{
		"a type":                      {"package p\n\nx if startswith(1, \"a\")\n\ny if 1 == \"a\"\n"},
		"an unsafe variable":          {"package p\n\nx if y > 1\n"},
		"an unknown function":         {"package p\n\nx if nope(1)\n"},
		"a rule that is itself":       {"package p\n\nx if not x\n"},
		"two rules in a circle":       {"package p\n\nx if data.q.y\n", "package q\n\ny if data.p.x\n"},
		"else in a circle":            {"package p\n\nx := 1 if input.a else := y if input.b\n\ny := x\n"},
		"a circle of what may be":     {"package p\n\nx if { some i; data.q[i] }\n", "package q\n\ny if data.p.x\n"},
		"a circle beside a chain":     {"package p\n\nx if y\n\ny if x\n\nz if x\n\nw if z\n"},
		"rules that conflict":         {"package p\n\nx := 1\n\nx.y := 2\n"},
		"two defaults":                {"package p\n\ndefault x := 1\n\ndefault x := 2\n"},
		"a package that is a rule":    {"package p\n\nx := 1\n", "package p.x\n"},
		"several of several files":    {"package p\n\nx if y > 1\n", "package q\n\ny if nope(1)\n"},
		"with of a part of a rule":    {"package p\n\nx := {\"a\": 1}\n\ny if x.a with data.p.x.a as 2\n"},
		"a keyword that is not in v1": {"package p\n\nx { true }\n"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := front.Compile(t.Context(), source(texts...))
			if want := opaErrors(texts); err == nil || err.Error() != want {
				t.Errorf("front says\n%v\nOPA says\n%s", err, want)
			}
		})
	}
}

func opaErrors(texts []string) string {
	modules := map[string]*ast.Module{}
	var unparsed []string
	for i, text := range texts {
		path := fmt.Sprintf("%d.rego", i)
		module, err := ast.ParseModuleWithOpts(path, text, ast.ParserOptions{RegoVersion: ast.RegoV1})
		if err != nil {
			unparsed = append(unparsed, err.Error())
		}
		modules[path] = module
	}
	if len(unparsed) > 0 {
		return strings.Join(unparsed, "\n")
	}
	c := ast.NewCompiler().WithDefaultRegoVersion(ast.RegoV1)
	c.Compile(modules)
	return c.Errors.Error()
}

func TestModulesThatDoNotParseAreAllNamed(t *testing.T) {
	src := source("package p\n\nx :=\n", "package p\n\ny := 1\n", "# nothing\n", "package q\n\nz {\n", "package r\n")
	src.Modules[4].Path = "1.rego"
	_, err := front.Compile(t.Context(), src)
	var unparsed front.Unparsed
	if !errors.As(err, &unparsed) {
		t.Fatalf("got %v", err)
	}
	var paths []string
	for _, m := range unparsed {
		paths = append(paths, m.Path)
	}
	if want := []string{"0.rego", "2.rego", "3.rego", "1.rego"}; !slices.Equal(paths, want) {
		t.Errorf("%v do not parse, want %v", paths, want)
	}
	for i, want := range []int{4, 0, 4} {
		var wrong ast.Errors
		if !errors.As(unparsed[i].Err, &wrong) || wrong[0].Location.Row != want {
			t.Errorf("%s: %v", paths[i], unparsed[i].Err)
		}
	}
	if !errors.Is(err, front.ErrTwice) {
		t.Errorf("that two files have one path is not said: %v", err)
	}
}

func TestACheckSeesTheModulesAndStopsThem(t *testing.T) {
	src := source("package p\n\nx := 1\n")
	refused := errors.New("no")
	src.Check = func(modules map[string]*ast.Module) error {
		if len(modules) != 1 || len(modules["0.rego"].Rules) != 1 {
			t.Errorf("it sees %v", modules)
		}
		return refused
	}
	if _, err := front.Compile(t.Context(), src); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
}

func TestWorkStopsWhenItsContextEnds(t *testing.T) {
	gone := errors.New("the caller is gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	src := source("package p\n\nx := 1\n")
	compiled, err := front.Compile(ctx, src)
	if err != nil {
		t.Fatal(err)
	}
	src.Check = func(map[string]*ast.Module) error {
		cancel(gone)
		return nil
	}
	if _, err := front.Compile(ctx, src); !errors.Is(err, gone) {
		t.Errorf("compiling between two stages: %v", err)
	}
	if _, err := front.Compile(ctx, source("package p\n")); !errors.Is(err, gone) {
		t.Errorf("parsing: %v", err)
	}
	if _, err := compiled.Plan(ctx, "x = data.p.x"); !errors.Is(err, gone) {
		t.Errorf("planning: %v", err)
	}
}

func TestAQueryThatIsWrongIsReported(t *testing.T) {
	compiled, err := front.Compile(t.Context(), source("package p\n\nx := 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{"x =", "y > 1", "nope(1)", ""} {
		var wrong ast.Errors
		if _, err := compiled.Plan(t.Context(), query); !errors.As(err, &wrong) {
			t.Errorf("%q: %v", query, err)
		}
	}
}

// A query may state something without asking for its value, which then has to be
// defined and not false.
func TestWhatAQueryStatesMustHold(t *testing.T) {
	compiled, err := front.Compile(t.Context(), source("package p\n\nt := 1\n\nf := false\n\ng(x) := x == 1\n\ns := {3, 4}\n"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := value.ParseData([]byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]string{
		"x = 1; data.p.t":                             `[{"x": 1}]`,
		"x = 1; data.p.f":                             `[]`,
		"x = 1; data.p.undefined":                     `[]`,
		"x = 1; data.p.g(1)":                          `[{"x": 1}]`,
		"x = 1; data.p.g(2)":                          `[]`,
		"x = 1; 2 > 1":                                `[{"x": 1}]`,
		"x = 1; 1 > 2":                                `[]`,
		"x = 1; not 1 > 2":                            `[{"x": 1}]`,
		"data.p.s[x]; x > 3":                          `[{"x": 4}]`,
		"x = 1; input.a with input as {\"a\": false}": `[]`,
		"x = 1; input.a with input as {\"a\": 0}":     `[{"x": 1}]`,
		"x := 1; y = data.p.f":                        `[{"x": 1, "y": false}]`,
		"x = 1; every y in [1] { y }":                 `[{"x": 1}]`,
	} {
		plan, err := compiled.Plan(t.Context(), query)
		if err != nil {
			t.Errorf("%s: %v", query, err)
			continue
		}
		program, err := evaluator.Compile(t.Context(), plan.Policy, evaluator.Options{
			Data: data, Strict: true, Functions: compiled.Functions(), Find: builtin.Find, Host: suite.Host,
		})
		if err != nil {
			t.Fatal(err)
		}
		results, err := program.Query(t.Context(), value.Value{}, budget.Limits{})
		if got := fmt.Sprint(results); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", query, got, err, want)
		}
	}
}

func TestOnlyForTopdownRulesHaveAnIndex(t *testing.T) {
	for _, topdown := range []bool{false, true} {
		src := source("package p\n\nx if input.a == 1\n")
		src.Topdown = topdown
		compiled, err := front.Compile(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		if index := compiled.Compiler().RuleIndex(ast.MustParseRef("data.p.x")); (index != nil) != topdown {
			t.Errorf("Topdown: %v, index %v", topdown, index)
		}
	}
}

// Compilations and plans that run at the same time do not get each other's.
func TestPlansDoNotMix(t *testing.T) {
	shared, err := front.Compile(t.Context(), source("package p\n\nx := 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	caps := ast.CapabilitiesForThisVersion()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 20 {
				mark := fmt.Sprintf("mark-%d-%d", i, j)
				src := source(fmt.Sprintf("package p\n\nx := %q if { count(input.x) == 1; some y in input.z; y == %q }\n", mark, mark))
				src.Capabilities = caps
				own, err := front.Compile(t.Context(), src)
				if err != nil {
					t.Error(err)
					return
				}
				for compiled, query := range map[*front.Compiled]string{own: "x = data.p.x", shared: fmt.Sprintf("x = %q", mark)} {
					plan, err := compiled.Plan(t.Context(), query)
					if err != nil {
						t.Error(err)
						return
					}
					marks := 0
					for _, s := range plan.Policy.Static.Strings {
						if strings.HasPrefix(s.Value, "mark-") {
							marks++
						}
						if strings.HasPrefix(s.Value, "mark-") && s.Value != mark {
							t.Errorf("the plan of %s has %s in it", mark, s.Value)
						}
					}
					if marks != 1 {
						t.Errorf("%d marks in the plan of %s", marks, mark)
					}
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkActivate compiles and plans 10,000 rules of two comparisons.
func BenchmarkActivate(b *testing.B) {
	src := source("package authz\n\n" + each(10_000, "allow if {\n\tinput.action.name == \"a%[1]d\"\n\tinput.resource.id == \"r%[1]d\"\n}\n\n"))
	b.ReportAllocs()
	for b.Loop() {
		compiled, err := front.Compile(b.Context(), src)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := compiled.Plan(b.Context(), "allow = [x | x := data.authz.allow]; deny = [x | x := data.authz.deny]"); err != nil {
			b.Fatal(err)
		}
	}
}
