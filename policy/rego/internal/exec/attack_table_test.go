package exec_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/convert"
	"github.com/microwall/microwall/policy/rego/internal/exec"
	"github.com/microwall/microwall/policy/rego/internal/front"
	"github.com/microwall/microwall/policy/rego/internal/reference"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// attacked is a policy, for the native evaluator and for the reference.
type attacked struct {
	program *exec.Program
	query   *reference.Query
	text    string
}

// attack compiles modules, which are separated by lines of dashes.
func attack(t *testing.T, modules, data, query string) (*attacked, error) {
	t.Helper()
	if data == "" {
		data = "{}"
	}
	var list []front.Module
	for i, m := range strings.Split(modules, "\n---\n") {
		list = append(list, front.Module{Path: fmt.Sprintf("m%d.rego", i), Text: m})
	}
	compiled, err := front.Compile(t.Context(), front.Source{Modules: list, RegoVersion: ast.RegoV1, Topdown: true})
	if err != nil {
		return nil, fmt.Errorf("compile: %w", err)
	}
	plan, err := compiled.Plan(t.Context(), query)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	packed, err := value.ParseData([]byte(data))
	if err != nil {
		return nil, err
	}
	p, err := exec.Compile(t.Context(), plan.Policy, exec.Options{Data: packed, Strict: true, Functions: compiled.Functions(), Find: builtin.Find})
	if err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	var plain map[string]any
	d := json.NewDecoder(strings.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&plain); err != nil {
		return nil, err
	}
	q, err := reference.New(compiled.Compiler(), plain, ast.MustParseBody(query))
	if err != nil {
		return nil, err
	}
	return &attacked{program: p, query: q, text: modules}, nil
}

// compare returns how the native answer differs from the reference's, "" if it
// does not.
func (a *attacked) compare(t *testing.T, text string) (difference, answer string) {
	t.Helper()
	var input ast.Value
	var in value.Value
	if text != "" {
		input = ast.MustParseTerm(text).Value
		var err error
		if in, err = convert.FromAST(input); err != nil {
			t.Fatal(err)
		}
	}
	want, wantErr := a.query.Eval(t.Context(), input, reference.Mode{})
	got, gotErr := a.program.Query(t.Context(), in, budget.Limits{Time: 20 * time.Second, Steps: 50_000_000, Bytes: 1 << 30})
	if (wantErr == nil) != (gotErr == nil) {
		return fmt.Sprintf("want error %v, got %v (want %v, got %v)", wantErr, gotErr, want.Bindings, got), ""
	}
	if gotErr != nil {
		if reference.Code(wantErr) != code(gotErr) {
			return fmt.Sprintf("want error %v, got %v", wantErr, gotErr), ""
		}
		return "", "error: " + gotErr.Error()
	}
	wanted, have := ast.NewSet(), ast.NewSet()
	for _, solution := range want.Bindings {
		o := ast.NewObject()
		for k, v := range solution {
			o.Insert(ast.StringTerm(string(k)), ast.NewTerm(v))
		}
		wanted.Add(ast.NewTerm(o))
	}
	for _, r := range got {
		have.Add(convert.ToTerm(r))
	}
	if wanted.Compare(have) != 0 || wanted.String() != have.String() {
		return fmt.Sprintf("want %v, got %v", wanted, have), ""
	}
	return "", have.String()
}
