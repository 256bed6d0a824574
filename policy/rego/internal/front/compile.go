package front

import (
	"cmp"
	"context"
	"errors"

	"github.com/open-policy-agent/opa/v1/ast"
)

// between is what is done after a stage of the compiler: to charge for those
// that come next and are not linear.
var between = map[ast.StageID]func(*meter, *ast.Compiler) error{
	ast.StageSetAnnotationSet:           (*meter).beforeRewriteRegoMetadataCalls,
	ast.StageRewriteRegoMetadataCalls:   (*meter).beforeSetGraph,
	ast.StageCheckSafetyRuleHeads:       (*meter).beforeCheckSafetyRuleBodies,
	ast.StageRewriteTestRulesForTracing: (*meter).beforeCheckRecursion,
	ast.StageCheckRecursion:             (*meter).beforeCheckTypes,
}

func (m *meter) beforeRewriteRegoMetadataCalls(c *ast.Compiler) error { return m.measureMetadata(c) }

func (m *meter) beforeSetGraph(c *ast.Compiler) error {
	if _, err := m.measureBelow(c.RuleTree); err != nil {
		return err
	}
	return m.measureReferences(c)
}

func (m *meter) beforeCheckSafetyRuleBodies(c *ast.Compiler) error { return m.measureBodies(c) }

func (m *meter) beforeCheckRecursion(c *ast.Compiler) error {
	m.hideRules(c)
	return nil
}

func (m *meter) beforeCheckTypes(c *ast.Compiler) error {
	m.showRules(c)
	if _, ok := c.Graph.Sort(); !ok {
		return errors.New("rules refer to each other in a circle that OPA does not report")
	}
	if err := m.measureWith(c); err != nil {
		return err
	}
	return m.measureTypes(c)
}

func compile(ctx context.Context, src *Source, modules map[string]*ast.Module, m *meter) (*ast.Compiler, error) {
	mode := ast.EvalModeIR
	if src.Topdown {
		mode = ast.EvalModeTopdown
	}
	compiler := ast.NewCompiler().
		WithCapabilities(src.Capabilities).
		WithDefaultRegoVersion(cmp.Or(src.RegoVersion, ast.RegoV1)).
		WithEvalMode(mode).
		SetErrorLimit(maxErrors)
	if src.Tests {
		if err := prepareTests(ctx, compiler); err != nil {
			return nil, err
		}
	}

	// OPA cannot be interrupted inside a stage. Between two it can.
	var stopped error
	for _, stage := range ast.AllStages() {
		compiler = compiler.WithStageAfterID(stage, ast.CompilerStageDefinition{
			Name: "microwall after " + string(stage),
			Stage: func(c *ast.Compiler) *ast.Error {
				if stopped = alive(ctx, "compile after stage "+string(stage)); stopped == nil && between[stage] != nil {
					stopped = between[stage](m, c)
				}
				if stopped != nil {
					return ast.NewError(ast.CompileErr, nil, "%s", stopped)
				}
				return nil
			},
		})
	}
	if err := alive(ctx, "compile"); err != nil {
		return nil, err
	}
	compiler.Compile(modules)
	switch {
	case stopped != nil:
		return nil, stopped
	case compiler.Failed():
		return nil, compiler.Errors
	}
	if err := checkWith(compiler); err != nil {
		return nil, err
	}
	shorten(compiler.Modules)
	return compiler, nil
}

// WithFunction is the code of an error that OPA's compiler does not have: a
// function stands in a document's place.
const WithFunction = "with_function_error"

// checkWith refuses a function as what stands in a document's place: it is no
// value. OPA (v1.22.2) lets it pass, and goes on as if it were one.
func checkWith(c *ast.Compiler) error {
	var errs ast.Errors
	for _, module := range c.Modules {
		ast.WalkWiths(module, func(w *ast.With) bool {
			value, ok := w.Value.Value.(ast.Ref)
			if ok && value.HasPrefix(ast.DefaultRootRef) && c.GetArity(value) > 0 && !replacesFunction(c, w) {
				errs = append(errs, ast.NewError(WithFunction, w.Loc(), "%v is a function, and cannot take the place of the document %v", value, w.Target))
			}
			return false
		})
	}
	if len(errs) > 0 {
		return errs
	}
	return nil
}

// shorten cuts the texts of locations. The planner looks for the end of its
// location's text with each statement, which is quadratic for a long one.
func shorten(modules map[string]*ast.Module) {
	const enough = 512
	for _, module := range modules {
		ast.WalkNodes(module, func(n ast.Node) bool {
			if at := n.Loc(); at != nil && len(at.Text) > enough {
				at.Text = at.Text[:enough]
			}
			return false
		})
	}
}

// maxErrors that are reported: some mistakes of the compiler's are as many as
// pairs of rules.
const maxErrors = 1000
