package front

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/types"
)

// OPA plans for a target: a plug-in that is asked for by name, and that is
// handed the plan together with the context of the call that made it.
const target = "microwall.plan"

var _ = func() planTarget {
	rego.RegisterPlugin(target, planTarget{})
	return planTarget{}
}()

type planTarget struct{}

type planKey struct{}

func (planTarget) IsTarget(name string) bool { return name == target }

func (planTarget) PrepareForEval(ctx context.Context, policy *ir.Policy, _ ...rego.PrepareOption) (rego.TargetPluginEval, error) {
	*ctx.Value(planKey{}).(**ir.Policy) = policy
	return notEvaluated{}, nil
}

type notEvaluated struct{}

func (notEvaluated) Eval(context.Context, *rego.EvalContext, ast.Value) (ast.Value, error) {
	return nil, errors.New("a plan of package front is not evaluated by OPA")
}

func (c *Compiled) plan(ctx context.Context, parsed ast.Body) (*Plan, error) {
	// Package rego compiles the query once more, the same way.
	query := c.asEquations(parsed)
	c.prepareQuery(query)
	qc := c.compiler.QueryCompiler()
	compiled, err := qc.Compile(query)
	if err != nil {
		return nil, err
	}
	if err := alive(ctx, "plan the query"); err != nil {
		return nil, err
	}
	r := newRehearsal(c.compiler, mayPlan)
	end, err := r.run(compiled, qc.RewrittenVars())
	if err != nil {
		return nil, err
	}
	if err := alive(ctx, "plan the query"); err != nil {
		return nil, err
	}
	policy, err := c.planned(ctx, query)
	if err != nil {
		return nil, end.explain(err)
	}
	return &Plan{Query: parsed, Policy: policy, Statements: r.statements}, nil
}

// planned lets OPA plan.
func (c *Compiled) planned(ctx context.Context, query ast.Body) (policy *ir.Policy, err error) {
	defer catch(&err)
	ctx = context.WithValue(ctx, planKey{}, &policy)
	if _, err := rego.New(rego.ParsedQuery(query), rego.Compiler(c.compiler), rego.Target(target)).PrepareForEval(ctx); err != nil {
		return nil, &Unplannable{Err: err}
	}
	if policy == nil {
		return nil, fmt.Errorf("OPA did not plan: the target %s is not registered any more", target)
	}
	return policy, nil
}

// explain makes of the planner's error one that says where it is, if that is
// known. Where the planner gives something up below a replaced function, it
// panics: then there is no error of its own.
func (u *unplannable) explain(err error) error {
	if u == nil {
		return err
	}
	at := &Unplannable{Err: err}
	if not, ok := errors.AsType[*Unplannable](err); ok {
		at.Err = not.Err
	} else if _, ok := errors.AsType[*Crash](err); ok {
		at.Err = errors.New(cmp.Or(u.why, "this cannot be planned"))
	}
	if u.at != nil {
		at.File, at.Line = u.at.File, u.at.Row
	}
	return at
}

var mayPlan = planLimits{statements: 1_000_000, effort: 10_000_000, depth: 100_000, loops: 5000}

// asEquations returns a query that means the same but that package rego leaves
// as it is. Otherwise it would capture the value of every expression that is no
// equation, to show it in the results, and let the value be false.
func (c *Compiled) asEquations(query ast.Body) ast.Body {
	equations := make(ast.Body, 0, len(query))
	for i, e := range query {
		value := ast.VarTerm(fmt.Sprintf("%scaptured%d", ast.WildcardPrefix, i))
		equation := e.Copy()
		switch terms := e.Terms.(type) {
		case *ast.Term:
			equation.Terms = ast.Equality.Expr(terms, value).Terms
		case []*ast.Term:
			if e.IsEquality() || e.IsAssignment() || c.isVoid(e) || c.compiler.GetArity(e.Operator()) != len(e.Operands()) {
				value = nil
				break
			}
			equation.Terms = append(terms, value)
		default:
			value = nil
		}
		if value == nil || e.Negated {
			equations.Append(e)
			continue
		}
		equations.Append(equation)
		notFalse := ast.NotEqual.Expr(value, ast.BooleanTerm(false), ast.BooleanTerm(true))
		notFalse.Location = e.Location
		equations.Append(notFalse)
	}
	return equations
}

func (c *Compiled) isVoid(call *ast.Expr) bool {
	f, ok := c.compiler.TypeEnv.GetByRef(call.Operator()).(*types.Function)
	return ok && f.Result() == nil
}
