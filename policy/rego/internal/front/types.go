package front

import (
	"encoding/binary"
	"hash/maphash"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"
)

// measureTypes charges for the type checker. It goes through rules and
// expressions in the checker's order and does what the checker does, but of the
// types it keeps only how large they are.
func (m *meter) measureTypes(c *ast.Compiler) error {
	sorted, _ := c.Graph.Sort()
	t := typer{meter: m, compiler: c, rules: map[*ast.TreeNode]*ruleShape{}}
	for _, rule := range sorted {
		if t.rule(rule.(*ast.Rule)); t.err != nil {
			return t.err
		}
	}
	return nil
}

// A shape is what is known of a type: it is not larger than that. The zero
// shape is that of a variable that has no type yet.
type shape struct {
	size  int64  // nodes, written out as a tree
	kinds int64  // of them that are different
	alts  int64  // alternatives of the whole
	fan   int64  // and in one place inside
	depth int    // of arrays, objects, sets in each other
	open  bool   // any key, any number of elements
	id    uint64 // the same for equal types
}

// Shapes of scalars, and of what may be anything.
func scalar(id uint64) shape { return shape{size: 1, kinds: 1, alts: 1, fan: 1, id: id} }

var anything = scalar(0)

var seed = maphash.MakeSeed()

func idOf(parts ...uint64) uint64 {
	buf := make([]byte, 0, 64)
	for _, p := range parts {
		buf = binary.LittleEndian.AppendUint64(buf, p)
	}
	return maphash.Bytes(seed, buf)
}

// more adds up sizes.
func more(a, b int64) int64 { return min(a+b, endless) }

// A maker puts a shape together from parts.
type maker struct {
	shape
	ids   []uint64
	parts map[uint64]bool
}

func (m *maker) add(s shape) {
	m.size = more(m.size, s.size)
	m.fan, m.depth, m.open = max(m.fan, mul(s.alts, s.fan)), max(m.depth, s.depth), m.open || s.open
	m.ids = append(m.ids, s.id)
	if m.parts == nil {
		m.parts = map[uint64]bool{}
	}
	if !m.parts[s.id] {
		m.parts[s.id] = true
		m.kinds = more(m.kinds, s.kinds)
	}
}

// composite returns the shape of an array, object or set of the parts.
func (m *maker) composite(tag uint64) shape {
	s := m.shape
	s.size, s.kinds, s.alts, s.fan, s.depth = more(s.size, 1), more(s.kinds, 1), 1, max(s.fan, 1), s.depth+1
	s.id = idOf(append(m.ids, tag)...)
	return s
}

// elements returns the shape of what a collection of shape s has in it: one of
// all the types in there.
func (s shape) elements() shape {
	if s.size <= 1 {
		return s
	}
	s.alts, s.depth, s.id = s.kinds, max(0, s.depth-1), idOf(s.id, 'e')
	return s
}

// A ruleShape is the types of the rules of one name.
type ruleShape struct {
	union maker
	args  shape // of a function, taken together
}

func (r *ruleShape) shape() shape {
	s := r.union.shape
	s.alts = max(1, int64(len(r.union.parts)))
	for id := range r.union.parts {
		s.id ^= id
	}
	return s
}

type typer struct {
	meter    *meter
	compiler *ast.Compiler
	rules    map[*ast.TreeNode]*ruleShape

	vars  map[ast.Var]shape // of the rule
	at    *ast.Location
	times int64 // that the checker does what is being done
	err   error // the first
}

func (t *typer) charge(steps int64, size int64) {
	if t.err == nil {
		t.err = t.meter.charge(byTypes, mul(max(steps, 1), t.times), t.at, size)
	}
}

func (t *typer) rule(rule *ast.Rule) {
	t.vars, t.at, t.times = map[ast.Var]shape{}, rule.Location, 1
	t.body(rule.Body)
	t.at = rule.Location

	path := rule.Ref()
	node := t.compiler.RuleTree.Find(path.GroundPrefix())
	if node == nil {
		return
	}
	r := t.rules[node]
	if r == nil {
		r = &ruleShape{}
		t.rules[node] = r
	}
	var s shape
	switch {
	case rule.Head.RuleKind() == ast.MultiValue:
		var set maker
		set.add(t.of(rule.Head.Key))
		s = set.composite('s')
		s.open = true
	case rule.Head.Value != nil:
		s = t.of(rule.Head.Value)
	}
	for _, arg := range rule.Head.Args {
		a := t.of(arg)
		r.args.size, r.args.kinds, r.args.fan = more(r.args.size, a.size), more(r.args.kinds, a.kinds), max(r.args.fan, a.fan)
		r.args.depth, r.args.open = max(r.args.depth, a.depth), r.args.open || a.open
	}
	for range path[len(path.GroundPrefix()):] {
		var object maker
		object.add(s)
		s = object.composite('o')
		s.open = true
	}
	before := len(r.union.parts)
	r.union.add(s)
	if len(r.union.parts) == before { // a type that it had
		r.union.size -= min(s.size, r.union.size)
	}
	r.union.ids = nil
	steps := 1 + int64(before)/5
	if s.open {
		steps += below(node) * 3
	}
	t.charge(steps, r.union.size)
}

