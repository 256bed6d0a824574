package lint

import (
	"fmt"
	"go/ast"
	"go/build/constraint"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Mutants returns what keeps the ways in which the module can be broken on purpose,
// package internal/mutant, from being left out of every build but those of tests, a
// sentence each. In it are files under the build constraint !mutants, which hold
// nothing but constants that are false; files under mutants; and files that hold
// nothing.
func Mutants(fsys fs.FS) ([]string, error) {
	files, err := goFiles(fsys)
	if err != nil {
		return nil, err
	}
	var found []string
	report := func(f source, n ast.Node, what string) {
		found = append(found, fmt.Sprintf("%s: %s; package internal/mutant changes nothing in what ships", f.position(n), what))
	}
	for _, f := range files {
		if f.pkg != "internal/mutant" || f.test {
			continue
		}
		content, err := fs.ReadFile(fsys, f.name)
		if err != nil {
			return nil, err
		}
		ships := !builtFor(string(content), "mutants")
		for _, d := range f.tree.Decls {
			if g, ok := d.(*ast.GenDecl); ships && (!ok || g.Tok != token.CONST || !slices.Equal(values(g), slices.Repeat([]string{"false"}, len(g.Specs)))) {
				report(f, d, "is more than constants that are false")
			}
		}
		if !ships && path.Base(f.name) != "on.go" {
			report(f, f.tree, "what is built with the tag mutants belongs into on.go")
		}
		if !ships && !strings.Contains(text(f), "testing.Testing") {
			report(f, f.tree, "does not ask testing.Testing whether this is a test")
		}
	}
	slices.Sort(found)
	return found, nil
}

// builtFor reports whether a file has a build constraint that is one tag and nothing
// else.
func builtFor(content, tag string) bool {
	header, _, _ := strings.Cut(content, "\npackage ")
	for line := range strings.Lines(header) {
		if x, err := constraint.Parse(strings.TrimSpace(line)); err == nil && constraint.IsGoBuild(line) {
			return x.String() == tag
		}
	}
	return false
}

// values returns the values that a declaration of constants writes down, one a name.
func values(g *ast.GenDecl) (all []string) {
	for _, s := range g.Specs {
		v := s.(*ast.ValueSpec)
		for _, x := range v.Values {
			if id, ok := x.(*ast.Ident); ok {
				all = append(all, id.Name)
			} else {
				all = append(all, "")
			}
		}
		if len(v.Values) == 0 {
			all = append(all, "")
		}
	}
	return all
}

// text returns which names of packages a file uses.
func text(f source) string {
	var b strings.Builder
	f.selectors(func(pkg, name string, _ token.Position) { fmt.Fprintf(&b, "%s.%s ", pkg, name) })
	return b.String()
}
