package front

import (
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// partsOf calls term for each term that an expression is made of, and closure
// for each body in it with the terms that are computed from it. The operator of
// a call is left out.
func partsOf(e *ast.Expr, term func(*ast.Term), closure func(ast.Body, ...*ast.Term)) {
	switch terms := e.Terms.(type) {
	case *ast.Term:
		term(terms)
	case []*ast.Term:
		for _, t := range terms[1:] {
			term(t)
		}
	case *ast.SomeDecl:
		for _, t := range terms.Symbols {
			term(t)
		}
	case *ast.Every:
		term(terms.Domain)
		closure(terms.Body)
	case *ast.Not:
		closure(terms.Body)
	case *ast.LogicalAnd:
		closure(terms.Lhs)
		closure(terms.Rhs)
	case *ast.LogicalOr:
		closure(terms.Lhs)
		closure(terms.Rhs)
	}
	for _, w := range e.With {
		term(w.Value)
	}
}

// partsOfTerm does the same for the parts of a term. A scalar and a variable
// have none.
func partsOfTerm(t *ast.Term, term func(*ast.Term), closure func(ast.Body, ...*ast.Term)) {
	switch v := t.Value.(type) {
	case ast.Ref:
		for _, t := range v {
			term(t)
		}
	case ast.Call:
		for _, t := range v[1:] {
			term(t)
		}
	case *ast.Array:
		v.Foreach(term)
	case ast.Set:
		v.Foreach(term)
	case ast.Object:
		v.Foreach(func(key, value *ast.Term) {
			term(key)
			term(value)
		})
	case *ast.ArrayComprehension:
		closure(v.Body, v.Term)
	case *ast.SetComprehension:
		closure(v.Body, v.Term)
	case *ast.ObjectComprehension:
		closure(v.Body, v.Key, v.Value)
	case *ast.TemplateString:
		var parts ast.Body
		for _, part := range v.Parts {
			if e, ok := part.(*ast.Expr); ok {
				parts = append(parts, e)
			}
		}
		closure(parts)
	}
}

// headTerms of a rule.
func headTerms(h *ast.Head) []*ast.Term {
	terms := slices.Concat([]*ast.Term(h.Args), []*ast.Term(h.Reference))
	if h.Key != nil {
		terms = append(terms, h.Key)
	}
	if h.Value != nil {
		terms = append(terms, h.Value)
	}
	return terms
}

// rulesOf returns the rules of modules in order of their names, each followed by
// its else branches.
func rulesOf(modules map[string]*ast.Module) func(yield func(*ast.Rule) bool) {
	return func(yield func(*ast.Rule) bool) {
		for _, name := range slices.Sorted(maps.Keys(modules)) {
			for _, first := range modules[name].Rules {
				for rule := first; rule != nil; rule = rule.Else {
					if !yield(rule) {
						return
					}
				}
			}
		}
	}
}
