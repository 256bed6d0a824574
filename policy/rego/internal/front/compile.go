package front

import (
	"context"

	"github.com/open-policy-agent/opa/v1/ast"
)

func compile(ctx context.Context, src *Source, modules map[string]*ast.Module) (*ast.Compiler, error) {
	mode := ast.EvalModeIR
	if src.Topdown {
		mode = ast.EvalModeTopdown
	}
	compiler := ast.NewCompiler().
		WithCapabilities(src.Capabilities).
		WithDefaultRegoVersion(src.RegoVersion).
		WithEvalMode(mode).
		SetErrorLimit(0)
	if src.Tests {
		if err := prepareTests(ctx, compiler); err != nil {
			return nil, err
		}
	}
	if err := alive(ctx, "compile"); err != nil {
		return nil, err
	}
	if compiler.Compile(modules); compiler.Failed() {
		return nil, compiler.Errors
	}
	return compiler, nil
}
