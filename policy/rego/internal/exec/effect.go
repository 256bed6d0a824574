package exec

import (
	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// mayFail reports whether a statement can end the evaluation with an error other
// than the budget's, so that leaving it out could hide one. constant is the local
// that is only ever set to one and the same value, so that no conflict can arise.
func (c *compiler) mayFail(s ir.Stmt, constant func(ir.Local) bool) bool {
	switch s := s.(type) {
	case *ir.CallStmt:
		if f, ok := c.program.byName[s.Func]; ok {
			return f.fails
		}
		b, ok := c.options.Find(s.Func)
		return !ok || !b.Total
	case *ir.CallDynamicStmt:
		return true
	case *ir.AssignVarOnceStmt:
		return !constant(s.Target)
	case *ir.ObjectInsertOnceStmt:
		return true
	case *ir.ObjectInsertStmt:
		return !c.region.made[s.Object]
	case *ir.SetAddStmt:
		return !c.region.made[s.Set]
	}
	return false
}

// blockMayFail reports whether any statement of a block can.
func (c *compiler) blockMayFail(b *ir.Block, constant func(ir.Local) bool) bool {
	fails := false
	visit(b, func(s ir.Stmt) { fails = fails || c.mayFail(s, constant) })
	return fails
}

// onlySets returns the one local outside a loop that its body sets, and only to
// one constant: once it is set, going on changes nothing. The body must not be
// able to fail.
func (c *compiler) onlySets(body *ir.Block) (ir.Local, bool) {
	var target ir.Local
	var what value.Value
	ok, inner := true, map[ir.Local]int{}
	visit(body, func(s ir.Stmt) {
		_, uses := access(s)
		for _, l := range uses {
			inner[l]++
		}
	})
	set := func(l ir.Local, v value.Value, constant bool) {
		if !c.region.shared[l] && c.region.uses[l] == inner[l] {
			return // nobody outside reads it
		}
		if !constant || target != 0 && (target != l || !identical(what, v)) {
			ok = false
			return
		}
		target, what = l, v
	}
	visit(body, func(s ir.Stmt) {
		switch s := s.(type) {
		case *ir.AssignVarStmt:
			v, constant := c.constantOf(s.Source)
			set(s.Target, v, constant)
			return
		case *ir.AssignVarOnceStmt:
			v, constant := c.constantOf(s.Source)
			set(s.Target, v, constant)
			return
		case *ir.ArrayAppendStmt:
			set(s.Array, value.Value{}, false)
		case *ir.SetAddStmt:
			set(s.Set, value.Value{}, false)
		case *ir.ObjectInsertStmt:
			set(s.Object, value.Value{}, false)
		case *ir.ObjectInsertOnceStmt:
			set(s.Object, value.Value{}, false)
		case *ir.ReturnLocalStmt, *ir.ResultSetAddStmt:
			ok = false
		}
		defs, _ := access(s)
		for _, l := range defs {
			set(l, value.Value{}, false)
		}
	})
	if !ok || target == 0 {
		return 0, false
	}
	return target, !c.blockMayFail(body, func(l ir.Local) bool { return l == target })
}

// constantOf returns what an operand always is, if it is a scalar that is written
// in the policy.
func (c *compiler) constantOf(o ir.Operand) (value.Value, bool) {
	switch v := o.Value.(type) {
	case ir.Bool:
		return value.Boolean(bool(v)), true
	case ir.StringIndex:
		return value.Text(c.strings[v]), true
	case ir.Local:
		k, ok := c.region.constants[v]
		return k, ok && !k.IsComposite()
	}
	return value.Value{}, false
}

// weight is how many steps it takes to go through a block once: its statements,
// and those inside it, but for the bodies of loops, which are counted each time.
func weight(b *ir.Block) int64 {
	n := int64(len(b.Stmts)) + 1
	for _, s := range b.Stmts {
		if _, loop := s.(*ir.ScanStmt); loop {
			continue
		}
		for _, inner := range blocksOf(s) {
			n += weight(inner)
		}
	}
	return n
}
