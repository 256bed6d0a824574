package exec

import (
	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// footing says whether a value is what a path into the data document leads to. OPA
// takes the steps of such a path for texts, see [value.Value.GetBase]: data.a[7] is
// the member "7". What a variable or a pattern is looked up in is not: {7: x} =
// data.a has no member 7.
type footing int

const (
	// inValue is a value, however it came about.
	inValue footing = 0
	// inBase is a part of the data document.
	inBase footing = -1
	// Any other number is of a local that has a value if it is such a part, and
	// else is not: a reference led to a rule, or else to data.
)

// get looks a key up in v.
func (f footing) get(l []value.Value, v, key value.Value) value.Value {
	if f == inBase || f > inValue && l[f].Defined() {
		return v.GetBase(key)
	}
	return v.Get(key)
}

// follow looks names up, one in the other.
func (f footing) follow(l []value.Value, v value.Value, names []string) value.Value {
	for _, name := range names {
		v = f.get(l, v, value.Text(name))
	}
	return v
}

// footing returns what an operand stands on.
func (r *region) footing(o ir.Operand) footing {
	if l, ok := o.Value.(ir.Local); ok {
		return r.base[l]
	}
	return inValue
}

// findBase follows paths from the data document. A step of a path is read once, by
// the next one; a pattern also asks what it is, and how many members it has.
func (r *region) findBase(c *compiler, b *ir.Block) {
	isStep := func(l ir.Local) bool { k := r.of(l); return len(k.sets) == 1 && k.reads == 1 }
	c.visit(b, func(s ir.Stmt) {
		switch s := s.(type) {
		case *ir.DotStmt:
			if isStep(s.Target) {
				r.stand(s.Target, r.footing(s.Source))
			}
		case *ir.ScanStmt:
			if isStep(s.Value) {
				r.stand(s.Value, r.footing(ir.Operand{Value: s.Source}))
			}
		case *ir.CallDynamicStmt:
			// The planner sets its result a second time, to what is in data, for when
			// there is no rule.
			if k := r.of(s.Result); len(k.sets) == 2 && k.reads == 1 {
				r.base[s.Result] = footing(c.locals)
				c.locals++
			}
		}
	})
}

func (r *region) stand(l ir.Local, f footing) {
	if f != inValue {
		r.base[l] = f
	}
}
