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
		return !c.region.isMade(s.Object)
	case *ir.SetAddStmt:
		return !c.region.isMade(s.Set)
	}
	return false
}

// blockMayFail reports whether any statement of a block can.
func (c *compiler) blockMayFail(b *ir.Block, constant func(ir.Local) bool) bool {
	fails := false
	c.visit(b, func(s ir.Stmt) { fails = fails || c.mayFail(s, constant) })
	return fails
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
