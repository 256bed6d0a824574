package exec

import (
	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

func (b *builder) statement(s ir.Stmt) {
	switch s := s.(type) {
	case *ir.NopStmt:
		return
	case *ir.BreakStmt:
		b.end(int(s.Index) + 1)
		return
	case *ir.BlockStmt:
		b.blocks(s)
		return
	case *ir.NotStmt:
		b.not(s)
		return
	}
	switch s := s.(type) {
	case *ir.AssignVarStmt:
		if _, ok := b.c.region.alias[s.Target]; ok {
			return
		}
	case *ir.DotStmt:
		n := lookUpIn(b.operand(s.Source), b.operand(s.Key), b.c.region.footing(s.Source))
		if n.isBelow(ir.Data) && b.c.fixed {
			_, names, _ := n.path()
			v := inBase.follow(nil, b.c.program.data, names)
			if !v.Defined() {
				b.end(undefined)
				return
			}
			n = &node{constant: v}
		}
		if n.source != nil && !n.key.isConstant() {
			b.step(func() op { return b.lookUp(n, s.Target) })
			return
		}
		if b.c.region.foldable(s.Target) {
			b.putOff(s.Target, n)
			return
		}
		b.step(func() op { return b.assign(s.Target, n) })
		return
	case *ir.MakeNullStmt, *ir.MakeNumberIntStmt, *ir.MakeNumberRefStmt, *ir.MakeArrayStmt, *ir.MakeObjectStmt, *ir.MakeSetStmt,
		*ir.ArrayAppendStmt, *ir.SetAddStmt, *ir.ObjectInsertStmt:
		if b.isConstant(s) {
			return
		}
	}
	b.step(func() op { return b.compile(s) })
	switch s := s.(type) {
	case *ir.AssignIntStmt:
		b.c.region.know(s.Target, value.Int(s.Value), b.at)
	case *ir.MakeNumberIntStmt:
		b.c.region.know(s.Target, value.Int(s.Value), b.at)
	}
}

// blocks runs blocks one after the other. Planners leave some behind that do
// nothing.
func (b *builder) blocks(s *ir.BlockStmt) {
	b.flush()
	var run []op
	for _, inner := range s.Blocks {
		k := b.c.block(inner)
		if k.run != nil {
			run = append(run, k.run)
			continue
		}
		if k.result > undefined { // what follows is never reached
			if len(run) > 0 {
				b.emit(blockOp(append(run, k.op())))
			} else {
				b.end(leave(k.result))
			}
			return
		}
	}
	if len(run) > 0 {
		b.emit(blockOp(run))
	}
}

func (b *builder) not(s *ir.NotStmt) {
	b.flush()
	k := b.c.block(s.Block)
	if k.run == nil {
		b.end(negated(k.result))
		return
	}
	inner := k.run
	cond, ok := b.c.region.condition(s.Block)
	if !ok {
		b.emit(func(m *machine, l []value.Value) int { return negated(inner(m, l)) })
		return
	}
	// The body of a `not { ... }` has held if it has set a local. OPA's planner
	// (v1.22.2) does not reset it, so that what another rule or another turn of a
	// loop has left in it would count; and it asks for it as the block's last
	// statement, which is not reached if the last way to try the body is undefined.
	b.emit(func(m *machine, l []value.Value) int {
		l[cond] = value.Value{}
		if r := inner(m, l); r != next && r != undefined {
			return leave(r)
		}
		if l[cond].Defined() {
			return undefined
		}
		return next
	})
}

// negated turns what the block of a not gave into what the not gives.
func negated(r int) int {
	switch r {
	case next:
		return undefined
	case undefined:
		return next
	}
	return leave(r)
}

// lookUp looks up a key that is not known before.
func (b *builder) lookUp(n *node, target ir.Local) op {
	source, key, base, t := b.c.expr(n.source), b.c.expr(n.key), n.base, int(target)
	return func(m *machine, l []value.Value) int {
		k := key(l)
		if !k.Defined() {
			return undefined
		}
		if err := m.hashed(k); err != nil {
			return m.fail(err)
		}
		v := source(l)
		if v = base.get(l, v, k); !v.Defined() {
			return undefined
		}
		l[t] = v
		return next
	}
}

// isConstant reports whether a statement makes a constant, or a part of one.
func (b *builder) isConstant(s ir.Stmt) bool {
	_, ok := b.c.region.constants[composed(s)]
	return ok
}

func (b *builder) compile(s ir.Stmt) op {
	switch s := s.(type) {
	case *ir.ReturnLocalStmt:
		i := b.index(s.Source)
		return func(m *machine, l []value.Value) int {
			m.result = l[i]
			return returned
		}
	case *ir.CallStmt:
		return b.call(s)
	case *ir.CallDynamicStmt:
		return b.callDynamic(s)
	case *ir.LenStmt:
		e, t := b.c.expr(b.operand(s.Source)), int(s.Target)
		return func(_ *machine, l []value.Value) int {
			v := e(l)
			if !v.IsComposite() {
				return undefined
			}
			l[t] = value.Int(int64(v.Len()))
			return next
		}
	case *ir.ScanStmt:
		return b.scan(s)
	case *ir.AssignIntStmt:
		v, t := value.Int(s.Value), int(s.Target)
		return func(_ *machine, l []value.Value) int {
			l[t] = v
			return next
		}
	case *ir.AssignVarStmt:
		return b.assignVar(s)
	case *ir.AssignVarOnceStmt:
		return b.assignOnce(s)
	case *ir.ResetLocalStmt:
		t := int(s.Target)
		return func(_ *machine, l []value.Value) int {
			l[t] = value.Value{}
			return next
		}
	case *ir.MakeNullStmt:
		return makeOp(s.Target, func() value.Value { return value.NullValue })
	case *ir.MakeNumberIntStmt:
		v := value.Int(s.Value)
		return makeOp(s.Target, func() value.Value { return v })
	case *ir.MakeNumberRefStmt:
		v := value.NumberText(b.c.strings[s.Index])
		return makeOp(s.Target, func() value.Value { return v })
	case *ir.MakeArrayStmt:
		n := int(s.Capacity)
		return makeComposite(s.Target, func() value.Value { return value.MakeArray(n) })
	case *ir.MakeObjectStmt:
		return makeComposite(s.Target, func() value.Value { return value.NewObject(0) })
	case *ir.MakeSetStmt:
		return makeComposite(s.Target, func() value.Value { return value.NewSet(0) })
	case *ir.EqualStmt:
		return b.equal(s)
	case *ir.NotEqualStmt:
		x, y := b.c.expr(b.operand(s.A)), b.c.expr(b.operand(s.B))
		return func(m *machine, l []value.Value) int {
			v, w := x(l), y(l)
			if !v.Defined() || !w.Defined() {
				return undefined
			}
			equal, err := m.equal(v, w)
			switch {
			case err != nil:
				return m.fail(err)
			case equal:
				return undefined
			}
			return next
		}
	case *ir.IsArrayStmt:
		return b.is(s.Source, value.Array)
	case *ir.IsObjectStmt:
		return b.is(s.Source, value.Object)
	case *ir.IsSetStmt:
		return b.is(s.Source, value.Set)
	case *ir.IsDefinedStmt:
		i := int(s.Source)
		if _, ok := b.c.region.constants[s.Source]; ok {
			return func(*machine, []value.Value) int { return next }
		}
		return func(_ *machine, l []value.Value) int {
			if !l[i].Defined() {
				return undefined
			}
			return next
		}
	case *ir.IsUndefinedStmt:
		i := int(s.Source)
		if _, ok := b.c.region.constants[s.Source]; ok {
			return func(*machine, []value.Value) int { return undefined }
		}
		return func(_ *machine, l []value.Value) int {
			if l[i].Defined() {
				return undefined
			}
			return next
		}
	case *ir.ArrayAppendStmt:
		return b.arrayAppend(s)
	case *ir.ObjectInsertStmt:
		return b.objectInsert(s)
	case *ir.ObjectInsertOnceStmt:
		return b.objectInsertOnce(s)
	case *ir.ObjectMergeStmt:
		x, y, t := b.c.expr(b.local(s.A)), b.c.expr(b.local(s.B)), int(s.Target)
		return func(m *machine, l []value.Value) int {
			a, b := x(l), y(l)
			if !a.Defined() || !b.Defined() {
				return undefined
			}
			v, err := m.merge(a, b)
			if err != nil {
				return m.fail(err)
			}
			l[t] = v
			return next
		}
	case *ir.SetAddStmt:
		return b.setAdd(s)
	case *ir.WithStmt:
		return b.with(s)
	case *ir.ResultSetAddStmt:
		e := b.c.expr(b.local(s.Value))
		return func(m *machine, l []value.Value) int {
			m.results = append(m.results, e(l))
			return next
		}
	}
	b.c.errorf("%w: %T", errUnknownStatement, s)
	return func(*machine, []value.Value) int { return undefined }
}

// index returns where a local is whose place has what it stands for: not of a
// constant, which is nowhere.
func (b *builder) index(l ir.Local) int {
	l = b.c.region.named(l)
	if _, ok := b.c.region.constants[l]; ok {
		b.c.errorf("a constant is used as what changes, in a plan")
	}
	return int(l)
}
