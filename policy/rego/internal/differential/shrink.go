package differential

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"
	"github.com/open-policy-agent/opa/v1/util"
)

// Shrink makes a case as small as it can while fails holds: it drops inputs,
// modules, rules, expressions, modifiers and members of data and input, and puts
// plain values in the place of terms, as long as something can go. It stops
// after the given number of attempts. fails must hold for c.
func Shrink(c *Case, attempts int, fails func(*Case) bool) *Case {
	s := &shrinker{best: c, left: attempts, fails: fails}
	for s.round() {
	}
	return s.best
}

type shrinker struct {
	best  *Case
	left  int
	fails func(*Case) bool
}

// try takes over a smaller case if it fails, too.
func (s *shrinker) try(c *Case) bool {
	if s.left <= 0 {
		return false
	}
	s.left--
	if !s.fails(c) {
		return false
	}
	s.best = c
	return true
}

// round tries everything once and reports whether anything went.
func (s *shrinker) round() bool {
	smaller := false
	for i := 0; i < len(s.best.Inputs) && len(s.best.Inputs) > 1; {
		c := *s.best
		c.Inputs = slices.Delete(slices.Clone(c.Inputs), i, i+1)
		if s.try(&c) {
			smaller = true
		} else {
			i++
		}
	}
	for i := 0; i < len(s.best.Modules) && len(s.best.Modules) > 1; {
		c := *s.best
		c.Modules = slices.Delete(slices.Clone(c.Modules), i, i+1)
		if s.try(&c) {
			smaller = true
		} else {
			i++
		}
	}
	for i := range s.best.Modules {
		smaller = s.module(i) || smaller
	}
	smaller = s.document(func(c *Case) *string { return &c.Data }) || smaller
	for i := range s.best.Inputs {
		smaller = s.document(func(c *Case) *string { return &c.Inputs[i] }) || smaller
	}
	return smaller && s.left > 0
}

// module tries the cuts of a module, one after the other: cut(n) makes the n-th
// that there is.
func (s *shrinker) module(i int) bool {
	smaller := false
	for n := 0; s.left > 0; {
		old := s.best.Modules[i]
		m, err := ast.ParseModuleWithOpts(old.Path, old.Source, ast.ParserOptions{RegoVersion: ast.RegoV1})
		if err != nil {
			return smaller
		}
		if !cut(m, n) {
			return smaller
		}
		source, ok := render(m)
		if !ok || len(source) >= len(old.Source) && source == old.Source {
			n++
			continue
		}
		c := *s.best
		c.Modules = slices.Clone(c.Modules)
		c.Modules[i].Source = source
		if s.try(&c) {
			smaller = true
		} else {
			n++
		}
	}
	return smaller
}

func render(m *ast.Module) (source string, ok bool) {
	defer func() {
		if recover() != nil { // a tree that no text has
			ok = false
		}
	}()
	text, err := format.AstWithOpts(m, format.Opts{RegoVersion: ast.RegoV1})
	return string(text), err == nil
}

// cutter counts the places where something can be cut and cuts at one of them.
type cutter struct{ left int }

// here reports whether this is the place.
func (c *cutter) here() bool {
	c.left--
	return c.left == -1
}

// done reports whether the place was found.
func (c *cutter) done() bool { return c.left < 0 }

// cut makes the n-th cut of a module and reports whether there is one. Cuts that
// take much come first.
func cut(m *ast.Module, n int) bool {
	c := &cutter{left: n}
	for i := range m.Rules {
		if c.here() {
			m.Rules = slices.Delete(m.Rules, i, i+1)
			return true
		}
	}
	for i := range m.Imports {
		if c.here() {
			m.Imports = slices.Delete(m.Imports, i, i+1)
			return true
		}
	}
	visit := func(f func(x any)) {
		v := ast.NewGenericVisitor(func(x any) bool {
			if !c.done() {
				f(x)
			}
			return c.done()
		})
		for _, r := range m.Rules {
			v.Walk(r)
		}
	}
	visit(c.clause)
	visit(func(x any) {
		if e, ok := x.(*ast.Expr); ok {
			c.expression(e)
		}
	})
	visit(func(x any) {
		if t, ok := x.(*ast.Term); ok {
			c.term(t)
		}
	})
	return c.done()
}

