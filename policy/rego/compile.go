package rego

import (
	"bytes"
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/util"

	"github.com/microwall/microwall/policy"
)

// Module is one Rego file.
type Module struct {
	// Path inside the bundle, for instance "authz.rego". It is where problems
	// are reported.
	Path string
	// Source text.
	Source []byte
}

// Source is what a bundle brings to be compiled.
type Source struct {
	// Modules of the policy, without its tests.
	Modules []Module
	// Tests are the modules that test it. They are compiled only by [Check]
	// and [Test].
	Tests []Module
	// Data is a JSON object; empty is {}.
	Data []byte
}

// Options of a [Program]. The zero value has the defaults.
type Options struct {
	// Budget is how long one evaluation may take. Zero is one second. What
	// takes longer is an error of kind policy.Failed.
	Budget time.Duration
}

const defaultBudget = time.Second

// The rules that answer, and the queries for them. A comprehension turns
// "undefined" into an empty array, so that a query always has one result.
const (
	queryAll       = "allow = [x | x := data.authz.allow]; deny = [x | x := data.authz.deny]; reasons = [x | x := data.authz.reasons]; obligations = [x | x := data.authz.obligations]"
	queryGuardrail = "deny = [x | x := data.authz.deny]; obligations = [x | x := data.authz.obligations]"
)

// Compile checks a bundle's policy and returns it ready to be evaluated. If the
// policy does not compile, the error is [Problems].
func Compile(ctx context.Context, src Source, o Options) (*Program, error) {
	c, err := compile(src.Modules, src.Data)
	if err != nil {
		return nil, err
	}
	if o.Budget == 0 {
		o.Budget = defaultBudget
	}
	p := &Program{budget: o.Budget, readsTime: readsTime(c.compiler.Modules)}
	if p.all, err = c.prepare(ctx, queryAll); err != nil {
		return nil, err
	}
	if p.guardrail, err = c.prepare(ctx, queryGuardrail); err != nil {
		return nil, err
	}
	return p, nil
}

// Check reports every problem of a policy and of its tests as [Problems], nil
// if it has none.
func Check(src Source) error {
	if _, err := compile(src.Modules, src.Data); err != nil {
		return err
	}
	if len(src.Tests) == 0 {
		return nil
	}
	_, err := compile(slices.Concat(src.Modules, src.Tests), src.Data)
	return err
}

type compiled struct {
	compiler *ast.Compiler
	store    storage.Store
}

// compile parses and compiles modules under the hermetic profile.
func compile(modules []Module, data []byte) (c *compiled, err error) {
	// Source from a stranger must not be able to end the process.
	defer func() {
		if r := recover(); r != nil {
			c, err = nil, &policy.Error{
				Kind: policy.BadRequest, Message: fmt.Sprintf("policy crashed the compiler: %v", r), Err: fmt.Errorf("panic: %v\n%s", r, debug.Stack()),
			}
		}
	}()
	caps, err := language()
	if err != nil {
		return nil, err
	}
	var problems Problems
	parsed := make(map[string]*ast.Module, len(modules))
	for _, m := range modules {
		mod, err := ast.ParseModuleWithOpts(m.Path, string(m.Source), ast.ParserOptions{
			Capabilities: caps, RegoVersion: ast.RegoV1, ProcessAnnotation: true,
		})
		switch {
		case err != nil:
			problems.addAST(m.Path, err)
		case mod == nil:
			problems = append(problems, Problem{File: m.Path, Message: "file is empty; it needs a package"})
		default:
			parsed[m.Path] = mod
		}
	}
	root, err := parseData(data)
	if err != nil {
		problems = append(problems, Problem{File: "data.json", Message: err.Error()})
	}
	if len(problems) > 0 {
		return nil, problems.err()
	}
	checkShapes(parsed, &problems)
	checkData(parsed, root, &problems)
	checkHost(parsed, &problems)

	compiler := ast.NewCompiler().WithCapabilities(caps).WithDefaultRegoVersion(ast.RegoV1).SetErrorLimit(0)
	compiler.Compile(parsed)
	if compiler.Failed() {
		problems.addAST("", compiler.Errors)
	}
	if err := problems.err(); err != nil {
		return nil, err
	}
	// The store is written here and never again: a program is immutable.
	store := inmem.NewFromObjectWithOpts(root, inmem.OptRoundTripOnWrite(false), inmem.OptReturnASTValuesOnRead(true))
	return &compiled{compiler: compiler, store: store}, nil
}

func parseData(data []byte) (map[string]any, error) {
	if len(data) == 0 {
		return map[string]any{}, nil
	}
	var root any
	if err := util.NewJSONDecoder(bytes.NewReader(data)).Decode(&root); err != nil {
		return nil, fmt.Errorf("is not JSON: %w", err)
	}
	object, ok := root.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("is not a JSON object")
	}
	return object, nil
}

func (c *compiled) prepare(ctx context.Context, query string) (rego.PreparedEvalQuery, error) {
	q, err := rego.New(
		rego.Query(query),
		rego.Compiler(c.compiler),
		rego.Store(c.store),
		rego.StrictBuiltinErrors(true),
		rego.SetRegoVersion(ast.RegoV1),
	).PrepareForEval(ctx)
	if err != nil {
		return q, fmt.Errorf("prepare the query for the rules of authz: %w", err)
	}
	return q, nil
}
