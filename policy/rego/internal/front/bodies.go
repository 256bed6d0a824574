package front

import (
	"github.com/open-policy-agent/opa/v1/ast"
)

// measureBodies charges for putting bodies into a safe order. The compiler goes
// over a body until nothing is left that it can add: each time it copies the
// variables that are bound for each expression that it has not added yet, and
// for one with a closure over them works out once more what all that it has
// added bind. For each body in another one it copies what is bound there.
func (m *meter) measureBodies(compiler *ast.Compiler) error {
	for rule := range rulesOf(compiler.Modules) {
		bound := (*boundVars)(nil).and("input", "data")
		for _, arg := range rule.Head.Args {
			ast.WalkVars(arg, func(v ast.Var) bool {
				bound.add(v)
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

func (b *bodies) charge(c cause, steps int64, at *ast.Location, detail any) {
	if b.err == nil {
		b.err = b.meter.charge(c, steps, at, detail)
	}
}

// boundVars are the variables that are bound where a body stands: those of each
// body around it, apart, so that none is copied.
type boundVars struct {
	vars   map[ast.Var]bool
	around *boundVars
	size   int64 // with those around
}

// and returns b with further variables.
func (b *boundVars) and(vars ...ast.Var) *boundVars {
	more := &boundVars{vars: map[ast.Var]bool{}, around: b}
	if b != nil {
		more.size = b.size
	}
	for _, v := range vars {
		more.add(v)
	}
	return more
}

func (b *boundVars) add(v ast.Var) {
	if !b.has(v) {
		b.vars[v] = true
		b.size++
	}
}

func (b *boundVars) has(v ast.Var) bool {
	for ; b != nil; b = b.around {
		if b.vars[v] {
			return true
		}
	}
	return false
}

// anOrdered is an expression, for what it costs to order it.
type anOrdered struct {
	own      []ast.Var // outside of its closures, as often as they occur
	inside   []ast.Var // its closures
	closures bool      // has any
	unifies  bool      // composites with each other
}

// body charges for a body where some variables are bound, and for the bodies in
// it.
func (b *bodies) body(body ast.Body, bound *boundVars) {
	exprs := make([]anOrdered, len(body))
	n, vars := int64(len(body)), int64(0)
	for i, e := range body {
		exprs[i].look(e)
		vars += int64(len(exprs[i].own))
	}
	passes := n + 1
	steps := b.steps(exprs, vars, passes)
	counted := steps > 2000
	if counted {
		different := map[ast.Var]bool{}
		for _, e := range exprs {
			for _, v := range e.own {
				different[v] = true
			}
		}
		vars, passes = int64(len(different)), 2
		steps = b.steps(exprs, vars, passes)
	}
	b.equations(body, exprs, bound, passes+2)
	// To count the passes takes as long as one of them.
	if counted && steps <= b.meter.left && b.err == nil {
		passes = b.passes(body, exprs, bound)
		steps = b.steps(exprs, vars, passes)
		b.equations(body, exprs, bound, passes-2)
	}
	at := (*ast.Location)(nil)
	if n > 0 {
		at = body[0].Location
	}
	b.charge(byBodies, steps, at, n)
	var inner *boundVars
	for i, e := range body {
		if !exprs[i].closures || b.err != nil {
			continue
		}
		// What else the closure uses of the body is bound, or the compiler gives
		// the closure up at once.
		if inner == nil {
			inner = bound.and()
			for _, e := range exprs {
				for _, v := range e.own {
					inner.add(v)
				}
			}
		}
		var term func(*ast.Term)
		closure := func(body ast.Body, _ ...*ast.Term) {
			b.charge(byBound, mul(inner.size, 3), e.Location, inner.size)
			if b.err == nil {
				b.body(body, inner)
			}
		}
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
		vars, o.closures = &o.inside, true
		for _, e := range body {
			partsOf(e, term, closure)
		}
		for _, t := range head {
			term(t)
		}
		vars = outside
	}
	partsOf(e, term, closure)
	o.unifies = e.IsEquality() && len(e.Operands()) == 2 && isComposite(e.Operand(0)) && isComposite(e.Operand(1))
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

// equations charges for so many times half of what it takes to find out what
// equations of arrays or objects bind: each variable that one binds is looked for
// among those that it does not.
func (b *bodies) equations(body ast.Body, exprs []anOrdered, bound *boundVars, times int64) {
	for i, e := range exprs {
		if !e.unifies {
			continue
		}
		here := bound.and(e.own...)
		vars := here.size - bound.size
		b.charge(byEquations, mul(vars, vars, times)/30, body[i].Location, vars)
	}
}

// passes is how often the compiler goes over a body at most: once, once more to
// see that nothing is left, and once for each expression that is not safe yet
// where it stands.
func (b *bodies) passes(body ast.Body, exprs []anOrdered, bound *boundVars) int64 {
	own, usedBy := map[ast.Var]bool{}, map[ast.Var]int{}
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
	safe := bound.and()
	passes := int64(2)
	for i, e := range body {
		if b.err = b.meter.alive(); b.err != nil {
			break
		}
		// OPA copies what it is told is safe, so it is told only what matters here.
		known := ast.NewVarSet()
		ast.WalkVars(e, func(v ast.Var) bool {
			if safe.has(v) {
				known.Add(v)
			}
			return false
		})
		outputs := ast.OutputVarsFromExpr(b.compiler, e, known)
		ready := func(v ast.Var) bool { return safe.has(v) || outputs.Contains(v) }
		late := false
		for _, v := range exprs[i].own {
			late = late || !ready(v)
		}
		for _, v := range exprs[i].inside {
			late = late || own[v] && !ready(v)
		}
		if late {
			passes++
			continue
		}
		for v := range outputs {
			safe.add(v)
		}
	}
	return passes
}
