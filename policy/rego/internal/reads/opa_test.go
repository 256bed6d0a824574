package reads_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/microwall/microwall/policy/rego/internal/reads"
)

func TestMain(m *testing.M) {
	rego.RegisterPlugin(target, planTarget{})
	os.Exit(m.Run())
}

// planTarget hands over the plan of a query instead of evaluating it.
type planTarget struct{}

const target = "reads-test"

type planKey struct{}

func (planTarget) IsTarget(name string) bool { return name == target }

func (planTarget) PrepareForEval(ctx context.Context, p *ir.Policy, _ ...rego.PrepareOption) (rego.TargetPluginEval, error) {
	*ctx.Value(planKey{}).(**ir.Policy) = p
	return nil, nil
}

// A question is a query over modules and data, as OPA plans and evaluates it.
type question struct {
	name     string
	query    string
	compiler *ast.Compiler
	store    storage.Store
	version  ast.RegoVersion
	lenient  bool // errors of built-ins make a call undefined

	prepared *rego.PreparedEvalQuery
}

func compile(modules []string, version ast.RegoVersion) (*ast.Compiler, error) {
	named := make(map[string]*ast.Module, len(modules))
	caps := ast.CapabilitiesForThisVersion(ast.CapabilitiesExperimentalKeywords(true))
	for i, source := range modules {
		name := fmt.Sprintf("m%d.rego", i)
		m, err := ast.ParseModuleWithOpts(name, source, ast.ParserOptions{RegoVersion: version, Capabilities: caps})
		if err != nil {
			return nil, err
		}
		named[name] = m
	}
	c := ast.NewCompiler().WithDefaultRegoVersion(version)
	if c.Compile(named); c.Failed() {
		return nil, c.Errors
	}
	return c, nil
}

func (q *question) options() []func(*rego.Rego) {
	if q.store == nil {
		q.store = inmem.New()
	}
	return []func(*rego.Rego){
		rego.Query(q.query), rego.Compiler(q.compiler), rego.Store(q.store),
		rego.SetRegoVersion(q.version), rego.StrictBuiltinErrors(!q.lenient),
	}
}

// plan returns OPA's plan of the question. Where OPA's planner refuses one, it
// sometimes panics.
func (q *question) plan(ctx context.Context) (p *ir.Policy, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("OPA's planner panics: %v", r)
		}
	}()
	_, err = rego.New(append(q.options(), rego.Target(target))...).PrepareForEval(context.WithValue(ctx, planKey{}, &p))
	return p, err
}

// failure is what an answer begins with that is an error.
const failure = "error "

// eval evaluates the question in topdown, without index and early exit, and
// returns its results, or its error with code and text.
func (q *question) eval(ctx context.Context, input ast.Value) (string, error) {
	if q.prepared == nil {
		prepared, err := rego.New(q.options()...).PrepareForEval(ctx)
		if err != nil {
			return "", err
		}
		q.prepared = &prepared
	}
	results, err := q.prepared.Eval(ctx, rego.EvalParsedInput(input), rego.EvalRuleIndexing(false), rego.EvalEarlyExit(false),
		rego.EvalTime(time.Unix(1_700_000_000, 0)), rego.EvalSeed(bytes.NewReader(make([]byte, 4096))), rego.EvalSortSets(true))
	if err != nil {
		if failed, ok := errors.AsType[*topdown.Error](err); ok {
			return failure + failed.Code + ": " + err.Error(), nil
		}
		return failure + err.Error(), nil
	}
	text, err := json.Marshal(results)
	return string(text), err
}

// ask compiles a question of the tests' own.
func ask(t testing.TB, query string, modules ...string) *question {
	t.Helper()
	c, err := compile(modules, ast.RegoV1)
	if err != nil {
		t.Fatal(err)
	}
	return &question{name: t.Name(), query: query, compiler: c, version: ast.RegoV1}
}

func setOf(t testing.TB, q *question) *reads.Set {
	t.Helper()
	p, err := q.plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return readsOf(p)
}

// readsOf returns the set of a plan, for which there is time.
func readsOf(p *ir.Policy) *reads.Set {
	set, err := reads.Of(context.Background(), p)
	if err != nil {
		panic(err)
	}
	return set
}
