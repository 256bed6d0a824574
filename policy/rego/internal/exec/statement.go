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

func makeOp(target ir.Local, made func() value.Value) op {
	t := int(target)
	return func(_ *machine, l []value.Value) int {
		l[t] = made()
		return next
	}
}

// compositeBytes is what an empty composite takes.
const compositeBytes = 128

func makeComposite(target ir.Local, made func() value.Value) op {
	t := int(target)
	return func(m *machine, l []value.Value) int {
		if err := m.meter.Bytes(compositeBytes); err != nil {
			return m.fail(err)
		}
		l[t] = made()
		return next
	}
}

func (b *builder) is(o ir.Operand, k value.Kind) op {
	e := b.c.expr(b.operand(o))
	return func(_ *machine, l []value.Value) int {
		if e(l).Kind() != k {
			return undefined
		}
		return next
	}
}

func (b *builder) equal(s *ir.EqualStmt) op {
	nx, ny := b.operand(s.A), b.operand(s.B)
	if nx.isConstant() {
		nx, ny = ny, nx
	}
	x := b.c.expr(nx)
	if ny.isConstant() {
		k := ny.constant
		if k.Kind() == value.String && !k.IsLong(longText) {
			text := k.Text()
			return func(_ *machine, l []value.Value) int {
				if !x(l).IsText(text) {
					return undefined
				}
				return next
			}
		}
		return func(m *machine, l []value.Value) int { return m.same(x(l), k) }
	}
	y := b.c.expr(ny)
	if root, names, ok := nx.path(); ok && len(names) == 1 && nx.base == inValue {
		i, key := int(root), b.c.options.Data.Key(names[0])
		return func(m *machine, l []value.Value) int {
			return m.same(l[i].GetKey(&key), y(l))
		}
	}
	return func(m *machine, l []value.Value) int { return m.same(x(l), y(l)) }
}

// same goes on if two values are defined and equal.
func (m *machine) same(v, w value.Value) int {
	if v.Kind() != w.Kind() || !v.Defined() {
		return undefined
	}
	if v.Kind() == value.String && !v.IsLong(longText) {
		if !w.IsText(v.Text()) {
			return undefined
		}
		return next
	}
	equal, err := m.equal(v, w)
	switch {
	case err != nil:
		return m.fail(err)
	case equal:
		return next
	}
	return undefined
}

// longText is how many bytes are compared in about a step.
const longText = 256

// equal compares values, and charges for those that take long.
func (m *machine) equal(v, w value.Value) (bool, error) {
	if v.IsComposite() && w.IsComposite() {
		return m.call.Equal(v, w)
	}
	if v.IsLong(longText) && w.IsLong(longText) {
		if err := m.call.Look(v); err != nil {
			return false, err
		}
	}
	return value.Equal(v, w), nil
}

// hashed charges for a value that is looked up as a key, or becomes one.
func (m *machine) hashed(v value.Value) error {
	if v.IsComposite() || v.IsLong(longText) {
		return m.call.Look(v)
	}
	return nil
}

func (b *builder) assignVar(s *ir.AssignVarStmt) op {
	either := b.c.region.base[s.Target]
	assign := b.assignTo(s)
	if either <= inValue || b.c.region.footing(s.Source) != inBase {
		return assign
	}
	return func(m *machine, l []value.Value) int {
		l[either] = value.NullValue
		return assign(m, l)
	}
}

func (b *builder) assignTo(s *ir.AssignVarStmt) op {
	n := b.operand(s.Source)
	t := int(s.Target)
	if n.isLocal() && (n.local == ir.Input || n.local == ir.Data) && b.c.isSave(s) {
		return b.save(s, n.local)
	}
	if n.isConstant() {
		k := n.constant
		return func(_ *machine, l []value.Value) int {
			l[t] = k
			return next
		}
	}
	return b.assign(s.Target, n)
}

func (b *builder) assignOnce(s *ir.AssignVarOnceStmt) op {
	e, t := b.c.expr(b.operand(s.Source)), int(s.Target)
	conflict := b.c.conflict(s.GetLocation())
	return func(m *machine, l []value.Value) int {
		v := e(l)
		if !v.Defined() {
			return undefined
		}
		if l[t].Defined() {
			return m.agree(l[t], v, conflict)
		}
		l[t] = v
		return next
	}
}

