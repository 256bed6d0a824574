package front

import (
	"fmt"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// prepareModule rewrites the expressions of a compiled module so that OPA's
// planner (v1.22.2) plans what they mean, and all of it:
//
//   - The modifiers that replace a document stand before those that replace a
//     function. The planner counts the latter when it looks for the target of the
//     former: `with lower as "a" with data.n as 1` would replace the input.
//   - `not e` is `not { e }` where e can be tried more than once, or not at all. The
//     planner takes what is tried for what holds: `not data.roles[x]`, with rules
//     under data.roles, would never hold.
//   - A composite that is stated alone is computed: a call in it may fail.
//   - A module without rules has a function, which nobody can call. The planner
//     forgets packages without rules where it looks one up by a variable, which
//     are empty objects, as those with functions alone are.
func (c *Compiled) prepareModule(m *ast.Module) {
	if len(m.Rules) == 0 {
		head := ast.Head{Reference: ast.Ref{ast.VarTerm("$")}, Name: "$", Args: ast.Args{ast.VarTerm("_")}, Value: ast.BooleanTerm(true), Location: m.Package.Location}
		m.Rules = append(m.Rules, &ast.Rule{Head: &head, Body: ast.NewBody(ast.NewExpr(ast.BooleanTerm(true))), Module: m, Location: m.Package.Location})
	}
	stated := 0
	ast.WalkExprs(m, func(e *ast.Expr) bool {
		c.orderWith(e)
		if e.Negated && c.isTriedOften(e) {
			body := *e
			body.Negated, body.With = false, nil
			e.Negated = false
			e.Terms = &ast.Not{Body: ast.NewBody(&body), Location: e.Location}
		}
		if t, ok := e.Terms.(*ast.Term); ok && isComposite(t) {
			name := ast.VarTerm(fmt.Sprintf("%sstated%d", ast.WildcardPrefix, stated))
			name.Location = t.Location
			stated++
			e.Terms = ast.Equality.Expr(t, name).Terms
		}
		return false
	})
}

// prepareQuery does the first of these to a query, which is not compiled yet.
func (c *Compiled) prepareQuery(query ast.Body) {
	ast.WalkExprs(query, func(e *ast.Expr) bool {
		c.orderWith(e)
		return false
	})
}

func (c *Compiled) orderWith(e *ast.Expr) {
	if len(e.With) < 2 {
		return
	}
	slices.SortStableFunc(e.With, func(a, b *ast.With) int {
		switch fa, fb := replacesFunction(c.compiler, a), replacesFunction(c.compiler, b); {
		case fa == fb:
			return 0
		case fa:
			return 1
		}
		return -1
	})
}

func replacesFunction(c *ast.Compiler, w *ast.With) bool {
	target, ok := w.Target.Value.(ast.Ref)
	if !ok || target.HasPrefix(ast.InputRootRef) {
		return !ok
	}
	return !target.HasPrefix(ast.DefaultRootRef) || c.GetArity(target) > 0
}

// isTriedOften reports whether what is negated may be planned as other than one
// straight line of statements.
func (c *Compiled) isTriedOften(e *ast.Expr) bool {
	if _, ok := e.Terms.(*ast.Not); ok {
		return false
	}
	if e.IsEquality() && slices.ContainsFunc(e.Operands(), isComposite) {
		return true
	}
	if e.IsCall() {
		if b, ok := ast.BuiltinMap[e.Operator().String()]; ok && b.Relation {
			return true
		}
	}
	often := false
	ast.WalkRefs(e, func(r ast.Ref) bool {
		often = often || slices.ContainsFunc(r[1:], func(t *ast.Term) bool { return !t.IsGround() })
		return often
	})
	return often
}

func isComposite(t *ast.Term) bool {
	switch t.Value.(type) {
	case *ast.Array, ast.Object, ast.Set, *ast.ArrayComprehension, *ast.ObjectComprehension, *ast.SetComprehension:
		return true
	}
	return false
}
