package reference

import (
	"github.com/open-policy-agent/opa/v1/ast"
)

// seenWhole names the module, and the stage of the compiler, that make OPA look
// at everything.
const seenWhole = "seen_whole"

const wholeModule = "package " + seenWhole + "\nsame(x) := x"

var same = ast.MustParseRef("data." + seenWhole + ".same")

// see rewrites modules, once it is known what the references in them mean, so
// that OPA makes the calls that it leaves out otherwise. The answers
// stay what they are; only more calls can fail.
//
//   - p[x], where p is a partial rule, becomes same(p)[x]: the whole of p is
//     computed.
//   - f(x), where f is a function, becomes same(f(x)): f is computed, whatever
//     its result is compared with.
//   - [t | body] becomes same([t | body]): it is computed, even if what it is
//     compared with is undefined.
//   - In front of `every k, v in xs { body }` comes [true | some k, v in xs;
//     body], which goes through all elements and all solutions.
//   - In front of `{a} and {b}` come [true | a] and [true | [true | a] != []; b];
//     in front of `{a} or {b}` come [true | a] and [true | [true | a] == []; b].
func see(c *ast.Compiler) *ast.Error {
	for _, m := range c.Modules {
		seeBodies(m)
	}
	return seeMost(c)
}

// seeMost rewrites terms alone: what is put in front of bodies may be more than
// the type checker lets pass.
func seeMost(c *ast.Compiler) *ast.Error { return seeTerms(c, false) }

// seeRules rewrites only the references to rules: a variable of a comprehension
// that gets its value beside it has none inside a call.
func seeRules(c *ast.Compiler) *ast.Error { return seeTerms(c, true) }

func seeTerms(c *ast.Compiler, onlyRules bool) *ast.Error {
	for name, m := range c.Modules {
		if name != seenWhole {
			seeIn(c.RuleTree, m, onlyRules)
		}
	}
	return nil
}

// seeIn rewrites the terms in a module or a body.
func seeIn(tree *ast.TreeNode, x any, onlyRules bool) {
	targets := map[*ast.Term]bool{}
	ast.WalkWiths(x, func(w *ast.With) bool {
		targets[w.Target] = true
		return false
	})
	seen := map[*ast.Term]bool{}
	wrap := func(t *ast.Term) {
		if !seen[t] {
			inner := ast.NewTerm(t.Value).SetLocation(t.Location)
			seen[inner] = true
			t.Value = ast.Call{ast.NewTerm(same).SetLocation(t.Location), inner}
		}
	}
	var v *ast.GenericVisitor
	v = ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.Head:
			// Not the rule's own reference, but what is in it.
			for _, t := range append(append([]*ast.Term{x.Key, x.Value}, x.Reference...), x.Args...) {
				if t != nil {
					v.Walk(t)
				}
			}
			return true
		case *ast.Term:
			switch value := x.Value.(type) {
			case ast.Ref:
				if !targets[x] {
					x.Value = seeRef(tree, value)
				}
			case ast.Call:
				if f, ok := value[0].Value.(ast.Ref); ok && !onlyRules && f.HasPrefix(ast.DefaultRootRef) && !f.Equal(same) {
					wrap(x)
				}
			case *ast.ArrayComprehension, *ast.SetComprehension, *ast.ObjectComprehension:
				if !onlyRules {
					wrap(x)
				}
			}
		}
		return false
	})
	v.Walk(x)
}

// seeRef wraps the part of a reference up to where a partial rule begins, or,
// in front of a step that is not known before, up to there.
func seeRef(tree *ast.TreeNode, ref ast.Ref) ast.Value {
	if !ref[0].Equal(ast.DefaultRootDocument) {
		return ref
	}
	node := tree.Child(ref[0].Value)
	for i := 1; i < len(ref) && node != nil; i++ {
		if isPartial(node) || !ast.IsConstant(ref[i].Value) && i > 1 {
			whole := ast.CallTerm(ast.NewTerm(same), ast.NewTerm(ref[:i:i])).SetLocation(ref[0].Location)
			return append(ast.Ref{whole}, ref[i:]...)
		}
		node = node.Child(ref[i].Value)
	}
	return ref
}

func isPartial(node *ast.TreeNode) bool {
	for _, r := range node.Values {
		if r.Head.RuleKind() == ast.MultiValue || r.Head.HasDynamicRef() {
			return true
		}
	}
	return false
}

