package reference_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/test/cases"
	"github.com/open-policy-agent/opa/v1/test/cases/testdata"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/types"
	"github.com/open-policy-agent/opa/v1/util"

	"github.com/microwall/microwall/policy/rego/internal/reference"
)

func compile(t *testing.T, module string) *ast.Compiler {
	t.Helper()
	c, err := ast.CompileModules(map[string]string{"authz.rego": module})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func query(t *testing.T, module, text string) *reference.Query {
	t.Helper()
	q, err := reference.New(compile(t, module), nil, ast.MustParseBody(text))
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestAFailedCallIsAnErrorWhateverTheOrderOfRules(t *testing.T) {
	for name, module := range map[string]string{
		"a rule that holds before": `package authz
			allow if input.a == 1
			allow if startswith(input.a, "x")`,
		"a rule that holds behind": `package authz
			allow if startswith(input.a, "x")
			allow if input.a == 1`,
		"an index that would hide it": `package authz
			allow if input.a == 1
			allow if { startswith(input.a, "x"); input.b == 2 }`,
	} {
		t.Run(name, func(t *testing.T) {
			q := query(t, module, "x := data.authz.allow")
			r, err := q.Eval(t.Context(), ast.MustParseTerm(`{"a": 1}`).Value, reference.Mode{})
			if reference.Code(err) != "eval_type_error" || !strings.Contains(err.Error(), "authz.rego:") || len(r.Bindings) > 0 {
				t.Errorf("%v, %v", r.Bindings, err)
			}
			if len(r.Failures) != 1 || !errors.Is(r.Failures[0], err) {
				t.Errorf("failures %v", r.Failures)
			}
			r, err = q.Eval(t.Context(), ast.MustParseTerm(`{"a": 1}`).Value, reference.Mode{Lenient: true})
			if err != nil || len(r.Bindings) != 1 || r.Bindings[0]["x"].Compare(ast.Boolean(true)) != 0 {
				t.Errorf("lenient: %v, %v", r.Bindings, err)
			}
		})
	}
}

func TestSolutionsHaveTheNamesOfTheQuery(t *testing.T) {
	r, err := query(t, "package authz", `some i; x := [3, 4][i]; _ = 1`).Eval(t.Context(), nil, reference.Mode{})
	if err != nil || len(r.Bindings) != 2 {
		t.Fatal(r, err)
	}
	for i, b := range r.Bindings {
		if len(b) != 2 || b["i"].String() != strconv.Itoa(i) || b["x"].String() != strconv.Itoa(i+3) {
			t.Errorf("solution %d: %v", i, b)
		}
	}
}

func TestAConflictIsAnErrorWithItsPlace(t *testing.T) {
	_, err := query(t, "package authz\nx := 1\nx := 2", "data.authz.x").Eval(t.Context(), nil, reference.Mode{Lenient: true})
	if want := "authz.rego:3: eval_conflict_error: rule data.authz.x produced conflicting values"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Error(err)
	}
}

func TestAnEndedContextEndsAnEvaluation(t *testing.T) {
	q := query(t, "package authz", "numbers.range(1, 3000)[_] + numbers.range(1, 3000)[_] + numbers.range(1, 3000)[_] == -1")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := q.Eval(ctx, nil, reference.Mode{})
	if reference.Code(err) != "eval_cancel_error" || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
}

// atCall ends a context when a built-in is about to be called.
type atCall struct {
	builtin string
	end     context.CancelFunc
}

func (atCall) Enabled() bool               { return true }
func (atCall) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

func (a atCall) TraceEvent(e topdown.Event) {
	if call, ok := e.Node.(*ast.Expr); ok && e.Op == topdown.EvalOp && call.IsCall() && call.Operator().String() == a.builtin {
		a.end()
	}
}

// OPA's own built-ins notice the end as well, and say so in other words.
func TestAnEndedContextEndsACall(t *testing.T) {
	for builtin, call := range map[string]string{
		"numbers.range":   "numbers.range(1, 1000000000000)",
		"net.cidr_expand": `net.cidr_expand("10.0.0.0/8")`,
	} {
		t.Run(builtin, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r, err := query(t, "package authz", "count("+call+") == 0").Eval(ctx, nil, reference.Mode{Tracer: atCall{builtin, cancel}})
			if reference.Code(err) != "eval_cancel_error" || !strings.Contains(err.Error(), builtin) || !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			if n := len(r.Failures); n == 0 || !errors.Is(r.Failures[n-1], context.Canceled) {
				t.Errorf("failures %v", r.Failures)
			}
		})
	}
}

