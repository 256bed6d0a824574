package exec

import (
	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

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
