// Package suite has the cases of OPA's conformance suite, for tests: v0 and v1,
// as they come with the version of OPA that is linked.
package suite

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/test/cases"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"
	"github.com/open-policy-agent/opa/v1/types"

	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/convert"
	evaluator "github.com/microwall/microwall/policy/rego/internal/exec"
	"github.com/microwall/microwall/policy/rego/internal/front"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// Case is one case of the suite.
type Case struct {
	cases.TestCase
	// Name with the version in front: some cases are in both.
	Name    string
	Version ast.RegoVersion
}

// Cases returns all cases of both versions, sorted by name.
func Cases(t testing.TB) []Case {
	t.Helper()
	registerSleep()
	// The module has the cases of v0 as files only.
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/open-policy-agent/opa").Output()
	if err != nil {
		t.Fatalf("find OPA's module: %v", err)
	}
	var all []Case
	for name, version := range map[string]ast.RegoVersion{"v0": ast.RegoV0, "v1": ast.RegoV1} {
		set, err := cases.Load(filepath.Join(strings.TrimSpace(string(out)), "v1", "test", "cases", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range set.Cases {
			all = append(all, Case{TestCase: c, Name: name + "/" + c.Note, Version: version})
		}
	}
	slices.SortFunc(all, func(a, b Case) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// registerSleep adds the one built-in that only OPA's tests have.
var registerSleep = sync.OnceFunc(func() {
	ast.RegisterBuiltin(&ast.Builtin{Name: "test.sleep", Decl: types.NewFunction(types.Args(types.S), types.Nl)})
	topdown.RegisterBuiltinFunc("test.sleep", func(c topdown.BuiltinContext, operands []*ast.Term, iter func(*ast.Term) error) error {
		d, err := time.ParseDuration(string(operands[0].Value.(ast.String)))
		if err != nil {
			return err
		}
		select {
		case <-time.After(d):
			return iter(ast.NullTerm())
		case <-c.Context.Done():
			return c.Context.Err()
		}
	})
})

// Source returns the modules of the case.
func (c *Case) Source() front.Source {
	src := front.Source{RegoVersion: c.Version}
	if c.ExperimentalKeywords {
		src.Capabilities = ast.CapabilitiesForThisVersion(ast.CapabilitiesExperimentalKeywords(true))
	}
	for i, text := range c.Modules {
		src.Modules = append(src.Modules, front.Module{Path: fmt.Sprintf("test-%d.rego", i), Text: text})
	}
	return src
}

// DataMap returns the data, {} if the case has none.
func (c *Case) DataMap() map[string]any {
	if c.Data == nil {
		return map[string]any{}
	}
	return *c.Data
}

// InputValue returns the input, nil if the case has none.
func (c *Case) InputValue() ast.Value {
	switch {
	case c.InputTerm != nil:
		return ast.MustParseTerm(*c.InputTerm).Value
	case c.Input != nil:
		return ast.MustInterfaceToValue(*c.Input)
	}
	return nil
}

// Compile compiles the case for the native evaluator, as a policy is compiled,
// but with all of OPA's language.
func (c *Case) Compile(t testing.TB, strict bool) (compiled *front.Compiled, program *evaluator.Program, input value.Value) {
	t.Helper()
	compiled, err := front.Compile(t.Context(), c.Source())
	if err != nil {
		t.Fatal(err)
	}
	plan, err := compiled.Plan(t.Context(), c.Query)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := json.Marshal(c.DataMap())
	if err != nil {
		t.Fatal(err)
	}
	data, err := value.ParseData(encoded)
	if err != nil {
		t.Fatal(err)
	}
	program, err = evaluator.Compile(t.Context(), plan.Policy, evaluator.Options{
		Data: data, Strict: strict, Functions: compiled.Functions(), Find: builtin.Find, Host: Host,
	})
	if err != nil {
		t.Fatal(err)
	}
	if in := c.InputValue(); in != nil {
		if input, err = convert.FromAST(in); err != nil {
			t.Fatal(err)
		}
	}
	return compiled, program, input
}

// Host lets built-ins know what a policy does not: clock, chance and network.
func Host(ctx context.Context) *topdown.BuiltinContext {
	return &topdown.BuiltinContext{
		Context: ctx, Cancel: builtin.Cancel{Context: ctx}, Cache: builtins.Cache{}, Seed: rand.Reader,
		Time: ast.NumberTerm(json.Number(strconv.FormatInt(time.Now().UnixNano(), 10))),
	}
}
