package differential

import (
	"context"
	"errors"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/convert"
	"github.com/microwall/microwall/policy/rego/internal/exec"
	"github.com/microwall/microwall/policy/rego/internal/front"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// Native is the evaluator that decides, with data in the form in which bundles
// bring it.
func Native(c *Case) (Ask, error) {
	ctx := context.Background()
	src := front.Source{RegoVersion: ast.RegoV1}
	for _, m := range c.Modules {
		src.Modules = append(src.Modules, front.Module{Path: m.Path, Text: m.Source})
	}
	compiled, err := front.Compile(ctx, src)
	if errs, ok := errors.AsType[ast.Errors](err); ok && errs[0].Code == front.WithFunction {
		return nil, fmt.Errorf("%w: %w", ErrUnsafe, err)
	}
	if err != nil {
		return nil, err
	}
	plan, err := compiled.Plan(ctx, c.Query)
	if _, ok := errors.AsType[*front.TooCostly](err); err != nil && !ok {
		return nil, fmt.Errorf("%w: %w", ErrUnplanned, err)
	}
	if err != nil {
		return nil, err
	}
	data, err := value.ParseData([]byte(c.Data))
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	program, err := exec.Compile(ctx, plan.Policy, exec.Options{
		Data: data, Strict: true, Functions: compiled.Functions(), Find: builtin.Find,
	})
	if u, ok := errors.AsType[*exec.Unsupported](err); ok && u.Unsafe {
		return nil, fmt.Errorf("%w: %w", ErrUnsafe, err)
	} else if ok {
		return nil, fmt.Errorf("%w: %w", ErrUnplanned, err)
	}
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, input ast.Value) (ast.Set, error) {
		in, err := convert.FromAST(input)
		if err != nil {
			return nil, err
		}
		results, err := program.Query(ctx, in, budget.Limits{})
		if err != nil {
			return nil, err
		}
		set := ast.NewSet()
		for _, r := range results {
			set.Add(convert.ToTerm(r))
		}
		return set, nil
	}, nil
}