// keyLookUp recognizes a loop over a base document whose body begins by comparing
// the key with a value: a package is gone through by a key that is known.
func (b *builder) keyLookUp(s *ir.ScanStmt) (key ir.Operand, rest *ir.Block, ok bool) {
	if b.c.region.footing(ir.Operand{Value: s.Source}) != inBase || len(s.Block.Stmts) == 0 {
		return key, nil, false
	}
	equal, ok := s.Block.Stmts[0].(*ir.EqualStmt)
	if !ok || !isLocal(equal.A, s.Key) || isLocal(equal.B, s.Key) || isLocal(equal.B, s.Value) {
		return key, nil, false
	}
	rest = &ir.Block{Stmts: s.Block.Stmts[1:]}
	in := b.c.region.spans[s.Block]
	b.c.region.spans[rest] = span{in.from + 1, in.to}
	return equal.B, rest, true
}

// scanKey runs the body of such a loop for the one member that has the key. OPA
// looks it up as on any path into a base document.
func (b *builder) scanKey(s *ir.ScanStmt, known ir.Operand, rest *ir.Block) op {
	source, want := b.c.expr(b.local(s.Source)), b.c.expr(b.operand(known))
	b.flush()
	inner := b.c.block(rest).op()
	key, val, steps := int(s.Key), int(s.Value), weight(rest)
	return func(m *machine, l []value.Value) int {
		v, k := source(l), want(l)
		if !v.Defined() {
			return undefined
		}
		if err := m.hashed(k); err != nil {
			return m.fail(err)
		}
		if err := m.meter.Step(steps); err != nil {
			return m.fail(err)
		}
		if l[val] = v.GetBase(k); !l[val].Defined() {
			return next
		}
		if l[key] = k; k.Kind() == value.Number && v.Kind() == value.Object {
			l[key] = value.Text(k.Numeral())
		}
		if r := inner(m, l); r != next && r != undefined {
			return leave(r)
		}
		return next
	}
}

func (b *builder) scan(s *ir.ScanStmt) op {
	if known, rest, ok := b.keyLookUp(s); ok {
		return b.scanKey(s, known, rest)
	}
	source := b.c.expr(b.local(s.Source))
	b.flush()
	b.c.loops++
	inner := b.c.block(s.Block).op()
	b.c.loops--
	key, val := int(s.Key), int(s.Value)
	until, ends := b.c.region.until[s]
	if !ends {
		until = -1
	}
	loop := &loop{
		body: inner, key: key, val: val, keyed: b.c.region.of(s.Key).uses > 0, until: int(until), steps: weight(s.Block),
	}
	return func(m *machine, l []value.Value) int {
		v := source(l)
		switch v.Kind() {
		case value.Undefined:
			return undefined
		case value.Array:
			return m.scanArray(l, v, loop)
		case value.Object, value.Set:
			return m.scanMembers(l, v, loop)
		}
		return next
	}
}

// loop is a block that is run for each element of a composite.
type loop struct {
	body     op
	key, val int  // locals
	keyed    bool // the key is read
	until    int  // a local; once it is set the loop is over. -1 for none
	steps    int64
}

func (m *machine) scanArray(l []value.Value, v value.Value, o *loop) int {
	for i := range v.Len() {
		if err := m.meter.Step(o.steps); err != nil {
			return m.fail(err)
		}
		if o.keyed {
			l[o.key] = value.Int(int64(i))
		}
		l[o.val] = v.Elem(i)
		if r := o.body(m, l); r != next && r != undefined {
			return leave(r)
		}
		if o.until >= 0 && l[o.until].Defined() {
			return next
		}
	}
	return next
}

// scanMembers goes through the members of an object or a set.
func (m *machine) scanMembers(l []value.Value, v value.Value, o *loop) int {
	c, err := m.call.Scan(v)
	if err != nil {
		return m.fail(err)
	}
	for c.Next(&l[o.key], &l[o.val]) {
		if err := m.meter.Step(o.steps); err != nil {
			return m.fail(err)
		}
		if r := o.body(m, l); r != next && r != undefined {
			return leave(r)
		}
		if o.until >= 0 && l[o.until].Defined() {
			return next
		}
	}
	return next
}

