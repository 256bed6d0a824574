package front

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// orderWith puts the modifiers of an expression that replace a document before
// those that replace a function. They mean the same in any order, but OPA's
// planner (v1.22.2) counts the latter when it looks for the target of the former,
// and would let `with lower as "a" with data.n as 1` replace the input.
func (c *Compiled) orderWith(x any) {
	ast.WalkExprs(x, func(e *ast.Expr) bool {
		if len(e.With) > 1 {
			slices.SortStableFunc(e.With, func(a, b *ast.With) int {
				switch fa, fb := c.replacesFunction(a), c.replacesFunction(b); {
				case fa == fb:
					return 0
				case fa:
					return 1
				}
				return -1
			})
		}
		return false
	})
}

func (c *Compiled) replacesFunction(w *ast.With) bool {
	target, ok := w.Target.Value.(ast.Ref)
	if !ok || target.HasPrefix(ast.InputRootRef) {
		return !ok
	}
	return !target.HasPrefix(ast.DefaultRootRef) || c.compiler.GetArity(target) > 0
}
