package exec

import (
	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// node is what an operand is computed from: a constant, a local, or a look-up in
// another node. Computing it has no effect but to be undefined.
type node struct {
	constant value.Value // if defined
	local    ir.Local    // if source is nil
	source   *node
	key      *node
	// base is set for look-ups on a path into the data document.
	base bool
}

func (n *node) isConstant() bool { return n.source == nil && n.constant.Defined() }

func (n *node) isLocal() bool { return n.source == nil && !n.constant.Defined() }

// path returns the local and the names that a node is looked up by.
func (n *node) path() (root ir.Local, names []string, ok bool) {
	if n.isLocal() {
		return n.local, nil, true
	}
	if n.source == nil || !n.key.isConstant() || n.key.constant.Kind() != value.String {
		return 0, nil, false
	}
	root, names, ok = n.source.path()
	return root, append(names, n.key.constant.Text()), ok
}

// expr computes a node: the undefined Value if it is undefined.
type expr func(l []value.Value) value.Value

func (c *compiler) expr(n *node) expr {
	switch {
	case n.isConstant():
		k := n.constant
		return func([]value.Value) value.Value { return k }
	case n.isLocal():
		i := int(n.local)
		return func(l []value.Value) value.Value { return l[i] }
	}
	if root, names, ok := n.path(); ok {
		return c.pathExpr(int(root), names)
	}
	if n.base {
		source, key := c.expr(n.source), c.expr(n.key)
		return func(l []value.Value) value.Value {
			k := key(l)
			if !k.Defined() {
				return k
			}
			return source(l).GetBase(k)
		}
	}
	if n.key.isConstant() {
		source, key := c.expr(n.source), n.key.constant
		return func(l []value.Value) value.Value { return source(l).Get(key) }
	}
	source, key := c.expr(n.source), c.expr(n.key)
	return func(l []value.Value) value.Value {
		k := key(l)
		if !k.Defined() {
			return k
		}
		return source(l).Get(k)
	}
}

func (c *compiler) pathExpr(root int, names []string) expr {
	keys := make([]value.Key, len(names))
	for i, name := range names {
		keys[i] = c.options.Packed.Key(name)
	}
	switch len(keys) {
	case 1:
		k0 := &keys[0]
		return func(l []value.Value) value.Value { return l[root].GetKey(k0) }
	case 2:
		k0, k1 := &keys[0], &keys[1]
		return func(l []value.Value) value.Value { return l[root].GetKey(k0).GetKey(k1) }
	case 3:
		k0, k1, k2 := &keys[0], &keys[1], &keys[2]
		return func(l []value.Value) value.Value { return l[root].GetKey(k0).GetKey(k1).GetKey(k2) }
	}
	return func(l []value.Value) value.Value {
		v := l[root]
		for i := range keys {
			v = v.GetKey(&keys[i])
		}
		return v
	}
}

// operand returns what a statement's operand is computed from. A look-up that
// was put off for it is taken.
func (b *builder) operand(o ir.Operand) *node {
	switch v := o.Value.(type) {
	case ir.Bool:
		return &node{constant: value.Boolean(bool(v))}
	case ir.StringIndex:
		return &node{constant: value.Text(b.c.strings[v])}
	case ir.Local:
		return b.local(v)
	}
	b.c.errorf("unknown operand %T in a plan", o.Value)
	return &node{constant: value.NullValue}
}

func (b *builder) local(l ir.Local) *node {
	if k, ok := b.c.region.constants[l]; ok {
		return &node{constant: k}
	}
	for i, p := range b.pending {
		if p.target == l {
			b.pending = append(b.pending[:i:i], b.pending[i+1:]...)
			return p.node
		}
	}
	if k, ok := b.known[l]; ok {
		return &node{constant: k}
	}
	return &node{local: l}
}
