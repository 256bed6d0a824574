package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Map says what the packages of a module may import.
type Map struct {
	// Rules, one a package or a tree of packages.
	Rules []Rule
	// Tests are the prefixes of import paths outside the module that files
	// named *_test.go may import besides the standard library. Inside the
	// module they may import everything but commands.
	Tests []string
}

// Rule is one row of a [Map]. Where it says nothing, nothing is allowed but the
// standard library without what belongs to the process.
type Rule struct {
	// Package is a path inside the module, "policy/rego", or a tree,
	// "examples/...". Of two rules that match a package the longer one counts.
	Package string
	// Inside are the packages of the module that it may import: paths or trees.
	Inside []string
	// Outside are the prefixes of the import paths that it may import from
	// other modules, and the standard packages that it may import although they
	// belong to the process ("log/slog").
	Outside []string
	// Never are import paths, prefixes of them, or packages of the module that
	// it may not link, however long the chain of imports.
	Never []string
	// Process allows what belongs to the process and not to a package: flags,
	// environment, arguments, standard streams, logging, signals and exit.
	Process bool
}

// Rule returns the rule for a package of the module.
func (m Map) Rule(pkg string) (Rule, bool) {
	var best Rule
	for _, r := range m.Rules {
		if matches(r.Package, pkg) && len(r.Package) > len(best.Package) {
			best = r
		}
	}
	return best, best.Package != ""
}

// Check reads every Go file of the module in fsys, whatever system it is built
// for, and returns what breaks the map, a sentence each, sorted. The error is
// about files that cannot be read or parsed.
func (m Map) Check(fsys fs.FS, module string) ([]string, error) {
	files, err := goFiles(fsys)
	if err != nil {
		return nil, err
	}
	c := checker{module: module, rules: m, links: map[string][]string{}}
	for _, f := range files {
		c.file(f)
	}
	for pkg := range c.links {
		c.closure(pkg)
	}
	slices.Sort(c.found)
	return slices.Compact(c.found), nil
}

type checker struct {
	module string
	rules  Map
	// links are the imports of each package, without those of its tests. One
	// of the same module is written as a path inside it.
	links map[string][]string
	found []string
}

func (c *checker) report(format string, args ...any) {
	c.found = append(c.found, fmt.Sprintf(format, args...))
}

func (c *checker) file(f source) {
	rule, ok := c.rules.Rule(f.pkg)
	if !ok {
		c.report("package %s is not in the import map: add a rule to ImportMap in internal/lint/importmap.go that says what it may import, and the package to the map in ARCHITECTURE.md", f.pkg)
		return
	}
	if !f.test {
		c.links[f.pkg] = append(c.links[f.pkg], c.imports(f)...)
		if !rule.Process {
			c.process(f, rule)
		}
	}
	for i, imported := range c.imports(f) {
		at := f.position(f.tree.Imports[i])
		inside := strings.HasPrefix(f.importPath(i), c.module+"/")
		switch {
		case imported == f.pkg:
		case inside && f.test && !matches("cmd/...", imported):
		case inside && slices.ContainsFunc(rule.Inside, func(p string) bool { return matches(p, imported) }):
		case inside:
			c.report("%s: %s may not import %s: see ImportMap in internal/lint/importmap.go", at, f.who(), imported)
		case standard(imported):
		case hasPrefix(rule.Outside, imported) || f.test && hasPrefix(c.rules.Tests, imported):
		default:
			c.report("%s: %s may not import %s: see ImportMap in internal/lint/importmap.go", at, f.who(), imported)
		}
	}
}

// imports returns what a file imports, paths inside the module without the
// module's name.
func (c *checker) imports(f source) []string {
	var paths []string
	for i := range f.tree.Imports {
		paths = append(paths, strings.TrimPrefix(f.importPath(i), c.module+"/"))
	}
	return paths
}

// What belongs to the process, by import path; nil is the whole package.
var processOnly = map[string][]string{
	"flag":      nil,
	"log":       nil,
	"log/slog":  nil,
	"os/signal": nil,
	"os": {"Args", "Environ", "Exit", "ExpandEnv", "Getenv", "LookupEnv", "Setenv", "Unsetenv", "Clearenv",
		"Stdin", "Stdout", "Stderr"},
	"fmt": {"Print", "Printf", "Println", "Scan", "Scanf", "Scanln"},
}

