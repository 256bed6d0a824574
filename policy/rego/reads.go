package rego

import (
	"github.com/open-policy-agent/opa/v1/ast"
)

// readsTime reports whether compiled modules may read input.time: they name it,
// or use the input otherwise than by another member's name that is written out.
// Whatever is not plainly another member of the input counts, so that the
// answer is never a no too many.
func readsTime(modules map[string]*ast.Module) bool {
	found := false
	var visitor *ast.GenericVisitor
	visitor = ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case ast.Ref:
			if !isInput(x[0].Value) {
				return found
			}
			if len(x) < 2 || !isOtherMember(x[1].Value) {
				found = true
				return true
			}
			// The head is judged with its first step and not again by itself:
			// the compiler lets uses of an import share it.
			for _, step := range x[1:] {
				visitor.Walk(step)
			}
			return true
		case ast.Var:
			if isInput(x) {
				found = true
			}
		}
		return found
	})
	for _, mod := range modules {
		visitor.Walk(mod)
	}
	return found
}

func isInput(v ast.Value) bool { return ast.InputRootDocument.Value.Compare(v) == 0 }

// isOtherMember reports whether a step into the input is a name that is not
// "time".
func isOtherMember(step ast.Value) bool {
	name, ok := step.(ast.String)
	return ok && name != "time"
}