// below counts the nodes below a node.
func below(n *ast.TreeNode) (count int64) {
	for _, child := range n.Children {
		count += 1 + below(child)
	}
	return count
}

func (t *typer) body(body ast.Body) {
	for _, e := range body {
		if t.err != nil {
			return
		}
		at := t.at
		t.at = e.Location
		t.expr(e)
		t.at = at
	}
}

func (t *typer) closure(body ast.Body) {
	times := t.times
	t.times = mul(times, 3)
	t.body(body)
	t.times = times
}

func (t *typer) expr(e *ast.Expr) {
	for _, w := range e.With {
		t.of(w.Value)
	}
	switch terms := e.Terms.(type) {
	case *ast.Term:
		t.charge(t.of(terms).size/3, 0)
	case []*ast.Term:
		t.call(e.Operator(), e.Operands())
	case *ast.Every:
		elements := t.of(terms.Domain).elements()
		for _, v := range []*ast.Term{terms.Key, terms.Value} {
			if v != nil {
				t.infer(v, elements)
			}
		}
		t.closure(terms.Body)
	default:
		partsOf(e, func(*ast.Term) {}, func(b ast.Body, _ ...*ast.Term) { t.closure(b) })
	}
}

func (t *typer) call(operator ast.Ref, operands []*ast.Term) {
	shapes := make([]shape, len(operands))
	for i, operand := range operands {
		shapes[i] = t.of(operand)
	}
	name := operator.String()
	switch {
	case name == ast.Equality.Name && len(operands) == 2:
		t.unify(shapes[0], shapes[1])
		t.infer(operands[0], shapes[1])
		t.infer(operands[1], shapes[0])
		return
	case (name == ast.Member.Name || name == ast.MemberWithKey.Name) && len(operands) > 1:
		collection := len(operands) - 1
		for collection > 0 && operands[collection].Equal(operands[0]) {
			collection--
		}
		for i := range operands {
			elements := shapes[collection].elements()
			t.unify(shapes[i], elements)
			t.infer(operands[i], elements)
		}
		return
	}
	function, _ := t.compiler.TypeEnv.GetByRef(operator).(*types.Function)
	if node := t.compiler.RuleTree.Find(operator); node != nil && t.rules[node] != nil {
		args, result := t.rules[node].args, t.rules[node].shape()
		for i, operand := range operands {
			t.unify(shapes[i], args)
			if i == len(operands)-1 {
				t.unify(shapes[i], result)
				t.infer(operand, result)
			}
			t.infer(operand, args)
		}
	} else if function != nil {
		declared := function.FuncArgs()
		declared.Args = append(slices.Clone(declared.Args), function.Result())
		for i, operand := range operands {
			s := declaredShape(declared.Arg(i))
			t.unify(shapes[i], s)
			t.infer(operand, s)
		}
	}
}

// declaredShape returns the shape of a type that a built-in declares.
func declaredShape(declared types.Type) shape {
	var m maker
	m.open = true
	switch v := declared.(type) {
	case *types.NamedType:
		return declaredShape(v.Type)
	case *types.Array:
		for i := range v.Len() {
			m.add(declaredShape(v.Select(i)))
		}
		if v.Dynamic() != nil {
			m.add(declaredShape(v.Dynamic()))
		}
	case *types.Object:
		for _, p := range v.StaticProperties() {
			m.add(declaredShape(p.Value))
		}
		if p := v.DynamicProperties(); p != nil {
			m.add(declaredShape(p.Key))
			m.add(declaredShape(p.Value))
		}
	case *types.Set:
		m.add(declaredShape(v.Of()))
	case types.Any:
		if len(v) == 0 {
			return anything
		}
		for _, alternative := range v {
			m.add(declaredShape(alternative))
		}
		s := m.composite('b')
		s.fan = mul(s.fan, int64(len(v)))
		return s
	case nil:
		return anything
	default:
		return scalar(maphash.String(seed, declared.String()))
	}
	return m.composite('b')
}

// unify charges for the comparison of two types. Those of arrays and objects are
// compared twice for each array and object that they are in.
func (t *typer) unify(a, b shape) {
	var pairs int64
	switch {
	case a.size <= 1 || b.size <= 1:
		pairs = (a.size + b.size) / 3
	case !a.open && !b.open:
		pairs = min(mul(a.size, b.alts, b.fan), mul(b.size, a.alts, a.fan))
	case !a.open:
		pairs = mul(a.size, b.alts, b.fan)
	case !b.open:
		pairs = mul(b.size, a.alts, a.fan)
	default:
		pairs = mul(a.size, b.size)
	}
	if a.size > 1 && b.size > 1 {
		pairs = mul(pairs, power(2, min(a.depth, b.depth)), min(a.alts, b.alts, 2))
	}
	t.charge(pairs, max(a.size, b.size))
}

