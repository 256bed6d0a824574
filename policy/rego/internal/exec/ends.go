package exec

import (
	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// ends finds the loops that set one local outside, and only to one constant, and
// cannot fail: once it is set, going on changes nothing.
//
// Each statement that sets something tells the loops around it, from the innermost
// outwards, as far as somebody outside of them reads what it sets. A loop that has
// been told two things is out of question, and is passed over from then on, so that
// all of this takes little more than one look at each statement and loop.
type ends struct {
	c     *compiler
	loops []candidate
}

// candidate is a loop that may have an end.
type candidate struct {
	scan *ir.ScanStmt
	body span
	// around is the loop around this one, or one around that if those between are
	// out of question; none if there is none.
	around int
	// target is the local that the loop sets to what, once told is set.
	target ir.Local
	what   value.Value
	told   bool
	// out is set if the loop is out of question.
	out bool
}

const none = -1

// findEnds finds the loops that are over once a local is set.
func (r *region) findEnds(c *compiler, b *ir.Block) {
	e := ends{c: c}
	e.look(b, none)
	for _, l := range e.loops {
		if l.told && !l.out && l.target != ir.Input {
			r.until[l.scan] = l.target
		}
	}
}

// look goes through a block in a loop.
func (e *ends) look(b *ir.Block, in int) {
	for _, s := range e.c.statements(b) {
		e.statement(s, in)
		if scan, ok := s.(*ir.ScanStmt); ok {
			e.loops = append(e.loops, candidate{scan: scan, body: e.c.region.spans[scan.Block], around: in})
			e.look(scan.Block, len(e.loops)-1)
			continue
		}
		for _, inner := range blocksOf(s) {
			e.look(inner, in)
		}
	}
}

// statement tells the loops around a statement what it does.
func (e *ends) statement(s ir.Stmt, in int) {
	switch s := s.(type) {
	case *ir.ReturnLocalStmt, *ir.ResultSetAddStmt:
		e.rejectAll(in)
	case *ir.AssignVarStmt:
		v, constant := e.c.constantOf(s.Source)
		e.set(s.Target, v, constant, in)
		return
	case *ir.AssignVarOnceStmt:
		// If its target has another value, that is a conflict: only a loop that sets
		// nothing but this cannot fail.
		if v, constant := e.c.constantOf(s.Source); constant && e.c.region.shared[s.Target] {
			e.set(s.Target, v, true, in)
		} else {
			e.rejectAll(in)
		}
		return
	}
	if e.c.mayFail(s, nil) {
		e.rejectAll(in)
	}
	if composite, ok := change(s); ok {
		e.set(composite, value.Value{}, false, in)
	}
	defs(s, func(l ir.Local) { e.set(l, value.Value{}, false, in) })
}

// set tells the loops from in on outwards that l is set in them, to a constant or
// to something else.
func (e *ends) set(l ir.Local, v value.Value, constant bool, in int) {
	for in = e.open(in); in != none && e.seenOutside(l, e.loops[in].body); in = e.open(e.loops[in].around) {
		switch k := &e.loops[in]; {
		case !constant || k.told && (k.target != l || !identical(k.what, v)):
			k.out = true
		case k.told:
			return // and so are those around it
		default:
			k.target, k.what, k.told = l, v, true
		}
	}
}

// seenOutside reports whether anything outside of a loop's body may read a local.
func (e *ends) seenOutside(l ir.Local, body span) bool {
	r := e.c.region
	k := r.of(l)
	return r.shared[l] || k.uses != k.reads || !k.readIn(body)
}

func (e *ends) rejectAll(in int) {
	for in = e.open(in); in != none; in = e.open(e.loops[in].around) {
		e.loops[in].out = true
	}
}

// open returns the innermost loop from in on outwards that is not out of question.
func (e *ends) open(in int) int {
	to := in
	for to != none && e.loops[to].out {
		to = e.loops[to].around
	}
	for in != to { // the next one that asks has a short way
		in, e.loops[in].around = e.loops[in].around, to
	}
	return to
}
