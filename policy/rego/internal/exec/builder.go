package exec

import (
	"maps"

	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// builder compiles one block.
type builder struct {
	c   *compiler
	ops []op
	// pending are look-ups that are put off, because the next statement may be the
	// only one that reads them.
	pending []pending
	// known are numbers that locals have at this place.
	known map[ir.Local]value.Value
	// ended is set once no statement that follows is ever reached: the block gives
	// result.
	ended  bool
	result int
}

// code is a compiled block. If run is nil it does nothing but give result.
type code struct {
	run    op
	result int
}

func (k code) op() op {
	if k.run != nil {
		return k.run
	}
	r := k.result
	return func(*machine, []value.Value) int { return r }
}

type pending struct {
	target ir.Local
	node   *node
}

func (c *compiler) block(b *ir.Block) code { return c.inner(b, nil) }

// inner compiles a block that stands where the given numbers are known.
func (c *compiler) inner(b *ir.Block, known map[ir.Local]value.Value) code {
	bl := &builder{c: c, known: maps.Clone(known)}
	if bl.known == nil {
		bl.known = map[ir.Local]value.Value{}
	}
	visit(b, func(s ir.Stmt) { // a loop may come back with another value
		defs, _ := access(s)
		for _, l := range defs {
			delete(bl.known, l)
		}
	})
	for _, s := range b.Stmts {
		if bl.statement(s); bl.ended {
			break
		}
	}
	bl.flush()
	if len(bl.ops) == 0 {
		return code{result: bl.result}
	}
	if bl.ended {
		bl.emit(code{result: bl.result}.op())
	}
	return code{run: sequence(bl.ops)}
}

// end makes r what the block gives when it comes here.
func (b *builder) end(r int) {
	if r != next {
		b.ended, b.result = true, r
	}
}

func (b *builder) emit(o op) { b.ops = append(b.ops, o) }

// flush computes what was put off.
func (b *builder) flush() {
	for _, p := range b.pending {
		b.ops = append(b.ops, b.assign(p.target, p.node))
	}
	b.pending = nil
}

// assign computes a node, and is undefined if the node is.
func (b *builder) assign(target ir.Local, n *node) op {
	t, e := int(target), b.c.expr(n)
	if n.isLocal() {
		i := int(n.local)
		return func(_ *machine, l []value.Value) int {
			l[t] = l[i]
			return next
		}
	}
	return func(_ *machine, l []value.Value) int {
		v := e(l)
		if !v.Defined() {
			return undefined
		}
		l[t] = v
		return next
	}
}

// step compiles a statement that is not put off: what it reads is taken first,
// what else was put off comes before it.
func (b *builder) step(compile func() op) {
	o := compile()
	b.flush()
	b.emit(o)
}
