package rego

import (
	"github.com/open-policy-agent/opa/v1/ast"
)

// readsTime reports whether compiled modules may read input.time: they name it,
// or read the input by a name that is not written out. Whatever is not plainly
// another member of the input counts, so that the answer is never a no too
// many.
func readsTime(modules map[string]*ast.Module) bool {
	input := ast.InputRootDocument.Value
	time := ast.String("time")
	found := false
	for _, mod := range modules {
		plain := map[*ast.Term]bool{} // heads of references to another member
		ast.WalkTerms(mod, func(t *ast.Term) bool {
			switch v := t.Value.(type) {
			case ast.Ref:
				if len(v) > 1 && input.Compare(v[0].Value) == 0 {
					member, ok := v[1].Value.(ast.String)
					plain[v[0]] = ok && member != time
				}
			case ast.Var:
				if input.Compare(v) == 0 && !plain[t] {
					found = true
				}
			}
			return found
		})
	}
	return found
}