func (c *checker) process(f source, rule Rule) {
	const why = "only commands own the process: take it in a Config, report it as an event"
	partly := map[string][]string{} // by the name the file knows the package by
	for i, spec := range f.tree.Imports {
		imported := f.importPath(i)
		names, listed := processOnly[imported]
		switch {
		case !listed, hasPrefix(rule.Outside, imported):
		case names == nil:
			c.report("%s: %s may not import %s: %s", f.position(spec), f.who(), imported, why)
		case spec.Name == nil:
			partly[path.Base(imported)] = names
		case spec.Name.Name == ".":
			c.report("%s: %s may not import %s by a dot: write %[3]s.Name", f.position(spec), f.who(), imported)
		default:
			partly[spec.Name.Name] = names
		}
	}
	f.selectors(func(pkg, name string, at token.Position) {
		if slices.Contains(partly[pkg], name) {
			c.report("%s: %s may not use %s.%s: %s", at, f.who(), pkg, name, why)
		}
	})
}

// closure reports each thing that pkg must never link and does, with the
// shortest chain that leads there.
func (c *checker) closure(pkg string) {
	rule, _ := c.rules.Rule(pkg)
	reached := map[string]string{pkg: ""} // package: who imports it
	for queue := []string{pkg}; len(queue) > 0; queue = queue[1:] {
		from := queue[0]
		for _, imported := range c.links[from] {
			if _, seen := reached[imported]; seen {
				continue
			}
			reached[imported] = from
			if hasPrefix(rule.Never, imported) {
				c.report("%s must never link %s: %s", pkg, imported, chain(reached, imported))
			}
			queue = append(queue, imported)
		}
	}
}

func chain(importer map[string]string, last string) string {
	var steps []string
	for at := last; at != ""; at = importer[at] {
		steps = append(steps, at)
	}
	slices.Reverse(steps)
	return strings.Join(steps, " -> ")
}

// matches says whether a path is the one that a pattern names, or below it if
// the pattern ends in "/...".
func matches(pattern, pkg string) bool {
	if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == tree || strings.HasPrefix(pkg, tree+"/")
	}
	return pkg == pattern
}

// hasPrefix says whether an import path is one of those named, or below it. A
// standard package is named alone: "net" is not "net/netip".
func hasPrefix(named []string, imported string) bool {
	return slices.ContainsFunc(named, func(prefix string) bool {
		return imported == prefix || !standard(prefix) && strings.HasPrefix(imported, prefix+"/")
	})
}

// standard says whether an import path is the standard library's, whose first
// element has no dot. (Paths inside this module are told apart before.)
func standard(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	return !strings.Contains(first, ".")
}

// source is one parsed Go file.
type source struct {
	pkg  string // path inside the module
	name string // path of the file inside the module
	test bool   // whether it is a *_test.go
	tree *ast.File
	set  *token.FileSet
}

func (f source) position(n ast.Node) token.Position { return f.set.Position(n.Pos()) }

func (f source) importPath(i int) string {
	p, err := strconv.Unquote(f.tree.Imports[i].Path.Value)
	if err != nil {
		return f.tree.Imports[i].Path.Value // the parser has let it pass; no rule will
	}
	return p
}

func (f source) who() string {
	if f.test {
		return "a test of " + f.pkg
	}
	return f.pkg
}

// selectors calls do for every "pkg.Name" in the file.
func (f source) selectors(do func(pkg, name string, at token.Position)) {
	ast.Inspect(f.tree, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok {
				do(x.Name, s.Sel.Name, f.position(s))
			}
		}
		return true
	})
}

// goFiles parses the Go files of a module as the go command finds them: without
// testdata, hidden folders and modules inside the module.
func goFiles(fsys fs.FS) ([]source, error) {
	var files []source
	set := token.NewFileSet()
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch base := path.Base(name); {
		case err != nil:
			return err
		case name == ".":
			return nil
		case d.IsDir() && (base == "testdata" || base == "vendor" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")):
			return fs.SkipDir
		case d.IsDir():
			if _, err := fs.Stat(fsys, path.Join(name, "go.mod")); err == nil {
				return fs.SkipDir
			}
			return nil
		case path.Ext(base) != ".go" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_"):
			return nil
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		tree, err := parser.ParseFile(set, name, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, source{pkg: path.Dir(name), name: name, test: strings.HasSuffix(name, "_test.go"), tree: tree, set: set})
		return nil
	})
	return files, err
}
