package front_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
	"github.com/open-policy-agent/opa/v1/test/cases"
	"github.com/open-policy-agent/opa/v1/types"

	"github.com/microwall/microwall/policy/rego/internal/front"
)

func init() {
	ast.RegisterBuiltin(&ast.Builtin{Name: "test.sleep", Decl: types.NewFunction(types.Args(types.S), types.NewNull())})
}

// suite returns the cases of OPA's conformance suite for a version of Rego.
func suite(t testing.TB, version string) []cases.TestCase {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/open-policy-agent/opa").Output()
	if err != nil {
		t.Fatal(err)
	}
	set, err := cases.Load(filepath.Join(strings.TrimSpace(string(out)), "v1/test/cases/testdata", version))
	if err != nil {
		t.Fatal(err)
	}
	return set.Sorted().Cases
}

func sourceOf(tc cases.TestCase, version ast.RegoVersion) front.Source {
	src := front.Source{RegoVersion: version}
	if tc.ExperimentalKeywords {
		src.Capabilities = ast.CapabilitiesForThisVersion(ast.CapabilitiesExperimentalKeywords(true))
	}
	for i, text := range tc.Modules {
		src.Modules = append(src.Modules, front.Module{Path: fmt.Sprintf("test-%d.rego", i), Text: text})
	}
	return src
}

var versions = map[string]ast.RegoVersion{"v0": ast.RegoV0, "v1": ast.RegoV1}

func TestEveryCaseOfTheSuiteThatOPACanPlanIsPlanned(t *testing.T) {
	for name, version := range versions {
		planned := 0
		for _, tc := range suite(t, name) {
			compiled, err := front.Compile(t.Context(), sourceOf(tc, version))
			if err != nil {
				t.Errorf("%s %s: %v", name, tc.Note, err)
				continue
			}
			plan, err := compiled.Plan(t.Context(), tc.Query)
			if err != nil {
				t.Errorf("%s %s: %v", name, tc.Note, err)
				continue
			}
			if n := statements(t, plan.Policy); n != plan.Statements {
				t.Errorf("%s %s: %s has %d statements, rehearsed %d", name, tc.Note, tc.Filename, n, plan.Statements)
			}
			planned++
		}
		t.Logf("%s: %d planned", name, planned)
	}
}

// statements counts those of a plan.
func statements(t testing.TB, policy *ir.Policy) int {
	t.Helper()
	var c counter
	if err := ir.Walk(&c, policy); err != nil {
		t.Fatal(err)
	}
	return c.n
}

type counter struct{ n int }

func (*counter) Before(any) {}
func (*counter) After(any)  {}
func (c *counter) Visit(x any) (ir.Visitor, error) {
	if _, ok := x.(ir.Stmt); ok {
		c.n++
	}
	return c, nil
}
