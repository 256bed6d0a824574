package exec

import (
	"slices"
	"strconv"
	"strings"

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
	base     footing // of the source
	// names is how many names lead here from the local root, 0 if not only names do.
	names int
	root  ir.Local
}

// lookUpIn returns the look-up of a key.
func lookUpIn(source, key *node, base footing) *node {
	n := &node{source: source, key: key, base: base}
	switch {
	case !key.isConstant() || key.constant.Kind() != value.String:
	case source.isLocal():
		n.root, n.names = source.local, 1
	case source.names > 0:
		n.root, n.names = source.root, source.names+1
	}
	return n
}

func (n *node) isConstant() bool { return n.source == nil && n.constant.Defined() }

func (n *node) isLocal() bool { return n.source == nil && !n.constant.Defined() }

// isBelow reports whether a node is looked up by names in a local.
func (n *node) isBelow(l ir.Local) bool { return n.names > 0 && n.root == l }

// path returns the local and the names that a node is looked up by.
func (n *node) path() (root ir.Local, names []string, ok bool) {
	if n.isLocal() {
		return n.local, nil, true
	}
	if n.names == 0 {
		return 0, nil, false
	}
	root, names = n.root, make([]string, n.names)
	for i := range slices.Backward(names) {
		names[i] = n.key.constant.Text()
		n = n.source
	}
	return root, names, true
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
		return c.pathExpr(int(root), names, n.base)
	}
	source, key, base := c.expr(n.source), n.key.constant, n.base
	return func(l []value.Value) value.Value { return base.get(l, source(l), key) }
}

// kept is a path that is looked up once a call of the function, and where its
// value is kept from then on. slot is -1 if it is looked up in one place only, and
// there once.
type kept struct {
	slot int
	uses int
}

// pathKey is another text for other names.
func pathKey(names []string) string {
	var b strings.Builder
	for _, name := range names {
		b.WriteString(strconv.Itoa(len(name)))
		b.WriteByte(':')
		b.WriteString(name)
	}
	return b.String()
}

// pathExpr looks names up from a local. What the input holds is the same
// throughout a function, unless the function replaces it.
func (c *compiler) pathExpr(root int, names []string, base footing) expr {
	path := c.options.Data.Path(names...)
	if base != inValue { // a with statement may replace what is there
		return func(l []value.Value) value.Value {
			if v := path.Of(l[root]); v.Defined() {
				return v
			}
			return base.follow(l, l[root], names)
		}
	}
	if root != int(ir.Input) || c.changed[ir.Input] {
		return func(l []value.Value) value.Value { return path.Of(l[root]) }
	}
	key := pathKey(names)
	k, ok := c.kept[key]
	if !ok {
		k = &kept{slot: -1}
		c.kept[key] = k
	}
	if k.uses++; k.slot < 0 && (k.uses > 1 || c.loops > 0) {
		k.slot = c.locals
		c.locals++
	}
	return func(l []value.Value) value.Value {
		if k.slot < 0 {
			return path.Of(l[root])
		}
		if v := l[k.slot]; v.Defined() {
			return v
		}
		v := path.Of(l[root])
		l[k.slot] = v
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
	l = b.c.region.named(l)
	if k, ok := b.c.region.constants[l]; ok {
		return &node{constant: k}
	}
	if n, ok := b.take(l); ok {
		return n
	}
	if k, ok := b.c.region.knows(l, b.at); ok {
		return &node{constant: k}
	}
	return &node{local: l}
}
