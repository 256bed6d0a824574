package lint_test

import (
	"os"
	"testing"

	"github.com/microwall/microwall/internal/lint"
)

func TestMutantsChangeNothingThatShips(t *testing.T) {
	found, err := lint.Mutants(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	for _, sentence := range found {
		t.Error(sentence)
	}
}

func TestAMutantThatShipsIsFound(t *testing.T) {
	const off = "//go:build !mutants\n\npackage mutant\n\n"
	for _, c := range []struct {
		name, file, text string
		want             []string
	}{
		{"none", "off.go", off + "const A, B = false, false\nconst (\n\t// C breaks it.\n\tC = false\n)", []string{"off.go:5:1: is more"}},
		{"one each", "off.go", off + "const A = false\nconst (\n\t// C breaks it.\n\tC = false\n)", nil},
		{"true", "off.go", off + "const A = true", []string{"off.go:5:1: is more"}},
		{"worked out", "off.go", off + "const A = 1 > 0", []string{"off.go:5:1: is more"}},
		{"of others", "off.go", off + "const (\n\tA = false\n\tB\n)", []string{"off.go:5:1: is more"}},
		{"a variable", "off.go", off + "var A = false", []string{"off.go:5:1: is more"}},
		{"a function", "off.go", off + "func A() bool { return true }", []string{"off.go:5:1: is more"}},
		{"without a constraint", "more.go", "package mutant\n\nvar A = true", []string{"more.go:3:1: is more"}},
		{"by another tag", "more.go", "//go:build mutants || linux\n\npackage mutant\n\nvar A = true", []string{"more.go:5:1: is more"}},
		{"on", "on.go", "//go:build mutants\n\npackage mutant\n\nimport \"testing\"\n\nvar A = testing.Testing()", nil},
		{"on in any program", "on.go", "//go:build mutants\n\npackage mutant\n\nvar A = true", []string{"on.go:3:1: does not ask"}},
		{"on in another file", "more.go", "//go:build mutants\n\npackage mutant\n\nimport \"testing\"\n\nvar A = testing.Testing()", []string{"more.go:3:1: what is built"}},
		{"nothing", "doc.go", "// Package mutant has none.\npackage mutant", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, err := lint.Mutants(tree(map[string]string{"internal/mutant/" + c.file: c.text}))
			if err != nil {
				t.Fatal(err)
			}
			wantEach(t, found, c.want)
		})
	}
}
