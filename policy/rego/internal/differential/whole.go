package differential

import (
	"github.com/open-policy-agent/opa/v1/ast"
)

// seenWhole names the module, and the stage of the compiler, that make the
// reference look at everything.
const seenWhole = "seen_whole"

const wholeModule = "package " + seenWhole + "\nsame(x) := x"

var same = ast.MustParseRef("data." + seenWhole + ".same")

// see rewrites modules, once it is known what the references in them mean, so
// that the reference makes the calls that it leaves out otherwise. The answers
// stay what they are; only more calls can fail.
//
//   - p[x], where p is a partial rule, becomes same(p)[x]: the whole of p is
//     computed.
//   - In front of `every k, v in xs { body }` comes [true | some k, v in xs;
//     body], which goes through all elements and all solutions.
//   - In front of `{a} and {b}` come [true | a] and [true | [true | a] != []; b];
//     in front of `{a} or {b}` come [true | a] and [true | [true | a] == []; b].
func see(c *ast.Compiler) *ast.Error {
	for _, m := range c.Modules {
		targets := map[*ast.Term]bool{}
		ast.WalkWiths(m, func(w *ast.With) bool {
			targets[w.Target] = true
			return false
		})
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
			case *ast.Rule:
				x.Body = seeBody(x.Body)
			case *ast.ArrayComprehension:
				x.Body = seeBody(x.Body)
			case *ast.SetComprehension:
				x.Body = seeBody(x.Body)
			case *ast.ObjectComprehension:
				x.Body = seeBody(x.Body)
			case *ast.Every:
				x.Body = seeBody(x.Body)
			case *ast.Not:
				x.Body = seeBody(x.Body)
			case *ast.LogicalAnd:
				x.Lhs, x.Rhs = seeBody(x.Lhs), seeBody(x.Rhs)
			case *ast.LogicalOr:
				x.Lhs, x.Rhs = seeBody(x.Lhs), seeBody(x.Rhs)
			case *ast.Term:
				if ref, ok := x.Value.(ast.Ref); ok && !targets[x] {
					x.Value = seeRef(c.RuleTree, ref)
				}
			}
			return false
		})
		v.Walk(m)
	}
	return nil
}

// seeRef wraps the part of a reference up to where a partial rule begins, or,
// in front of a step that is not known before, up to there.
func seeRef(tree *ast.TreeNode, ref ast.Ref) ast.Value {
	if !ref[0].Equal(ast.DefaultRootDocument) {
		return ref
	}
	node := tree.Child(ref[0].Value)
	for i := 1; i < len(ref) && node != nil; i++ {
		if isPartial(node) || !ref[i].IsGround() && i > 1 {
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

func seeBody(body ast.Body) ast.Body {
	seen := make([]*ast.Expr, 0, len(body))
	for _, e := range body {
		for _, body := range everything(e) {
			front := ast.NewExpr(all(ast.NewBody(body...))).SetLocation(e.Location)
			for _, w := range e.With {
				front.With = append(front.With, w.Copy())
			}
			seen = append(seen, front)
		}
		seen = append(seen, e)
	}
	return ast.NewBody(seen...)
}

// everything returns bodies that go through all that an expression may leave
// out.
func everything(e *ast.Expr) [][]*ast.Expr {
	at := func(e *ast.Expr, of *ast.Expr) *ast.Expr { return e.SetLocation(of.Location) }
	switch x := e.Terms.(type) {
	case *ast.Every:
		// The type checker knows nothing of an element of `every`, nor of what
		// a function gives.
		domain := ast.CallTerm(ast.NewTerm(same), x.Domain.Copy()).SetLocation(e.Location)
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

// all makes [true | body].
func all(body ast.Body) *ast.Term {
	return ast.ArrayComprehensionTerm(ast.BooleanTerm(true), body.Copy()).SetLocation(body.Loc())
}
