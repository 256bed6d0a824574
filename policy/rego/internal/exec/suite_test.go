package exec_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/test/cases"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"
	"github.com/open-policy-agent/opa/v1/types"
	"github.com/open-policy-agent/opa/v1/util"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/convert"
	evaluator "github.com/microwall/microwall/policy/rego/internal/exec"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

type planner struct{ plan *ir.Policy }

func (p *planner) IsTarget(t string) bool { return t == "suite" }
func (p *planner) PrepareForEval(_ context.Context, plan *ir.Policy, _ ...rego.PrepareOption) (rego.TargetPluginEval, error) {
	p.plan = plan
	return nil, nil
}

var thePlanner = &planner{}

func init() {
	rego.RegisterPlugin("suite", thePlanner)
	topdown.RegisterBuiltinFunc("test.sleep", func(_ topdown.BuiltinContext, operands []*ast.Term, iter func(*ast.Term) error) error {
		d, _ := time.ParseDuration(string(operands[0].Value.(ast.String)))
		time.Sleep(d)
		return iter(ast.NullTerm())
	})
	ast.RegisterBuiltin(&ast.Builtin{Name: "test.sleep", Decl: types.NewFunction(types.Args(types.S), types.NewNull())})
}

var dump = flag.Bool("suite.dump", false, "print plans")

func suite(t testing.TB, version string) []cases.TestCase {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/open-policy-agent/opa").Output()
	if err != nil {
		t.Fatal(err)
	}
	return cases.MustLoad(filepath.Join(strings.TrimSpace(string(out)), "v1/test/cases/testdata", version)).Sorted().Cases
}

func TestSuite(t *testing.T) {
	unplanned := 0
	for version, rv := range map[string]ast.RegoVersion{"v0": ast.RegoV0, "v1": ast.RegoV1} {
		for _, tc := range suite(t, version) {
			t.Run(version+"/"+tc.Note, func(t *testing.T) {
				if !run(t, tc, rv) {
					unplanned++
				}
			})
		}
	}
	t.Log("unplanned:", unplanned)
}

func run(t *testing.T, tc cases.TestCase, rv ast.RegoVersion) bool {
	for k, v := range tc.Env {
		t.Setenv(k, v)
	}
	po := ast.ParserOptions{RegoVersion: rv}
	if tc.ExperimentalKeywords {
		po.Capabilities = ast.CapabilitiesForThisVersion(ast.CapabilitiesExperimentalKeywords(true))
	}
	modules := map[string]string{}
	for i, m := range tc.Modules {
		modules[fmt.Sprintf("test-%d.rego", i)] = m
	}
	compiler := ast.MustCompileModulesWithOpts(modules, ast.CompileOpts{ParserOptions: po})
	_, err := rego.New(rego.ParsedQuery(ast.MustParseBody(tc.Query)), rego.Compiler(compiler), rego.Target("suite")).PrepareForEval(t.Context())
	if err != nil {
		t.Log("not planned:", err)
		return false
	}
	plan := thePlanner.plan
	if *dump {
		ir.Pretty(os.Stderr, plan)
	}
	data := value.NewObject(0)
	if tc.Data != nil {
		v, err := ast.InterfaceToValue(*tc.Data)
		if err != nil {
			t.Fatal(err)
		}
		if data, err = convert.FromAST(v); err != nil {
			t.Fatal(err)
		}
	}
	var input value.Value
	if tc.InputTerm != nil {
		input, err = convert.FromAST(ast.MustParseTerm(*tc.InputTerm).Value)
	} else if tc.Input != nil {
		input, err = convert.FromAST(ast.MustInterfaceToValue(*tc.Input))
	}
	if err != nil {
		t.Fatal(err)
	}
	functions := map[string]bool{}
	for _, m := range compiler.Modules {
		for _, r := range m.Rules {
			if len(r.Head.Args) > 0 {
				functions[r.Ref().String()] = true
			}
		}
	}
	program, err := evaluator.Compile(plan, evaluator.Options{
		Data: data, Strict: tc.StrictError, Find: builtin.Find,
		Functions: functions,
		Host: func(ctx context.Context) *topdown.BuiltinContext {
			return &topdown.BuiltinContext{
				Context: ctx, Cancel: topdown.NewCancel(), Cache: builtins.Cache{}, Seed: rand.Reader,
				Time: ast.NumberTerm(json.Number(strconv.FormatInt(time.Now().UnixNano(), 10))),
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	results, err := program.Query(t.Context(), input, budget.Limits{})
	if tc.WantError != nil && (err == nil || !strings.Contains(err.Error(), *tc.WantError)) {
		t.Fatalf("want error %q, got %v", *tc.WantError, err)
	}
	if tc.WantErrorCode != nil {
		var e *evaluator.Error
		if !errors.As(err, &e) || e.Code != *tc.WantErrorCode {
			t.Fatalf("want code %s, got %v", *tc.WantErrorCode, err)
		}
	}
	if tc.WantError != nil || tc.WantErrorCode != nil {
		return true
	}
	if err != nil {
		t.Fatal(err)
	}
	if tc.WantResult != nil {
		want, got := ast.NewSet(), ast.NewSet()
		for _, b := range *tc.WantResult {
			o := ast.NewObject()
			for k, v := range b {
				o.Insert(ast.StringTerm(k), ast.NewTerm(ast.MustInterfaceToValue(v)))
			}
			want.Add(ast.NewTerm(o))
		}
		for _, r := range results {
			o := ast.NewObject()
			for k, v := range r.All() {
				j, err := ast.JSON(convert.ToAST(v))
				if err != nil {
					t.Fatal(err)
				}
				if tc.SortBindings {
					slices.SortFunc(j.([]any), util.Compare)
				}
				if !tc.IgnoreGeneratedVars || !strings.HasPrefix(k.Text(), "__localq") {
					o.Insert(ast.StringTerm(k.Text()), ast.NewTerm(ast.MustInterfaceToValue(j)))
				}
			}
			got.Add(ast.NewTerm(o))
		}
		if want.Compare(got) != 0 {
			t.Fatalf("want %v\n got %v", want, got)
		}
	}
	return true
}
