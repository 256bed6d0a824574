package exactness_test

import (
	"context"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var mutants = flag.Bool("mutants", false, "test that the model finds the clients that are broken on purpose")

// bound is how many operations the model has to find a mutant, at least, and mutantTimeout
// how long.
const (
	bound         = 100_000
	mutantTimeout = 5 * time.Minute
)

var foundAfter = regexp.MustCompile(`after (\d+) operations: (.*)`)

func TestEveryMutantIsFound(t *testing.T) {
	if !*mutants {
		t.Skip("it takes minutes; -mutants")
	}
	binary := filepath.Join(t.TempDir(), "exactness.test")
	if out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "mutants", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := func(t *testing.T, name string, ops int) (out string, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), mutantTimeout)
		defer cancel()
		c := exec.CommandContext(ctx, binary, "-test.v", "-test.run", "^TestTheCachedAnswerIsTheAnswer$", fmt.Sprint("-exact.ops=", ops), fmt.Sprint("-exact.seed=", *exactSeed))
		c.Env = append(c.Environ(), "MICROWALL_MUTANT="+name)
		text, err := c.CombinedOutput()
		return string(text), err
	}
	t.Run("none", func(t *testing.T) {
		if out, err := run(t, "", int(*exactOps)); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	for _, name := range named(t, "../mutant/off.go") {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			out, err := run(t, name, bound)
			found := foundAfter.FindStringSubmatch(out)
			if err == nil || found == nil {
				t.Fatalf("it was not found: %v\n%s", err, out)
			}
			what := found[2]
			if _, fault, ok := strings.Cut(what, " off: "); ok {
				what = fault
			}
			t.Logf("found after %s operations, %s: %.200s", found[1], time.Since(begin).Round(time.Second/10), what)
		})
	}
}

// named returns the names of the constants of a file.
func named(t *testing.T, file string) (all []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			all = append(all, v.Names[0].Name)
		}
		return true
	})
	return all
}
