package rego

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"

	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/exec"
	"github.com/microwall/microwall/policy/rego/internal/value"
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

// Options of a [Program]. The zero value has the defaults. What an evaluation
// needs more of than it may is an error of kind policy.Failed.
type Options struct {
	// Budget is how long one evaluation may take. Zero is one second.
	Budget time.Duration
	// Steps is how many statements and elements one evaluation may look at; one
	// takes some ten nanoseconds. Zero is 20 million.
	Steps int64
	// Bytes is how much one evaluation may build. Zero is 256 MiB.
	Bytes int64
}

func (o Options) limits() budget.Limits {
	return budget.Limits{Time: cmp.Or(o.Budget, time.Second), Steps: cmp.Or(o.Steps, 20_000_000), Bytes: cmp.Or(o.Bytes, 256<<20)}
}

// query asks for the rules that answer. A comprehension turns "undefined" into an
// empty array, so that the query always has one result.
const query = "allow = [x | x := data.authz.allow]; deny = [x | x := data.authz.deny]; reasons = [x | x := data.authz.reasons]; obligations = [x | x := data.authz.obligations]"

// Compile checks a bundle's policy and returns it ready to be evaluated. If the
// policy does not compile, the error is [Problems].
func Compile(ctx context.Context, src Source, o Options) (*Program, error) {
	c, err := compile(src.Modules, src.Data)
	if err != nil {
		return nil, err
	}
	planned, err := plan(ctx, c.compiler, query)
	if err != nil {
		return nil, err
	}
	p := &Program{limits: o.limits(), readsTime: readsTime(c.compiler.Modules)}
	p.exec, err = exec.Compile(planned, exec.Options{
		Data: c.data.Value(), Packed: c.data, Strict: true, Answers: answers, Functions: functions(c.compiler.Modules), Find: builtin.Find,
	})
	if err != nil {
		return nil, fmt.Errorf("compile the plan: %w", err)
	}
	return p, nil
}

// functions returns the paths of functions.
func functions(modules map[string]*ast.Module) map[string]bool {
	paths := map[string]bool{}
	for _, m := range modules {
		for _, rule := range m.Rules {
			if len(rule.Head.Args) > 0 {
				paths[rule.Ref().String()] = true
			}
		}
	}
	return paths
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
	data     *value.Data
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
	packed, err := packData(data)
	if err != nil {
		problems = append(problems, Problem{File: "data.json", Message: err.Error()})
	}
	if len(problems) > 0 {
		return nil, problems.err()
	}
	checkShapes(parsed, &problems)
	checkData(parsed, packed.Value(), &problems)
	checkHost(parsed, &problems)

	compiler := ast.NewCompiler().WithCapabilities(caps).WithDefaultRegoVersion(ast.RegoV1).SetErrorLimit(0)
	compiler.Compile(parsed)
	if compiler.Failed() {
		problems.addAST("", compiler.Errors)
	}
	if err := problems.err(); err != nil {
		return nil, err
	}
	return &compiled{compiler: compiler, data: packed}, nil
}

func packData(data []byte) (*value.Data, error) {
	root, err := parseData(data)
	if err != nil {
		return nil, err
	}
	return value.Pack(value.FromPolicy(policy.ValueOf(root)))
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

