package exec

import (
	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

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