func TestAPanicOfOPAIsAnError(t *testing.T) {
	b := &ast.Builtin{Name: "test.panic", Decl: types.NewFunction(types.Args(types.A), types.A)}
	ast.RegisterBuiltin(b)
	topdown.RegisterBuiltinFunc(b.Name, func(topdown.BuiltinContext, []*ast.Term, func(*ast.Term) error) error { panic("boom") })
	_, err := query(t, "package authz", "test.panic(1, x)").Eval(t.Context(), nil, reference.Mode{})
	if crash, ok := errors.AsType[*reference.Crash](err); !ok || crash.Cause != "boom" || len(crash.Stack) == 0 {
		t.Error(err)
	}
}

func TestAQueryThatDoesNotCompileIsAnError(t *testing.T) {
	_, err := reference.New(compile(t, "package authz"), nil, ast.MustParseBody("x == 1"))
	if err == nil || !strings.Contains(err.Error(), "unsafe") {
		t.Error(err)
	}
}

// The reference is OPA: without index and early exit it answers its conformance
// suite as OPA does with them.
func TestConformanceSuite(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of cases")
	}
	sleep := &ast.Builtin{Name: "test.sleep", Decl: types.NewFunction(types.Args(types.S), types.NewNull())}
	ast.RegisterBuiltin(sleep)
	topdown.RegisterBuiltinFunc(sleep.Name, func(_ topdown.BuiltinContext, _ []*ast.Term, iter func(*ast.Term) error) error {
		return iter(ast.NullTerm())
	})
	count := 0
	err := fs.WalkDir(testdata.V1, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		file, err := testdata.V1.ReadFile(path)
		if err != nil {
			return err
		}
		var set cases.Set
		if err := util.Unmarshal(file, &set); err != nil {
			return err
		}
		for _, c := range set.Cases {
			count++
			t.Run(c.Note, func(t *testing.T) { conforms(t, c) })
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if count < 2000 {
		t.Errorf("the suite has %d cases only", count)
	}
}

func conforms(t *testing.T, c cases.TestCase) {
	for name, value := range c.Env {
		t.Setenv(name, value)
	}
	o := ast.ParserOptions{RegoVersion: ast.RegoV1}
	if c.ExperimentalKeywords {
		o.Capabilities = ast.CapabilitiesForThisVersion(ast.CapabilitiesExperimentalKeywords(true))
	}
	modules := map[string]string{}
	for i, m := range c.Modules {
		modules["test-"+strconv.Itoa(i)+".rego"] = m
	}
	compiler, err := ast.CompileModulesWithOpt(modules, ast.CompileOpts{ParserOptions: o})
	if err != nil {
		t.Fatal(err)
	}
	var data map[string]any
	if c.Data != nil {
		data = *c.Data
	}
	q, err := reference.New(compiler, data, ast.MustParseBody(c.Query))
	if err != nil {
		t.Fatal(err)
	}
	var input ast.Value
	switch {
	case c.InputTerm != nil:
		input = ast.MustParseTerm(*c.InputTerm).Value
	case c.Input != nil:
		input = ast.MustInterfaceToValue(*c.Input)
	}
	r, err := q.Eval(t.Context(), input, reference.Mode{Lenient: !c.StrictError})
	if c.WantErrorCode != nil && reference.Code(err) != *c.WantErrorCode {
		t.Errorf("want code %s, got %v", *c.WantErrorCode, err)
	}
	if c.WantError != nil && (err == nil || !strings.Contains(err.Error(), *c.WantError)) {
		t.Errorf("want %s, got %v", *c.WantError, err)
	}
	if err != nil && c.WantErrorCode == nil && c.WantError == nil {
		t.Error(err)
	}
	if c.WantResult != nil && err == nil {
		want := make([]map[ast.Var]ast.Value, len(*c.WantResult))
		for i, bindings := range *c.WantResult {
			want[i] = make(map[ast.Var]ast.Value)
			for name, v := range bindings {
				want[i][ast.Var(name)] = ast.MustInterfaceToValue(v)
			}
		}
		if got, want := solutions(t, c, r.Bindings), solutions(t, c, want); got.Compare(want) != 0 {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

// solutions are the set of solutions as JSON, as the suite compares them.
func solutions(t *testing.T, c cases.TestCase, all []map[ast.Var]ast.Value) ast.Set {
	t.Helper()
	set := ast.NewSet()
	for _, bindings := range all {
		o := ast.NewObject()
		for name, v := range bindings {
			plain, err := ast.JSON(v)
			if err != nil {
				t.Fatal(err)
			}
			if list, ok := plain.([]any); ok && c.SortBindings {
				slices.SortFunc(list, util.Compare)
			}
			o.Insert(ast.StringTerm(string(name)), ast.NewTerm(ast.MustInterfaceToValue(plain)))
		}
		set.Add(ast.NewTerm(o))
	}
	return set
}
