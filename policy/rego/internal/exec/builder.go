package exec

import (
	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// builder compiles one block.
type builder struct {
	c   *compiler
	ops []op
	// at is the position of the statement that is being compiled.
	at int
	// pending are look-ups that are put off, because the next statement may be the
	// only one that reads them, in order; deferred is where they stand, by target.
	pending  []pending
	deferred map[ir.Local]int
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

// pending is a look-up that is put off. It has no node any more once it is taken.
type pending struct {
	target ir.Local
	node   *node
}

// block compiles a block of the region that is being compiled.
func (c *compiler) block(b *ir.Block) code {
	bl := &builder{c: c}
	c.region.open(c.region.spans[b])
	for at, s := range c.statements(b) {
		bl.at = at
		if bl.statement(s); bl.ended {
			break
		}
	}
	c.region.close()
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

// putOff puts a look-up off.
func (b *builder) putOff(target ir.Local, n *node) {
	if b.deferred == nil {
		b.deferred = map[ir.Local]int{}
	}
	b.deferred[target] = len(b.pending)
	b.pending = append(b.pending, pending{target, n})
}

// take returns the look-up that was put off for a local, to be computed now.
func (b *builder) take(l ir.Local) (*node, bool) {
	i, ok := b.deferred[l]
	if !ok {
		return nil, false
	}
	n := b.pending[i].node
	b.pending[i].node = nil
	delete(b.deferred, l)
	return n, true
}

// flush computes what was put off.
func (b *builder) flush() {
	for _, p := range b.pending {
		if p.node != nil {
			b.ops = append(b.ops, b.assign(p.target, p.node))
		}
	}
	b.pending = nil
	clear(b.deferred)
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