func (b *builder) arrayAppend(s *ir.ArrayAppendStmt) op {
	e, t := b.c.expr(b.operand(s.Value)), b.index(s.Array)
	if b.c.collect == s.Array && b.c.collect != ir.Input {
		return func(m *machine, l []value.Value) int {
			v := e(l)
			if !v.Defined() {
				return undefined
			}
			m.answer = v
			return next
		}
	}
	return func(m *machine, l []value.Value) int {
		v := e(l)
		if !v.Defined() {
			return undefined
		}
		if err := m.meter.Bytes(valueBytes); err != nil {
			return m.fail(err)
		}
		l[t].Append(v)
		return next
	}
}

// valueBytes is what a value in a composite takes, the composite's own growth
// counted in.
const valueBytes = 64

func (b *builder) setAdd(s *ir.SetAddStmt) op {
	e, t := b.c.expr(b.operand(s.Value)), b.index(s.Set)
	conflict := b.c.keyConflict(s.GetLocation())
	return func(m *machine, l []value.Value) int {
		v := e(l)
		if !v.Defined() {
			return undefined
		}
		if err := m.meter.Work(1, valueBytes); err != nil {
			return m.fail(err)
		}
		if err := m.hashed(v); err != nil {
			return m.fail(err)
		}
		if !l[t].IsBuilt(value.Set) {
			return m.fail(conflict)
		}
		l[t].Add(v)
		return next
	}
}

func (b *builder) objectInsert(s *ir.ObjectInsertStmt) op {
	k, e, t := b.c.expr(b.operand(s.Key)), b.c.expr(b.operand(s.Value)), b.index(s.Object)
	conflict := b.c.keyConflict(s.GetLocation())
	return func(m *machine, l []value.Value) int {
		key, v := k(l), e(l)
		if !key.Defined() || !v.Defined() {
			return undefined
		}
		if err := m.meter.Work(1, 2*valueBytes); err != nil {
			return m.fail(err)
		}
		if err := m.hashed(key); err != nil {
			return m.fail(err)
		}
		if !l[t].IsBuilt(value.Object) {
			return m.fail(conflict)
		}
		l[t].Insert(key, v)
		return next
	}
}

func (b *builder) objectInsertOnce(s *ir.ObjectInsertOnceStmt) op {
	k, e, t := b.c.expr(b.operand(s.Key)), b.c.expr(b.operand(s.Value)), b.index(s.Object)
	conflict := b.c.keyConflict(s.GetLocation())
	return func(m *machine, l []value.Value) int {
		key, v := k(l), e(l)
		if !key.Defined() || !v.Defined() {
			return undefined
		}
		if err := m.meter.Work(1, 2*valueBytes); err != nil {
			return m.fail(err)
		}
		if err := m.hashed(key); err != nil {
			return m.fail(err)
		}
		if !l[t].IsBuilt(value.Object) {
			return m.fail(conflict)
		}
		if have := l[t].Get(key); have.Defined() {
			return m.agree(have, v, conflict)
		}
		// What other rules put into the object must not change the value.
		value.Seal(v)
		l[t].Insert(key, v)
		return next
	}
}

// agree goes on if a result is what it is already, else it is a conflict.
func (m *machine) agree(have, v value.Value, conflict *Error) int {
	equal, err := m.equal(have, v)
	switch {
	case err != nil:
		return m.fail(err)
	case !equal:
		return m.fail(conflict.between(have, v))
	}
	return next
}

// merge puts two documents together: objects member by member; of anything else
// a wins.
func (m *machine) merge(a, b value.Value) (value.Value, error) {
	if a.Kind() != value.Object || b.Kind() != value.Object {
		return a, nil
	}
	n := int64(a.Len() + b.Len())
	if err := m.meter.Work(1+2*n, 2*n*valueBytes); err != nil {
		return value.Value{}, err
	}
	o := value.NewObject(int(n))
	members, err := m.call.Scan(a)
	if err != nil {
		return value.Value{}, err
	}
	for k, v := range members.All() {
		if err := m.hashed(k); err != nil {
			return value.Value{}, err
		}
		if w := b.Get(k); w.Defined() {
			both, err := m.merge(v, w)
			if err != nil {
				return value.Value{}, err
			}
			v = both
		}
		o.Insert(k, v)
	}
	if members, err = m.call.Scan(b); err != nil {
		return value.Value{}, err
	}
	for k, v := range members.All() {
		if err := m.hashed(k); err != nil {
			return value.Value{}, err
		}
		if !a.Get(k).Defined() {
			o.Insert(k, v)
		}
	}
	return o, nil
}