// seeBodies puts in front of expressions what goes through all of them.
func seeBodies(m *ast.Module) {
	fronts := map[*ast.Every]bool{}
	see := func(body ast.Body) ast.Body {
		seen := make([]*ast.Expr, 0, len(body))
		for _, e := range body {
			if every, ok := e.Terms.(*ast.Every); !ok || !fronts[every] {
				for _, all := range everything(e) {
					f := goThrough(e, all)
					fronts[f.Terms.(*ast.Every)] = true
					seen = append(seen, f)
				}
			}
			seen = append(seen, e)
		}
		return ast.NewBody(seen...)
	}
	ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.Rule:
			x.Body = see(x.Body)
		case *ast.ArrayComprehension:
			x.Body = see(x.Body)
		case *ast.SetComprehension:
			x.Body = see(x.Body)
		case *ast.ObjectComprehension:
			x.Body = see(x.Body)
		case *ast.Every:
			x.Body = see(x.Body)
		case *ast.Not:
			x.Body = see(x.Body)
		case *ast.LogicalAnd:
			x.Lhs, x.Rhs = see(x.Lhs), see(x.Rhs)
		case *ast.LogicalOr:
			x.Lhs, x.Rhs = see(x.Lhs), see(x.Rhs)
		}
		return false
	}).Walk(m)
}

// goThrough makes an expression that computes [true | body] and holds: `every _ in
// [1] { [true | body] }`. What stands in `every`, the type checker does not look
// at, but it does at comprehensions, so that the body is loosened.
func goThrough(e *ast.Expr, body []*ast.Expr) *ast.Expr {
	var exprs []*ast.Expr
	ast.WalkExprs(ast.Body(body), func(e *ast.Expr) bool {
		exprs = append(exprs, e)
		return false
	})
	for _, e := range exprs {
		if terms, ok := e.Terms.([]*ast.Term); ok {
			for _, t := range terms[1:] {
				loosen(t)
			}
		}
	}
	f := &ast.Expr{
		Terms: &ast.Every{
			Value:    ast.VarTerm(ast.WildcardPrefix + seenWhole).SetLocation(e.Location),
			Domain:   ast.ArrayTerm(ast.IntNumberTerm(1)).SetLocation(e.Location),
			Body:     ast.NewBody(ast.NewExpr(all(ast.NewBody(body...))).SetLocation(e.Location)),
			Location: e.Location,
		},
		Location: e.Location,
	}
	for _, w := range e.With {
		f.With = append(f.With, w.Copy())
	}
	return f
}

// loosen puts same(t) in the place of constants and calls, so that their types are
// not known.
func loosen(t *ast.Term) {
	if call, ok := t.Value.(ast.Call); ok {
		for _, operand := range call[1:] {
			loosen(operand)
		}
	} else if !ast.IsConstant(t.Value) {
		return
	}
	t.Value = ast.Call{ast.NewTerm(same).SetLocation(t.Location), ast.NewTerm(t.Value).SetLocation(t.Location)}
}

// everything returns bodies that go through all that an expression may leave
// out.
func everything(e *ast.Expr) [][]*ast.Expr {
	at := func(e *ast.Expr, of *ast.Expr) *ast.Expr { return e.SetLocation(of.Location) }
	switch x := e.Terms.(type) {
	case *ast.Every:
		// The type checker knows nothing of an element of `every`, nor of what
		// a function gives.
		domain := ast.CallTerm(ast.NewTerm(same), apart(x.Domain)).SetLocation(e.Location)
		in := ast.Member.Call(x.Value.Copy(), domain)
		if x.Key != nil {
			in = ast.MemberWithKey.Call(x.Key.Copy(), x.Value.Copy(), domain)
		}
		each := &ast.Expr{Terms: &ast.SomeDecl{Symbols: []*ast.Term{in.SetLocation(e.Location)}, Location: e.Location}}
		return [][]*ast.Expr{append([]*ast.Expr{at(each, e)}, x.Body.Copy()...)}
	case *ast.LogicalAnd:
		holds := ast.NotEqual.Expr(all(x.Lhs), ast.ArrayTerm())
		return [][]*ast.Expr{x.Lhs.Copy(), append([]*ast.Expr{at(holds, e)}, x.Rhs.Copy()...)}
	case *ast.LogicalOr:
		fails := ast.Equal.Expr(all(x.Lhs), ast.ArrayTerm())
		return [][]*ast.Expr{x.Lhs.Copy(), append([]*ast.Expr{at(fails, e)}, x.Rhs.Copy()...)}
	}
	return nil
}

// apart copies a term, with wildcards of its own: with those of the original, it
// would have to wait for their values.
func apart(t *ast.Term) *ast.Term {
	copied, err := ast.TransformVars(t.Copy().Value, func(v ast.Var) (ast.Value, error) {
		if v.IsWildcard() {
			v += seenWhole
		}
		return v, nil
	})
	if v, ok := copied.(ast.Value); ok && err == nil {
		return ast.NewTerm(v).SetLocation(t.Location)
	}
	return t.Copy()
}

// all makes [true | body].
func all(body ast.Body) *ast.Term {
	return ast.ArrayComprehensionTerm(ast.BooleanTerm(true), body.Copy()).SetLocation(body.Loc())
}
