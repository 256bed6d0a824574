package front_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/differential"
	"github.com/microwall/microwall/policy/rego/internal/front"
)

func TestEveryCaseOfTheSuiteIsPlannedAsItWasRehearsed(t *testing.T) {
	cases, tried, all := cases(t), 0, 0
	for i := range part(len(cases)) {
		compiled, err := front.Compile(t.Context(), cases[i].Source())
		if err != nil {
			t.Errorf("%s: %v", cases[i].Name, err)
			continue
		}
		all += asRehearsed(t, cases[i].Name, compiled, cases[i].Query)
		tried++
	}
	t.Logf("%d of %d cases, %d statements", tried, len(cases), all)
	if len(cases) < 4400 {
		t.Errorf("%d cases are not the whole suite", len(cases))
	}
}

func TestGeneratedPoliciesArePlannedAsTheyWereRehearsed(t *testing.T) {
	all, unplannable := 0, 0
	for seed := range part(100) {
		c := differential.Generate(uint64(seed))
		src := front.Source{}
		for _, m := range c.Modules {
			src.Modules = append(src.Modules, front.Module{Path: m.Path, Text: m.Source})
		}
		compiled, err := front.Compile(t.Context(), src)
		if err != nil {
			t.Errorf("seed %d: %v", seed, err)
			continue
		}
		var not *front.Unplannable
		if _, err := compiled.Plan(t.Context(), "x = data"); errors.As(err, &not) {
			unplannable++
			if not.Line == 0 {
				t.Errorf("seed %d: no place where this cannot be planned: %v", seed, err)
			}
			continue
		}
		all += asRehearsed(t, c.Query, compiled, c.Query)
		all += asRehearsed(t, c.Query, compiled, "x = data")
	}
	t.Logf("%d statements; %d policies cannot be planned", all, unplannable)
	if unplannable > 3 {
		t.Errorf("%d of 100 policies cannot be planned", unplannable)
	}
}

func TestTheBoutiqueIsPlannedAsItWasRehearsed(t *testing.T) {
	files, err := filepath.Glob("../../../../examples/boutique/*/*.rego")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d policies of the boutique: %v", len(files), err)
	}
	folders := map[string]front.Source{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		src := folders[filepath.Dir(file)]
		src.Modules = append(src.Modules, front.Module{Path: filepath.Base(file), Text: string(text)})
		folders[filepath.Dir(file)] = src
	}
	for folder, src := range folders {
		compiled, err := front.Compile(t.Context(), src)
		if err != nil {
			t.Errorf("%s: %v", folder, err)
			continue
		}
		asRehearsed(t, folder, compiled, "allow = [x | x := data.authz.allow]; deny = [x | x := data.authz.deny]")
		asRehearsed(t, folder, compiled, "x = data")
	}
}

// asRehearsed plans a query, and compares what it was rehearsed to have with what
// it has.
func asRehearsed(t testing.TB, name string, compiled *front.Compiled, query string) int {
	t.Helper()
	plan, err := compiled.Plan(t.Context(), query)
	if err != nil {
		t.Errorf("%s: plan %s: %v", name, query, err)
		return 0
	}
	var c counter
	if err := ir.Walk(&c, plan.Policy); err != nil {
		t.Fatal(err)
	}
	if c.statements != plan.Statements {
		t.Errorf("%s: the plan of %s has %d statements, rehearsed %d", name, query, c.statements, plan.Statements)
	}
	return c.statements
}

type counter struct{ statements int }

func (*counter) Before(any) {}
func (*counter) After(any)  {}

func (c *counter) Visit(x any) (ir.Visitor, error) {
	if _, ok := x.(ir.Stmt); ok {
		c.statements++
	}
	return c, nil
}
