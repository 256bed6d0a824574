package reads

import (
	"context"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ir"
)

// Of returns the set of paths that any evaluation of a plan of p may read. It
// does not change p, and needs time about in proportion to its length. Its error
// is ctx's, if it ended before.
func Of(ctx context.Context, p *ir.Policy) (*Set, error) {
	a := newAnalysis(ctx, p)
	if p.Plans != nil {
		for _, plan := range p.Plans.Plans {
			a.plan(plan)
		}
	}
	if a.err != nil {
		return nil, a.err
	}
	return &Set{reads: a.input.collect(p, nil)}, nil
}

// An analysis runs plans on abstract values.
type analysis struct {
	*sources
	input *node // the root; being the set, it only grows

	strings []value // of p.Static.Strings, none where not made yet
	numbers []value // the same, spelled as numbers
	texts   []*ir.StringConst
	funcs   functions

	frame *frame       // that runs
	spare []*frame     // that were run
	at    *ir.Location // of the statement that runs
	steps int          // statements run

	ctx   context.Context
	looks int   // at statements, locals and sources
	asked int   // looks when the context was asked
	err   error // of the context
}

func newAnalysis(ctx context.Context, p *ir.Policy) *analysis {
	a := &analysis{ctx: ctx, asked: -lookPerAsk, sources: newSources(), input: &node{}}
	a.input.value = a.only(source{kind: fromInput, node: a.input})
	if p.Static != nil {
		a.texts = p.Static.Strings
		a.strings = make([]value, len(a.texts))
		a.numbers = make([]value, len(a.texts))
		for i := range a.texts {
			a.strings[i], a.numbers[i] = none, none
		}
	}
	a.funcs = newFunctions(p)
	return a
}

func (a *analysis) plan(plan *ir.Plan) {
	f := &frame{answers: map[*node]*ir.Location{}}
	a.run(f, plan.Blocks, []ir.Local{ir.Input, ir.Data}, []value{a.input.value, known})
}

// How many statements, locals and sources are looked at, and after how many of
// them the context is asked. What a loop assigns to is looked at once more for
// each loop around it, what a patch replaces once for each way to it.
const (
	maxLooks   = 20_000_000
	lookPerAsk = 4096
)

// look counts. If it is too much, or the context has ended, the whole input is
// read: then there is nothing to add, and all that still runs ends.
func (a *analysis) look(times int) {
	if a.looks += times; a.looks > maxLooks {
		a.widen(a.input, "is read in too many ways to be followed")
	}
	if a.looks-a.asked < lookPerAsk || a.err != nil {
		return
	}
	a.asked = a.looks
	if a.ctx.Err() != nil {
		a.err = fmt.Errorf("stopped before it was known what is read: %w", context.Cause(a.ctx))
		a.widen(a.input, "is not followed to the end")
	}
}

// merge joins two values. If there is too much to tell apart, both are read.
func (a *analysis) merge(x, y value) value {
	v, ok := a.join(x, y)
	if ok {
		return v
	}
	const why = "is one of too many values to be followed"
	a.read(x, why)
	a.read(y, why)
	if a.set(x) == x && a.set(y) == y {
		return known
	}
	return perhaps
}

// read reads all that a value may hold, and returns what is left: a known value.
func (a *analysis) read(v value, why string) value {
	if v == known || a.input.whole {
		return known
	}
	for src := range a.of(v) {
		a.look(1)
		switch src.kind {
		case fromInput:
			a.widen(src.node, why)
		case isPatched:
			a.read(src.base, why)
			a.read(src.over, why)
		}
	}
	return known
}

// widen puts all that is at a node into the set.
func (a *analysis) widen(n *node, why string) {
	if n.covered() {
		return
	}
	n.whole, n.at, n.why = true, a.at, why
	if f := a.frame; f != nil && f.fn == nil {
		if at := f.answers[n]; at != nil {
			n.at, n.why = at, "is part of the answer"
		}
	}
}

