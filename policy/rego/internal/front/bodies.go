package front

import (
	"github.com/open-policy-agent/opa/v1/ast"
)

// measureBodies charges for putting bodies into a safe order. The compiler goes
// over a body until nothing is left that it can add: each time it copies the
// variables that are bound for each expression that it has not added yet, and
// for one with a closure over them works out once more what all that it has
// added bind.
func (m *meter) measureBodies(compiler *ast.Compiler) error {
	for rule := range rulesOf(compiler.Modules) {
		bound := map[ast.Var]bool{"input": true, "data": true}
		for _, arg := range rule.Head.Args {
			ast.WalkVars(arg, func(v ast.Var) bool {
				bound[v] = true
				return false
			})
		}
		b := bodies{meter: m, compiler: compiler}
		if b.body(rule.Body, bound); b.err != nil {
			return b.err
		}
	}
	return nil
}

type bodies struct {
	meter    *meter
	compiler *ast.Compiler
	err      error // the first
}

// anOrdered is an expression, for what it costs to order it.
type anOrdered struct {
	own    []ast.Var // outside of its closures, as often as they occur
	inside []ast.Var // its closures
}

// body charges for a body where some variables are bound, and for the bodies in
// it.
func (b *bodies) body(body ast.Body, bound map[ast.Var]bool) {
	exprs := make([]anOrdered, len(body))
	n, vars := int64(len(body)), int64(0)
	for i, e := range body {
		exprs[i].look(e)
		vars += int64(len(exprs[i].own))
	}
	steps := b.steps(exprs, vars, n+1)
	if steps > 2000 {
		different := map[ast.Var]bool{}
		for _, e := range exprs {
			for _, v := range e.own {
				different[v] = true
			}
		}
		steps = b.steps(exprs, int64(len(different)), b.passes(body, exprs, bound))
	}
	at := (*ast.Location)(nil)
	if n > 0 {
		at = body[0].Location
	}
	if b.err == nil {
		b.err = b.meter.charge(byBodies, steps, at, n)
	}
	for i, e := range body {
		if len(exprs[i].inside) == 0 || b.err != nil {
			continue
		}
		// What else the closure uses of the body is bound, or the compiler gives
		// the closure up at once.
		inner := map[ast.Var]bool{}
		for _, e := range exprs {
			for _, v := range e.own {
				inner[v] = true
			}
		}
		for v := range bound {
			inner[v] = true
		}
		var term func(*ast.Term)
		closure := func(body ast.Body, _ ...*ast.Term) { b.body(body, inner) }
		term = func(t *ast.Term) { partsOfTerm(t, term, closure) }
		partsOf(e, term, closure)
	}
}

// look finds the variables of an expression.
func (o *anOrdered) look(e *ast.Expr) {
	vars := &o.own
	var term func(*ast.Term)
	var closure func(ast.Body, ...*ast.Term)
	term = func(t *ast.Term) {
		if v, ok := t.Value.(ast.Var); ok {
			*vars = append(*vars, v)
			return
		}
		partsOfTerm(t, term, closure)
	}
	closure = func(body ast.Body, head ...*ast.Term) {
		outside := vars
		vars = &o.inside
		for _, e := range body {
			partsOf(e, term, closure)
		}
		for _, t := range head {
			term(t)
		}
		vars = outside
	}
	partsOf(e, term, closure)
}

// steps of so many passes over a body with so many variables. Later ones have
// less and less left to do.
func (b *bodies) steps(exprs []anOrdered, vars, passes int64) (steps int64) {
	n := int64(len(exprs))
	for _, e := range exprs {
		steps += vars/2 + n/20 + 3*int64(len(e.own)+len(e.inside))
		if len(e.inside) > 0 {
			steps += mul(n, vars/8+25)
		}
	}
	return mul(steps, passes+2) / 2
}

// passes is how often the compiler goes over a body at most: once, once more to
// see that nothing is left, and once for each expression that is not safe yet
// where it stands.
func (b *bodies) passes(body ast.Body, exprs []anOrdered, bound map[ast.Var]bool) int64 {
	own, usedBy := map[ast.Var]bool{}, map[ast.Var]int{}
	safe := ast.NewVarSet()
	for v := range bound {
		safe.Add(v)
	}
	for i, e := range exprs {
		for _, v := range e.own {
			own[v] = true
		}
		for _, v := range e.inside {
			if usedBy[v] != 0 && usedBy[v] != i+1 {
				own[v] = true
			}
			usedBy[v] = i + 1
		}
	}
	passes := int64(2)
	for i, e := range body {
		outputs := ast.OutputVarsFromExpr(b.compiler, e, safe)
		ready := func(v ast.Var) bool { return safe.Contains(v) || outputs.Contains(v) }
		late := false
		for _, v := range exprs[i].own {
			late = late || !ready(v)
		}
		for _, v := range exprs[i].inside {
			late = late || own[v] && !ready(v)
		}
		if late {
			passes++
		} else {
			safe.Update(outputs)
		}
	}
	return passes
}