// infer gives the variables of a term that have no type yet one that is no
// larger than s.
func (t *typer) infer(term *ast.Term, s shape) {
	if s.size == 0 {
		s = anything
	}
	switch v := term.Value.(type) {
	case ast.Var:
		if t.vars[v].size == 0 {
			t.vars[v] = s
		}
	case *ast.Array:
		v.Foreach(func(part *ast.Term) { t.infer(part, s) })
	case ast.Object:
		v.Foreach(func(_, part *ast.Term) { t.infer(part, s) })
	case ast.Set:
		v.Foreach(func(part *ast.Term) { t.infer(part, s) })
	}
}

// of returns the shape of a term, and charges for working it out.
func (t *typer) of(term *ast.Term) shape {
	switch v := term.Value.(type) {
	case ast.Null:
		return scalar(1)
	case ast.Boolean:
		return scalar(2)
	case ast.Number:
		return scalar(3)
	case ast.String, *ast.TemplateString:
		return scalar(4)
	case ast.Var:
		return t.vars[v]
	case ast.Ref:
		return t.ref(v)
	case *ast.Array:
		var m maker
		v.Foreach(func(part *ast.Term) { m.add(t.of(part)) })
		t.charge(m.size/3, m.size)
		return m.composite('a')
	case ast.Object:
		var m maker
		v.Foreach(func(key, value *ast.Term) {
			k := t.of(key)
			if ast.IsConstant(key.Value) {
				k = shape{id: uint64(key.Hash())}
			} else {
				m.open = true
			}
			m.add(k)
			m.add(t.of(value))
		})
		t.charge(m.size/3, m.size)
		return m.composite('o')
	case ast.Set:
		var m maker
		v.Foreach(func(part *ast.Term) { m.add(t.of(part)) })
		m.open = true
		t.charge(mul(m.size, 1+m.kinds/5), m.size)
		s := m.composite('s')
		s.fan = mul(s.fan, max(1, int64(len(m.parts))))
		return s
	case *ast.ArrayComprehension:
		return t.comprehension(v.Body, v.Term)
	case *ast.SetComprehension:
		return t.comprehension(v.Body, v.Term)
	case *ast.ObjectComprehension:
		return t.comprehension(v.Body, v.Key, v.Value)
	}
	return anything
}

func (t *typer) comprehension(body ast.Body, head ...*ast.Term) shape {
	t.closure(body)
	var m maker
	for _, part := range head {
		m.add(t.of(part))
	}
	s := m.composite('c')
	s.open = true
	return s
}

func (t *typer) ref(ref ast.Ref) shape {
	s := anything
	rest := ref[1:]
	switch head := ref[0].Value.(type) {
	case ast.Var:
		if head == "data" {
			s, rest = t.data(ref)
		} else if head != "input" {
			s = t.vars[head]
		}
	default:
		s = t.of(ref[0])
	}
	for _, part := range rest {
		if ast.IsConstant(part.Value) {
			t.charge(s.alts, s.size)
			continue
		}
		t.of(part)
		t.charge(more(s.size/3, mul(s.kinds, s.kinds)/5), s.size)
		t.infer(part, s)
		s = s.elements()
	}
	return s
}

// data returns the shape of what a reference means in the rules, and which parts
// of it go on from there.
func (t *typer) data(ref ast.Ref) (shape, ast.Ref) {
	n := t.compiler.RuleTree
	for i, part := range ref {
		child := n.Child(part.Value)
		if i > 0 && !ast.IsConstant(part.Value) {
			return t.extent(n), ref[i:]
		}
		if child == nil {
			return anything, nil
		}
		if n = child; len(n.Values) > 0 {
			return t.extent(n), ref[i+1:]
		}
	}
	return t.extent(n), nil
}

// extent returns the shape of a node of the rules with all that is below it.
func (t *typer) extent(n *ast.TreeNode) shape {
	if t.err != nil {
		return anything
	}
	r := t.rules[n]
	if len(n.Children) == 0 {
		if r == nil {
			return anything
		}
		return r.shape()
	}
	var m maker
	if r != nil {
		m.add(r.shape())
	}
	for _, child := range n.Children {
		m.add(t.extent(child))
	}
	m.ids = nil // in no order
	m.open = true
	t.charge(10*int64(len(n.Children)), m.size)
	s := m.composite('d')
	for id := range m.parts {
		s.id ^= id
	}
	return s
}
