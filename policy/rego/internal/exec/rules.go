package exec

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// unit is what a function does for one of its rules.
type unit struct {
	body   op
	weight int64 // steps
	// idle is set if there is nothing to do once the function has a result: this
	// rule could only give the same one, and cannot fail.
	idle bool
	// tests are comparisons of the request with constants, one of which is made
	// before anything that can fail or has an effect: if one does not hold, the
	// rule does nothing.
	tests []test
	place *ir.Location
	// why there are no tests.
	why string
}

// function compiles the blocks of a function: one or two a rule, and what comes
// before and after.
func (c *compiler) function(fn *function, f *ir.Func) {
	c.begin(f.Name, f.Blocks, append(slices.Clone(f.Params), f.Return))
	constant, isConstant := c.commonResult(f)
	var steps []op
	var units []unit
	flush := func() {
		if len(units) > 0 {
			steps = append(steps, c.run(fn, units, int(f.Return)))
			units = nil
		}
	}
	for i := 0; i < len(f.Blocks); i++ {
		b := f.Blocks[i]
		if isFraming(b, f.Return) {
			flush()
			steps = append(steps, c.regionOf(b))
			fn.fails = fn.fails || c.blockMayFail(b, func(l ir.Local) bool { return l == f.Return })
			continue
		}
		u := unit{weight: weight(b)}
		lresult, ends := ir.Local(0), false
		if i+1 < len(f.Blocks) {
			lresult, ends = endOf(f.Blocks[i+1], f.Return)
		}
		u.body = c.regionOf(b)
		if s, ok := onlyBlocks(b); ok {
			u.place, u.why = firstLocation(s.Blocks), "it has an else"
			fn.fails = true // else branches are not looked into
			units = append(units, u)
			continue
		}
		u.place = firstLocation([]*ir.Block{b})
		u.tests, u.why = c.tests(b)
		never := func(l ir.Local) bool { return isConstant && (l == lresult || l == f.Return) }
		fails := c.blockMayFail(b, never) || ends && !isConstant
		fn.fails = fn.fails || fails
		if ends {
			u.idle = isConstant && !fails
			u.body = c.withEnd(u.body, f.Blocks[i+1], int(lresult), int(f.Return), constant, isConstant)
			i++
		}
		units = append(units, u)
	}
	flush()
	fn.body = steps0(steps)
	fn.locals, fn.depth = c.locals, c.locals+c.depth
	if f.Path != nil {
		c.deepest = max(c.deepest, fn.depth)
	}
}

func firstLocation(blocks []*ir.Block) *ir.Location {
	for _, b := range blocks {
		for _, s := range b.Stmts {
			if l := s.GetLocation(); l != nil && l.Row > 0 {
				return l
			}
		}
	}
	return &ir.Location{}
}

// steps0 runs the blocks of a function.
func steps0(steps []op) op {
	return func(m *machine, l []value.Value) int {
		for _, s := range steps {
			if r := s(m, l); r < 0 {
				return r
			}
		}
		return next
	}
}

// isFraming reports whether a block makes the result before the rules, gives the
// default after them, or returns.
func isFraming(b *ir.Block, result ir.Local) bool {
	if len(b.Stmts) == 0 {
		return true
	}
	switch s := b.Stmts[0].(type) {
	case *ir.MakeSetStmt:
		return len(b.Stmts) == 1 && s.Target == result
	case *ir.MakeObjectStmt:
		return len(b.Stmts) == 1 && s.Target == result
	case *ir.ReturnLocalStmt:
		return true
	case *ir.IsUndefinedStmt:
		return s.Source == result
	}
	return false
}

// endOf recognizes the block that takes over a rule's result as the function's.
func endOf(b *ir.Block, result ir.Local) (lresult ir.Local, ok bool) {
	if len(b.Stmts) != 2 {
		return 0, false
	}
	defined, ok := b.Stmts[0].(*ir.IsDefinedStmt)
	if !ok {
		return 0, false
	}
	assign, ok := b.Stmts[1].(*ir.AssignVarOnceStmt)
	if !ok || assign.Target != result || !isLocal(assign.Source, defined.Source) {
		return 0, false
	}
	return defined.Source, true
}

// commonResult returns the one scalar that every rule of a function gives, if
// there is one; the default is another matter.
func (c *compiler) commonResult(f *ir.Func) (value.Value, bool) {
	var common value.Value
	for _, b := range f.Blocks {
		if isFraming(b, f.Return) {
			continue
		}
		if _, ends := endOf(b, f.Return); ends {
			continue
		}
		if _, chain := onlyBlocks(b); chain {
			return value.Value{}, false
		}
		ok := true
		c.enter(b)
		c.visit(b, func(s ir.Stmt) {
			assign, is := s.(*ir.AssignVarOnceStmt)
			if !is {
				return
			}
			v, scalar := c.constantOf(assign.Source)
			if !scalar || common.Defined() && !identical(common, v) {
				ok = false
				return
			}
			common = v
		})
		if !ok {
			return value.Value{}, false
		}
	}
	return common, common.Defined()
}

// identical reports whether two scalars are the same in spelling, too.
func identical(a, b value.Value) bool {
	return value.Equal(a, b) && a.Numeral() == b.Numeral()
}

// withEnd runs a rule's body and takes over its result.
func (c *compiler) withEnd(body op, end *ir.Block, lresult, result int, constant value.Value, isConstant bool) op {
	if isConstant {
		return func(m *machine, l []value.Value) int {
			if r := body(m, l); r < 0 {
				return r
			}
			if l[lresult].Defined() {
				l[result] = constant
			}
			return next
		}
	}
	conflict := c.conflict(end.Stmts[1].GetLocation())
	return func(m *machine, l []value.Value) int {
		if r := body(m, l); r < 0 {
			return r
		}
		v := l[lresult]
		if !v.Defined() {
			return next
		}
		if l[result].Defined() {
			return m.agree(l[result], v, conflict)
		}
		l[result] = v
		return next
	}
}

// run runs the units of a function: all of them if they are few, else those that
// the index finds.
func (c *compiler) run(fn *function, units []unit, result int) op {
	if len(units) >= indexFrom {
		for _, u := range units {
			if len(u.tests) == 0 {
				at := c.fault(u.place, "", "")
				c.program.tried = append(c.program.tried, Tried{File: at.File, Row: at.Row, Why: u.why})
			}
		}
		if root := c.index(units); root != nil {
			return root.op(units, result)
		}
	}
	if len(units) == 1 {
		body, steps := units[0].body, units[0].weight
		return func(m *machine, l []value.Value) int {
			if err := m.meter.Step(steps); err != nil {
				return m.fail(err)
			}
			if r := body(m, l); r < 0 {
				return r
			}
			return next
		}
	}
	return func(m *machine, l []value.Value) int {
		for i := range units {
			u := &units[i]
			if u.idle && l[result].Defined() {
				continue
			}
			if err := m.meter.Step(u.weight); err != nil {
				return m.fail(err)
			}
			if r := u.body(m, l); r < 0 {
				return r
			}
		}
		return next
	}
}
