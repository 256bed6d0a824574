package front

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/util"
)

// Test is a rule that OPA's tester takes for a test.
type Test struct {
	// Package is the path of its package, "data.authz_test", and Name what the
	// rule is called there, "test_allow". Where one name has several rules, those
	// after the first, by place, are numbered: "test_allow#01".
	Package, Name string
	// Query is the path of the rule.
	Query string
	// Place of the rule.
	Place *ast.Location
	// Function is set if the rule takes arguments, so that it has no value.
	Function bool
	// Skipped is set if the name says that the test is not to be run.
	Skipped bool
	// Cases is set if the test is an object with an outcome for each of its cases.
	Cases bool
	// Places are where a run of the test may come to, by their numbers. What
	// stands further down has the higher number.
	Places map[int64]*ast.Location
}

// Tests returns the tests of modules that were compiled as [Source.Tests], sorted
// by module.
func (c *Compiled) Tests() []Test {
	var tests []Test
	for module, rule := range testRules(c.compiler) {
		ref, name := testRef(rule)
		t := Test{
			Package: module.Package.Path.String(), Name: ref.String(), Query: module.Package.Path.Extend(ref).String(),
			Place: rule.Loc(), Function: len(rule.Head.Args) > 0, Skipped: strings.HasPrefix(name, tester.SkipTestPrefix),
			Cases: rule.Head.DocKind() == ast.PartialObjectDoc, Places: map[int64]*ast.Location{},
		}
		for ; rule != nil; rule = rule.Else {
			for _, e := range rule.Body {
				if n, ok := placeOf(e); ok {
					t.Places[n] = e.Location
				}
			}
		}
		tests = append(tests, t)
	}
	return tests
}

// IsTest reports whether OPA's tester takes a rule for a test.
func IsTest(rule *ast.Rule) bool {
	ref, _ := testRef(rule)
	return ref != nil
}

// testRules yields the rules that are tests, sorted by module, with their modules.
func testRules(compiler *ast.Compiler) func(yield func(*ast.Module, *ast.Rule) bool) {
	return func(yield func(*ast.Module, *ast.Rule) bool) {
		for _, path := range util.KeysSorted(compiler.Modules) {
			module := compiler.Modules[path]
			for _, rule := range module.Rules {
				if ref, _ := testRef(rule); ref != nil && !yield(module, rule) {
					return
				}
			}
		}
	}
}

// testRef returns the part of a rule's name that makes the rule a test, to the
// end of the name that does; nil if none does.
func testRef(rule *ast.Rule) (ref ast.Ref, name string) {
	ref = rule.Head.Ref().GroundPrefix()
	for i, part := range ref {
		switch v := part.Value.(type) {
		case ast.Var:
			name = string(v)
		case ast.String:
			name = string(v)
		}
		if strings.HasPrefix(name, tester.TestPrefix) || strings.HasPrefix(name, tester.SkipTestPrefix) {
			return ref[:i+1], name
		}
	}
	return nil, ""
}

// prepareTests lets a compiler treat tests as OPA's tester does. It tells rules
// with one name apart, keeps print, and lets a test with cases say which one it
// has come to. Besides, it lets a test say how far it has come.
func prepareTests(ctx context.Context, compiler *ast.Compiler) error {
	compiler.WithEnablePrintStatements(true).
		WithStageAfterID(ast.StageRewriteRuleHeadRefs, ast.CompilerStageDefinition{Name: "NumberTests", Stage: numberTests}).
		WithStageAfterID(ast.StageRewriteLocalVars, ast.CompilerStageDefinition{Name: "LimitCases", Stage: limitCases}).
		// When bodies are in their last order, and types are checked, which would
		// refuse the number.
		WithStageAfterID(ast.StageCheckTypes, ast.CompilerStageDefinition{Name: "MarkPlaces", Stage: markPlaces})
	// The tester adds its own stages to the compiler that it is given, and then
	// runs the tests of its modules. There are none yet.
	results, err := tester.NewRunner().SetCompiler(compiler).RunTests(ctx, nil)
	if err != nil {
		return fmt.Errorf("prepare the compiler for tests: %w", err)
	}
	for range results {
		err = errors.New("prepare the compiler for tests: OPA's tester runs them")
	}
	return err
}

// numberTests does what the tester would do next, which goes through the modules
// in no order, and numbers differently each time.
func numberTests(compiler *ast.Compiler) *ast.Error {
	count := map[string]int{}
	for module, rule := range testRules(compiler) {
		ref, name := testRef(rule)
		if strings.HasPrefix(name, tester.SkipTestPrefix) {
			continue
		}
		key := module.Package.Path.Extend(ref).String()
		if n := count[key]; n > 0 {
			whole, last := rule.Head.Ref().Copy(), len(ref)-1
			if numbered := fmt.Sprintf("%s#%02d", name, n); last == 0 {
				whole[last] = ast.VarTerm(numbered)
			} else {
				whole[last] = ast.StringTerm(numbered)
			}
			rule.Head.SetRef(whole)
		}
		count[key]++
	}
	return nil
}

// mostCaseLookups is how many variables the tester may look at, to find out where
// a test knows the names of its cases: it goes through the body for each name.
const mostCaseLookups = 2_000_000

// limitCases stops before the tester, which nothing can interrupt.
func limitCases(compiler *ast.Compiler) *ast.Error {
	left := mostCaseLookups
	for _, rule := range testRules(compiler) {
		ref, _ := testRef(rule)
		names, vars := len(rule.Head.Ref())-len(ref), 1
		if names == 0 {
			continue
		}
		ast.WalkVars(rule.Body, func(ast.Var) bool {
			vars++
			return false
		})
		if left -= names * vars; left < 0 {
			return ast.NewError(ast.CompileErr, rule.Loc(), "a case with %d names in a body of %d variables would take too long to compile: give a case fewer names", names, vars)
		}
	}
	return nil
}

// markPlaces puts a call before every expression of a test's body that tells the
// number of the place.
func markPlaces(compiler *ast.Compiler) *ast.Error {
	next := 0
	for _, rule := range testRules(compiler) {
		for ; rule != nil; rule = rule.Else {
			var marked ast.Body
			var last *ast.Location
			for _, e := range rule.Body {
				at := e.BaseCogeneratedExpr().Location
				if isTestCase(e) {
					last = nil // a case begins, whatever comes next
				} else if at != nil && at != last {
					mark := ast.NewExpr([]*ast.Term{ast.NewTerm(ast.InternalTestCase.Ref()), ast.InternedTerm(next)})
					mark.Location = at
					marked.Append(mark)
					last = at
					next++
				}
				marked.Append(e)
			}
			rule.Body = marked
		}
	}
	return nil
}

func isTestCase(e *ast.Expr) bool {
	return e.IsCall() && e.Operator().Equal(ast.InternalTestCase.Ref())
}

// placeOf returns the number in a call of markPlaces's.
func placeOf(e *ast.Expr) (int64, bool) {
	if !isTestCase(e) {
		return 0, false
	}
	n, ok := e.Operand(0).Value.(ast.Number)
	if !ok {
		return 0, false
	}
	return n.Int64()
}