// walk goes one step down from a node.
func (a *analysis) walk(n *node, k Key) value {
	if n.covered() {
		return known
	}
	c := n.child(k, a.sources)
	if c == nil {
		a.widen(n, "is too deep to be followed")
		return known
	}
	if !c.walked {
		c.walked, c.at, c.why = true, a.at, "is looked up"
	}
	return c.value
}

// lookup returns what is found in v at a constant key.
func (a *analysis) lookup(v value, k Key) value {
	if a.input.whole {
		return known
	}
	found := none
	for src := range a.of(v) {
		a.look(1)
		switch {
		case src.kind == fromInput:
			found = a.merge(found, a.walk(src.node, k))
		case src.kind == isPatched && src.key == k:
			found = a.merge(found, src.over)
		case src.kind == isPatched:
			found = a.merge(found, a.lookup(src.base, k))
		case src.kind != isUnset:
			found = a.merge(found, known)
		}
	}
	return a.defined(found)
}

// defined returns v for a local that holds something when the next statement is
// reached. If v has no source for that, the statement is not reached.
func (a *analysis) defined(v value) value {
	if v = a.set(v); v == none {
		return known
	}
	return v
}

// patch returns base with what is at path, at least one key long, replaced by
// over.
func (a *analysis) patch(base value, path []Key, over value) value {
	if len(path) > 1 {
		over = a.patch(a.below(base, path[0]), path[1:], over)
	}
	if max(a.depth(base), a.depth(over)) >= maxNesting {
		const why = "is under too many uses of with"
		a.read(base, why)
		return a.read(over, why)
	}
	return a.only(source{kind: isPatched, key: path[0], base: base, over: over})
}

// below returns what is in v at a constant key, or is missing there. Nobody has
// looked yet, so no path is walked.
func (a *analysis) below(v value, k Key) value {
	if a.input.whole {
		return known
	}
	found := none
	for src := range a.of(v) {
		a.look(1)
		switch {
		case src.kind == fromInput && !src.node.covered():
			if c := src.node.child(k, a.sources); c != nil {
				found = a.merge(found, c.value)
				continue
			}
			a.widen(src.node, "is too deep to be followed")
			found = a.merge(found, known)
		case src.kind == isPatched && src.key == k:
			found = a.merge(found, src.over)
		case src.kind == isPatched:
			found = a.merge(found, a.below(src.base, k))
		default:
			found = a.merge(found, known)
		}
	}
	return a.defined(found)
}

func (a *analysis) constant(k Key) value { return a.only(source{kind: isConstant, key: k}) }

// text returns the constant string with an index in the plan.
func (a *analysis) text(index int) value {
	if index < 0 || index >= len(a.texts) {
		return known
	}
	if a.strings[index] == none {
		a.strings[index] = a.add(source{kind: isConstant, key: Key{Kind: String, Text: a.texts[index].Value}})
	}
	return a.strings[index]
}

// number returns the constant number with an index in the plan.
func (a *analysis) number(index int) value {
	if index < 0 || index >= len(a.texts) {
		return known
	}
	if a.numbers[index] == none {
		a.numbers[index] = known
		if k, ok := number(a.texts[index].Value); ok {
			a.numbers[index] = a.add(source{kind: isConstant, key: k})
		}
	}
	return a.numbers[index]
}

func (a *analysis) operand(o ir.Operand) value {
	switch v := o.Value.(type) {
	case ir.Local:
		return a.get(v)
	case ir.StringIndex:
		return a.text(int(v))
	case ir.Bool:
		return a.boolean(bool(v))
	}
	return a.everything()
}

func (a *analysis) boolean(b bool) value {
	if b {
		return a.constant(Key{Kind: Bool, Text: "true"})
	}
	return a.constant(Key{Kind: Bool, Text: "false"})
}

// everything gives up: it is the answer to what is not understood.
func (a *analysis) everything() value {
	a.widen(a.input, "is read by a statement that is not understood")
	return known
}
