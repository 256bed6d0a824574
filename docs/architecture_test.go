package docs_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/microwall/microwall/internal/lint"
)

var update = flag.Bool("update", false, "write what is generated in the documents anew")

// generated holds the part of a document between two markers against what it
// must be, or writes it.
func generated(t *testing.T, file, name, want string) {
	t.Helper()
	begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->\n"
	text := read(t, file)
	before, rest, ok := strings.Cut(text, begin)
	got, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no %q and %q", file, begin, end)
	}
	switch {
	case got == want:
	case *update:
		write(t, filepath.Join(root, file), before+begin+want+end+after)
	default:
		t.Errorf("%s, %s: it must be\n%s\nbut is\n%s\n`go test ./docs -update` writes it anew", file, name, want, got)
	}
}

func TestTheArchitectureHasTheImportMap(t *testing.T) {
	var b strings.Builder
	b.WriteString("| package | may import | from outside | never links |\n|---|---|---|---|\n")
	for _, r := range lint.ImportMap.Rules {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", r.Package, spans(r.Inside), spans(r.Outside), spans(r.Never))
	}
	generated(t, "ARCHITECTURE.md", "import map", b.String())
}

// hosts are left out of the table: what follows says which module it is.
var hosts = strings.NewReplacer("github.com/", "", "google.golang.org/", "", "golang.org/", "")

func spans(packages []string) string {
	var all []string
	for _, p := range packages {
		all = append(all, "`"+hosts.Replace(p)+"`")
	}
	return strings.Join(all, ", ")
}

var promise = regexp.MustCompile("(?m)^\\| `([a-z0-9/.]+)` \\| [^|]+ \\|$")

// The table of packages and their promises has each package of the import map,
// and no other.
func TestTheArchitectureSaysWhatEachPackagePromises(t *testing.T) {
	_, house, _ := strings.Cut(read(t, "ARCHITECTURE.md"), "\n## The house\n")
	house, _, _ = strings.Cut(house, "\n### ")
	var got, want []string
	for _, m := range promise.FindAllStringSubmatch(house, -1) {
		got = append(got, m[1])
	}
	for _, r := range lint.ImportMap.Rules {
		want = append(want, r.Package)
	}
	for _, p := range got {
		if !slices.Contains(want, p) {
			t.Errorf("ARCHITECTURE.md speaks of a package %s, which internal/lint/importmap.go does not know", p)
		}
	}
	for _, p := range want {
		// Without a file it is only foreseen.
		if !slices.Contains(got, p) && exists(t, strings.TrimSuffix(p, "/...")) {
			t.Errorf("ARCHITECTURE.md does not say what package %s promises", p)
		}
	}
}

func exists(t testing.TB, name string) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return err == nil
}

var (
	named  = regexp.MustCompile(`^([a-z0-9]+)\.([A-Za-z]\w*(?:\.[A-Za-z]\w*)?)(?:\(.*\))?$`)
	inTree = regexp.MustCompile(`^(policy|bundles|pdp|clients|cmd|internal|proto|examples|docs|tools|\.ci)(/[\w.-]+)*/?$`)
)

// What a document names in code exists: functions, types and methods of the
// packages, and files.
func TestWhatTheDocumentsNameExists(t *testing.T) {
	declared := declarations(t)
	for _, file := range documents {
		checked := 0
		text := regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(read(t, file), "")
		for _, m := range codeSpan.FindAllStringSubmatch(text, -1) {
			span := strings.TrimSuffix(m[1], "/...")
			if n := named.FindStringSubmatch(span); n != nil && declared[n[1]] != nil && n[2] != "yaml" {
				checked++
				if !declared[n[1]][n[2]] {
					t.Errorf("%s names %s, but package %s has no %s", file, span, n[1], n[2])
				}
			}
			if inTree.MatchString(span) && strings.Contains(span, "/") && file != "docs/from-opa.md" {
				checked++
				if !exists(t, span) {
					t.Errorf("%s names %s, which is not there", file, span)
				}
			}
		}
		if file == "ARCHITECTURE.md" && checked < 80 {
			t.Errorf("only %d names were found in %s; does this test still read it?", checked, file)
		}
	}
}

// declarations returns what each package of the module declares: "Name", and
// "Type.Name" for methods and fields.
func declarations(t *testing.T) map[string]map[string]bool {
	t.Helper()
	all := map[string]map[string]bool{}
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || name != "." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir() || path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		pkg := file.Name.Name
		if all[pkg] == nil {
			all[pkg] = map[string]bool{}
		}
		for _, d := range file.Decls {
			for _, name := range names(d) {
				all[pkg][name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	delete(all, "main")
	delete(all, "boutique") // what begins like this is a namespace
	return all
}

func names(d ast.Decl) (all []string) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			return []string{d.Name.Name}
		}
		of := d.Recv.List[0].Type
		if star, ok := of.(*ast.StarExpr); ok {
			of = star.X
		}
		if name, ok := of.(*ast.Ident); ok {
			all = append(all, name.Name+"."+d.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				all = append(all, spec.Name.Name)
				if s, ok := spec.Type.(*ast.StructType); ok {
					for _, field := range s.Fields.List {
						for _, name := range field.Names {
							all = append(all, spec.Name.Name+"."+name.Name)
						}
					}
				}
			case *ast.ValueSpec:
				for _, name := range spec.Names {
					all = append(all, name.Name)
				}
			}
		}
	}
	return all
}
