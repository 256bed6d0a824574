package differential

import (
	"context"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/microwall/microwall/policy/rego/internal/reference"
)

// Engine compiles a case. An error is a policy that it refuses.
type Engine func(c *Case) (Ask, error)

// Ask answers a case's query about an input, nil for none: the set of
// solutions, each an object of the query's variables. An error is what the
// evaluation ended with; its text begins, after the place, with OPA's code.
type Ask func(ctx context.Context, input ast.Value) (ast.Set, error)

// Reference is OPA's evaluator as [reference] runs it.
func Reference(m reference.Mode) Engine { return opa(m, false) }

// Whole is the reference, made to skip nothing.
func Whole() Engine { return opa(reference.Mode{}, true) }

func opa(m reference.Mode, whole bool) Engine {
	return func(c *Case) (Ask, error) {
		q, err := compile(c, whole)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context, input ast.Value) (ast.Set, error) {
			r, err := q.Eval(ctx, input, m)
			if err != nil {
				return nil, err
			}
			return solutions(r.Bindings), nil
		}, nil
	}
}

// compile compiles a case for the reference.
func compile(c *Case, whole bool) (*reference.Query, error) {
	modules, err := c.parse()
	if err != nil {
		return nil, err
	}
	data, err := c.data()
	if err != nil {
		return nil, err
	}
	query, err := ast.ParseBodyWithOpts(c.Query, ast.ParserOptions{RegoVersion: ast.RegoV1})
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	compiler, err := reference.Compile(modules, reference.Options{Whole: whole})
	if err != nil {
		return nil, err
	}
	return reference.New(compiler, data, query)
}

func solutions(all []map[ast.Var]ast.Value) ast.Set {
	set := ast.NewSet()
	for _, bindings := range all {
		o := ast.NewObject()
		for name, v := range bindings {
			o.Insert(ast.StringTerm(string(name)), ast.NewTerm(v))
		}
		set.Add(ast.NewTerm(o))
	}
	return set
}