// clause drops an else, or one expression of a body.
func (c *cutter) clause(x any) {
	switch x := x.(type) {
	case *ast.Rule:
		if x.Else != nil && c.here() {
			x.Else = nil
			return
		}
		if len(x.Body) == 1 && !x.Default && !x.Body.Equal(ast.NewBody(ast.NewExpr(ast.BooleanTerm(true)))) && c.here() {
			x.Body = ast.NewBody(ast.NewExpr(ast.BooleanTerm(true)))
			return
		}
		x.Body = c.body(x.Body)
	case *ast.ArrayComprehension:
		x.Body = c.body(x.Body)
	case *ast.SetComprehension:
		x.Body = c.body(x.Body)
	case *ast.ObjectComprehension:
		x.Body = c.body(x.Body)
	case *ast.Every:
		x.Body = c.body(x.Body)
	case *ast.Not:
		x.Body = c.body(x.Body)
	case *ast.LogicalAnd:
		x.Lhs = c.body(x.Lhs)
		x.Rhs = c.body(x.Rhs)
	case *ast.LogicalOr:
		x.Lhs = c.body(x.Lhs)
		x.Rhs = c.body(x.Rhs)
	}
}

func (c *cutter) body(b ast.Body) ast.Body {
	if c.done() || len(b) < 2 {
		return b
	}
	for i := range b {
		if c.here() {
			return ast.NewBody(slices.Delete(slices.Clone(b), i, i+1)...)
		}
	}
	return b
}

// expression drops a modifier or a negation, or takes an operand of a call in
// its place.
func (c *cutter) expression(e *ast.Expr) {
	for i := range e.With {
		if c.here() {
			e.With = slices.Delete(e.With, i, i+1)
			return
		}
	}
	if e.Negated && c.here() {
		e.Negated = false
		return
	}
	if terms, ok := e.Terms.([]*ast.Term); ok {
		for _, t := range terms[1:] {
			if c.here() {
				e.Terms = t
				return
			}
		}
	}
}

// term puts something simpler in the place of a term.
func (c *cutter) term(t *ast.Term) {
	put := func(v ast.Value) bool {
		if v.Compare(t.Value) == 0 || !c.here() {
			return false
		}
		t.Value = v
		return true
	}
	switch v := t.Value.(type) {
	case ast.Call:
		for _, operand := range v[1:] {
			if put(operand.Value) {
				return
			}
		}
		put(ast.Number("1"))
	case ast.Ref:
		if _, ok := v[0].Value.(ast.Var); ok && len(v) > 1 {
			_ = put(ast.Number("1")) || put(ast.String("a")) || len(v) > 2 && put(v[:len(v)-1])
		}
	case *ast.Array:
		for i := range v.Len() {
			if put(v.Elem(i).Value) {
				return
			}
			rest := ast.NewArray()
			for j := range v.Len() {
				if j != i {
					rest = rest.Append(v.Elem(j))
				}
			}
			if put(rest) {
				return
			}
		}
	case ast.Set:
		for _, member := range v.Slice() {
			if put(member.Value) || put(v.Diff(ast.NewSet(member))) {
				return
			}
		}
	case ast.Object:
		for _, key := range v.Keys() {
			rest := ast.NewObject()
			v.Foreach(func(k, val *ast.Term) {
				if !k.Equal(key) {
					rest.Insert(k, val)
				}
			})
			if put(v.Get(key).Value) || put(rest) {
				return
			}
		}
	case *ast.ArrayComprehension, *ast.SetComprehension, *ast.ObjectComprehension, *ast.TemplateString:
		put(ast.Number("1"))
	case ast.String:
		if v != "a" && v != "" {
			put(ast.String("a"))
		}
	}
}

// document tries to cut data or an input.
func (s *shrinker) document(of func(*Case) *string) bool {
	smaller := false
	for n := 0; s.left > 0; {
		old := *of(s.best)
		var x any
		if old == "" || util.UnmarshalJSON([]byte(old), &x) != nil {
			return smaller
		}
		c := &cutter{left: n}
		x = c.json(x)
		if !c.done() {
			return smaller
		}
		text, err := json.Marshal(x)
		if err != nil || string(text) == old {
			n++
			continue
		}
		candidate := *s.best
		candidate.Inputs = slices.Clone(candidate.Inputs)
		*of(&candidate) = string(text)
		if s.try(&candidate) {
			smaller = true
		} else {
			n++
		}
	}
	return smaller
}

// json cuts a document at one place.
func (c *cutter) json(x any) any {
	if c.done() {
		return x
	}
	switch x := x.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(x)) {
			if c.here() {
				delete(x, name)
				return x
			}
			if x[name] = c.json(x[name]); c.done() {
				return x
			}
		}
	case []any:
		for i := range x {
			if c.here() {
				return slices.Delete(x, i, i+1)
			}
			if x[i] = c.json(x[i]); c.done() {
				return x
			}
		}
	case string:
		if x != "a" && x != "" && c.here() {
			return "a"
		}
	case json.Number:
		if x != "1" && c.here() {
			return json.Number("1")
		}
	}
	return x
}
