package exec

import (
	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// isSave reports whether a statement saves a document that a with statement
// replaces, for what comes after the with to get it back.
func (c *compiler) isSave(s *ir.AssignVarStmt) bool { return !c.shared[s.Target] }

// save keeps a document, and beside it the number that names it.
func (b *builder) save(s *ir.AssignVarStmt, from ir.Local) op {
	t := int(s.Target)
	id, ok := b.c.saves[s.Target]
	if !ok {
		id = b.c.locals
		b.c.locals++
		b.c.saves[s.Target] = id
	}
	return func(m *machine, l []value.Value) int {
		w := &m.worlds[m.world]
		n := w.input
		if from == ir.Data {
			n = w.data
		}
		l[t], l[id] = l[from], value.Int(n)
		return next
	}
}

// with runs a block in a world where a document, or a part of it, is another.
func (b *builder) with(s *ir.WithStmt) op {
	n := b.operand(s.Value)
	b.flush()
	e := b.c.expr(n)
	inner := b.c.block(s.Block).op()
	t := int(s.Local)
	path := make([]value.Value, len(s.Path))
	for i, p := range s.Path {
		path[i] = value.Text(b.c.strings[p])
	}
	document := s.Local == ir.Input || s.Local == ir.Data
	saved, restores := 0, false
	if n.isLocal() && len(path) == 0 {
		saved, restores = b.c.saves[n.local]
	}
	return func(m *machine, l []value.Value) int {
		if err := m.meter.Step(1); err != nil {
			return m.fail(err)
		}
		v := e(l)
		if !v.Defined() && !restores {
			return undefined
		}
		before := l[t]
		if len(path) > 0 {
			var err error
			if v, err = m.upsert(before, path, v); err != nil {
				return m.fail(err)
			}
		}
		l[t] = v
		if !document {
			r := inner(m, l)
			l[t] = before
			return around(r)
		}
		w, count := m.worlds[m.world], len(m.worlds)
		var id int64
		if restores {
			id, _ = l[saved].Int64()
		} else {
			id = m.fresh()
		}
		var previous int
		if s.Local == ir.Input {
			previous = m.enter(id, w.data)
		} else {
			previous = m.enter(w.input, id)
		}
		r := inner(m, l)
		m.leave(previous, count)
		l[t] = before
		return around(r)
	}
}

// around turns what the block of a with gave into what the with gives: it is
// undefined if its block is.
func around(r int) int {
	if r > undefined {
		return r - 1
	}
	return r
}

// upsert returns v with the value at path replaced; what is no object on the way
// there becomes one.
func (m *machine) upsert(v value.Value, path []value.Value, replacement value.Value) (value.Value, error) {
	if len(path) == 0 {
		return replacement, nil
	}
	members := 0
	if v.Kind() == value.Object {
		members = v.Len()
	}
	if err := m.meter.Work(1+2*int64(members), 2*int64(1+members)*valueBytes); err != nil {
		return value.Value{}, err
	}
	below, err := m.upsert(v.Get(path[0]), path[1:], replacement)
	if err != nil {
		return value.Value{}, err
	}
	o := value.NewBase(members + 1)
	if members > 0 {
		copied, err := m.call.Scan(v)
		if err != nil {
			return value.Value{}, err
		}
		for k, e := range copied.All() {
			if err := m.hashed(k); err != nil {
				return value.Value{}, err
			}
			o.Insert(k, e)
		}
	}
	o.Insert(path[0], below)
	return o, nil
}
