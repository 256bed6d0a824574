package exec

import (
	"context"
	"iter"

	"github.com/open-policy-agent/opa/v1/ir"
)

// interrupted is what a compiler panics with once its context has ended.
type interrupted struct{ cause error }

// looksEvery is how many statements are gone through between two looks at the
// context.
const looksEvery = 4096

// went counts a statement that was gone through. Whatever goes through statements
// counts them, so that compiling ends soon after its context.
func (c *compiler) went() {
	if c.seen++; c.seen%looksEvery == 0 && c.ctx.Err() != nil {
		panic(interrupted{context.Cause(c.ctx)})
	}
}

// visit calls f for every statement of a block and of those inside it, in the
// order in which they stand there.
func (c *compiler) visit(b *ir.Block, f func(ir.Stmt)) {
	for _, s := range b.Stmts {
		c.went()
		f(s)
		for _, inner := range blocksOf(s) {
			c.visit(inner, f)
		}
	}
}

// span is a part of a region: positions in the order of [compiler.visit], the
// first and the one after the last.
type span struct{ from, to int }

// statements goes through the statements of a block, without those inside it, by
// their positions.
func (c *compiler) statements(b *ir.Block) iter.Seq2[int, ir.Stmt] {
	return func(yield func(int, ir.Stmt) bool) {
		at := c.region.spans[b].from
		for _, s := range b.Stmts {
			c.went()
			if !yield(at, s) {
				return
			}
			at++
			if inner := blocksOf(s); len(inner) > 0 {
				at = c.region.spans[inner[len(inner)-1]].to
			}
		}
	}
}

func blocksOf(s ir.Stmt) []*ir.Block {
	switch s := s.(type) {
	case *ir.BlockStmt:
		return s.Blocks
	case *ir.NotStmt:
		return []*ir.Block{s.Block}
	case *ir.ScanStmt:
		return []*ir.Block{s.Block}
	case *ir.WithStmt:
		return []*ir.Block{s.Block}
	}
	return nil
}

// defs calls f for the locals that a statement itself sets.
func defs(s ir.Stmt, f func(ir.Local)) {
	switch s := s.(type) {
	case *ir.CallStmt:
		f(s.Result)
	case *ir.CallDynamicStmt:
		f(s.Result)
	case *ir.DotStmt:
		f(s.Target)
	case *ir.LenStmt:
		f(s.Target)
	case *ir.ScanStmt:
		f(s.Key)
		f(s.Value)
	case *ir.AssignIntStmt:
		f(s.Target)
	case *ir.AssignVarStmt:
		f(s.Target)
	case *ir.AssignVarOnceStmt:
		f(s.Target)
	case *ir.ResetLocalStmt:
		f(s.Target)
	case *ir.MakeNullStmt:
		f(s.Target)
	case *ir.MakeNumberIntStmt:
		f(s.Target)
	case *ir.MakeNumberRefStmt:
		f(s.Target)
	case *ir.MakeArrayStmt:
		f(s.Target)
	case *ir.MakeObjectStmt:
		f(s.Target)
	case *ir.MakeSetStmt:
		f(s.Target)
	case *ir.ObjectMergeStmt:
		f(s.Target)
	case *ir.WithStmt:
		f(s.Local)
	}
}

// uses calls f for the locals that a statement itself reads. What is put into a
// composite changes it, and counts as reading.
func uses(s ir.Stmt, f func(ir.Local)) {
	use := func(o ir.Operand) {
		if l, ok := o.Value.(ir.Local); ok {
			f(l)
		}
	}
	switch s := s.(type) {
	case *ir.ReturnLocalStmt:
		f(s.Source)
	case *ir.CallStmt:
		for _, o := range s.Args {
			use(o)
		}
	case *ir.CallDynamicStmt:
		for _, l := range s.Args {
			f(l)
		}
		for _, o := range s.Path {
			use(o)
		}
	case *ir.DotStmt:
		use(s.Source)
		use(s.Key)
	case *ir.LenStmt:
		use(s.Source)
	case *ir.ScanStmt:
		f(s.Source)
	case *ir.AssignVarStmt:
		use(s.Source)
	case *ir.AssignVarOnceStmt:
		use(s.Source)
		f(s.Target)
	case *ir.EqualStmt:
		use(s.A)
		use(s.B)
	case *ir.NotEqualStmt:
		use(s.A)
		use(s.B)
	case *ir.IsArrayStmt:
		use(s.Source)
	case *ir.IsObjectStmt:
		use(s.Source)
	case *ir.IsSetStmt:
		use(s.Source)
	case *ir.IsDefinedStmt:
		f(s.Source)
	case *ir.IsUndefinedStmt:
		f(s.Source)
	case *ir.ArrayAppendStmt:
		use(s.Value)
		f(s.Array)
	case *ir.ObjectInsertStmt:
		use(s.Key)
		use(s.Value)
		f(s.Object)
	case *ir.ObjectInsertOnceStmt:
		use(s.Key)
		use(s.Value)
		f(s.Object)
	case *ir.ObjectMergeStmt:
		f(s.A)
		f(s.B)
	case *ir.SetAddStmt:
		use(s.Value)
		f(s.Set)
	case *ir.WithStmt:
		use(s.Value)
		f(s.Local)
	case *ir.ResultSetAddStmt:
		f(s.Value)
	}
}

// change returns the composite that a statement puts something into.
func change(s ir.Stmt) (ir.Local, bool) {
	switch s := s.(type) {
	case *ir.ArrayAppendStmt:
		return s.Array, true
	case *ir.SetAddStmt:
		return s.Set, true
	case *ir.ObjectInsertStmt:
		return s.Object, true
	case *ir.ObjectInsertOnceStmt:
		return s.Object, true
	}
	return 0, false
}

// composed returns what a statement makes, or puts something into.
func composed(s ir.Stmt) ir.Local {
	l, ok := change(s)
	if !ok {
		defs(s, func(made ir.Local) { l = made })
	}
	return l
}

func (c *compiler) countLocals(blocks []*ir.Block) int {
	n := int(ir.Unused)
	count := func(l ir.Local) { n = max(n, int(l)+1) }
	for _, b := range blocks {
		c.visit(b, func(s ir.Stmt) {
			defs(s, count)
			uses(s, count)
		})
	}
	return n
}
