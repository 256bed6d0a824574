package docs_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/decisions"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

const fromOPA = "docs/from-opa.md"

// namespace is the one whose policy the examples are.
const namespace policy.Namespace = "boutique.cart"

// example is one policy of the guide: a folder, and what is said of it.
type example struct {
	section string
	dir     string
	files   map[string]block
}

// examples puts the policies of the guide into folders. A new one begins with a
// section, or when a file is shown that the folder has already. check is called
// for each block that says what `microwall check` says of the folder so far.
func examples(t *testing.T, check func(example, block)) []example {
	t.Helper()
	var all []example
	for _, b := range readBlocks(t, fromOPA) {
		if len(all) == 0 || all[len(all)-1].section != b.section || all[len(all)-1].files[b.info].text != "" {
			all = append(all, example{section: b.section, dir: t.TempDir(), files: map[string]block{}})
		}
		e := all[len(all)-1]
		e.files[b.info] = b
		if b.lang == "text" {
			check(e, b)
			continue
		}
		if b.info == "" {
			t.Errorf("%s: which file is this?", b)
		}
		write(t, filepath.Join(e.dir, filepath.FromSlash(b.info)), b.text)
	}
	return all
}

// What the guide says is refused, is refused with these very words; all the
// rest compiles, and decides as its decisions say.
func TestTheGuideFromOPAIsRight(t *testing.T) {
	path := microwall(t)
	refused := 0
	all := examples(t, func(e example, b block) {
		refused++
		words := strings.Fields(b.info)
		cmd := exec.Command(path, words[1:]...)
		cmd.Dir = e.dir
		out, err := cmd.CombinedOutput()
		if err == nil || cmd.ProcessState.ExitCode() != 1 {
			t.Errorf("%s: %s ended with %v, want exit code 1", b, b.info, err)
		}
		if string(out) != b.text {
			t.Errorf("%s: %s says\n%sbut the guide says\n%s", b, b.info, out, b.text)
		}
	})
	decided := 0
	for _, e := range all {
		cases, told := e.files[decisions.File]
		_, bad := e.files["microwall check ."]
		switch {
		case told:
			decided++
			decide(t, e, cases)
		case !bad:
			t.Errorf("%s: nothing is said of the policy in section %q", e.files["authz.rego"], e.section)
		}
	}
	if refused < 5 || decided < 8 {
		t.Errorf("only %d policies that are refused and %d that decide were found; does this test still read the guide?", refused, decided)
	}
}

func decide(t *testing.T, e example, b block) {
	t.Helper()
	cases, err := decisions.Parse([]byte(b.text), namespace)
	if err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	bundle, err := bundles.Read(os.DirFS(e.dir))
	if err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	snapshot, err := live.NewLocal(t.Context(), map[policy.Namespace]*bundles.Bundle{namespace: bundle}, nil, rego.Options{})
	if err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	results, err := decisions.Run(t.Context(), snapshot, cases, namespace)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Failure != "" {
			t.Errorf("%s: %s:\n%s", b, r.Case.Name, r.Failure)
		}
	}
	p, err := snapshot.Path(namespace)
	if err != nil {
		t.Fatal(err)
	}
	if want := slices.Contains(uncached, e.section); p.Layout().ReadsTime() != want {
		t.Errorf("%s: the policy is cached: %v; the guide says %v", e.files["authz.rego"], !p.Layout().ReadsTime(), !want)
	}
}

// uncached are the sections whose policies the guide says are not cached.
var uncached = []string{"`time.now_ns`"}

func TestOPAsFormatterMakesOfV0WhatTheGuideSays(t *testing.T) {
	var shown []string
	for _, b := range readBlocks(t, fromOPA) {
		if b.section == "Rego v0" && b.info == "authz.rego" {
			shown = append(shown, b.text)
		}
	}
	if len(shown) != 2 {
		t.Fatalf("%s shows %d policies under Rego v0, want the old and the new one", fromOPA, len(shown))
	}
	got, err := format.SourceWithOpts("authz.rego", []byte(shown[0]), format.Opts{RegoVersion: ast.RegoV0CompatV1, ParserOptions: &ast.ParserOptions{RegoVersion: ast.RegoV0}})
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != shown[1] {
		t.Errorf("opa fmt makes\n%s\nbut the guide says\n%s", got, shown[1])
	}
}

// The guide's table has every built-in of OPA that a policy cannot call, and
// what `microwall check` says to do instead.
func TestTheGuideNamesEveryBuiltInThatIsMissing(t *testing.T) {
	caps, err := ast.LoadCapabilitiesVersion("v1.22.2")
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(caps.Builtins, func(a, b *ast.Builtin) int { return strings.Compare(a.Name, b.Name) })
	var rows []string
	for _, b := range caps.Builtins {
		if b.Infix != "" || strings.HasPrefix(b.Name, "internal.") {
			continue
		}
		args := strings.Repeat("1, ", len(b.Decl.FuncArgs().Args))
		module := fmt.Sprintf("package authz\nallow if x == %s(%s)\nx := 1\n", b.Name, strings.TrimSuffix(args, ", "))
		_, err := rego.Check(t.Context(), rego.Source{Modules: []rego.Module{{Path: "authz.rego", Source: []byte(module)}}})
		problems, _ := errors.AsType[rego.Problems](err)
		for _, p := range problems {
			if p.Message == "undefined function "+b.Name {
				rows = append(rows, fmt.Sprintf("| `%s` | %s |", b.Name, p.Hint))
			}
		}
	}
	generated(t, fromOPA, "missing built-ins", "| built-in | instead |\n|---|---|\n"+strings.Join(rows, "\n")+"\n")
}
