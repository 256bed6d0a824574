package reference

import (
	"maps"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Options of [Compile]. The zero value is OPA's whole language.
type Options struct {
	// Capabilities are the language; nil is all of OPA's.
	Capabilities *ast.Capabilities
	// Whole rewrites the modules so that evaluations skip nothing: every call
	// that stands in the way is made, whether it can change the answer or not.
	// Answers stay what they are; a module of its own stands beside the others.
	// Where OPA's compiler does not let that pass, less is rewritten.
	Whole bool
}

// Compile compiles Rego v1 for [New]. It leaves out OPA's index of
// comprehensions, which computes a comprehension for all keys at once, and so
// makes calls that nobody asked for. An error is OPA's, or a [Crash].
func Compile(modules map[string]*ast.Module, o Options) (c *ast.Compiler, err error) {
	defer catch(&err)
	if !o.Whole {
		return compile(modules, o, nil)
	}
	modules = maps.Clone(modules)
	modules[seenWhole] = ast.MustParseModuleWithOpts(wholeModule, ast.ParserOptions{RegoVersion: ast.RegoV1})
	for _, change := range []func(*ast.Compiler) *ast.Error{see, seeMost, seeRules} {
		if c, err = compile(modules, o, change); err == nil {
			break
		}
	}
	return c, err
}

func compile(modules map[string]*ast.Module, o Options, change func(*ast.Compiler) *ast.Error) (*ast.Compiler, error) {
	c := ast.NewCompiler().WithDefaultRegoVersion(ast.RegoV1).WithSkipStages(ast.StageBuildComprehensionIndices)
	if o.Capabilities != nil {
		c = c.WithCapabilities(o.Capabilities)
	}
	if change != nil {
		c = c.WithStageAfterID(ast.StageSetRuleTree, ast.CompilerStageDefinition{Name: seenWhole, MetricName: seenWhole, Stage: change})
	}
	if c.Compile(modules); c.Failed() {
		return nil, c.Errors
	}
	return c, nil
}
