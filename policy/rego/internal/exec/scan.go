package exec

import (
	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

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
