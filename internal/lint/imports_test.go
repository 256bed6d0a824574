package lint_test

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/microwall/microwall/internal/lint"
)

const module = "github.com/microwall/microwall"

// root is the repository, seen from this package's folder, where its tests run.
const root = "../.."

func TestThisRepositoryKeepsItsImportMap(t *testing.T) {
	found, err := lint.ImportMap.Check(os.DirFS(root), module)
	if err != nil {
		t.Fatal(err)
	}
	for _, sentence := range found {
		t.Error(sentence)
	}
}

// The in-process check ends where another module begins. What those bring along
// only the go command knows.
func TestNothingIsLinkedThroughOtherModulesEither(t *testing.T) {
	cmd := exec.Command("go", "list", "-e", "-f", `{{.ImportPath}} {{join .Deps " "}}`, "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, &stderr)
	}
	packages := 0
	for line := range strings.Lines(string(out)) {
		paths := strings.Fields(line)
		pkg := strings.TrimPrefix(paths[0], module+"/")
		rule, ok := lint.ImportMap.Rule(pkg)
		if !ok {
			continue // said by the test above
		}
		packages++
		for _, never := range rule.Never {
			at := slices.IndexFunc(paths[1:], func(p string) bool { return p == never || strings.HasPrefix(p, never+"/") })
			// What the standard library links is its own affair, and so is "net".
			if at >= 0 && strings.Contains(never, ".") {
				t.Errorf("%s must never link %s, but links %s: `go mod why %[3]s` says through whom", pkg, never, paths[1+at])
			}
		}
	}
	if packages == 0 {
		t.Errorf("%s listed no package of the import map", cmd)
	}
}

// A rule that names a package no rule is about has a typing mistake in it.
func TestEveryPackageNamedByARuleHasARule(t *testing.T) {
	for _, rule := range lint.ImportMap.Rules {
		for _, inside := range rule.Inside {
			tree, isTree := strings.CutSuffix(inside, "/...")
			known := slices.ContainsFunc(lint.ImportMap.Rules, func(r lint.Rule) bool {
				return strings.TrimSuffix(r.Package, "/...") == tree || isTree && strings.HasPrefix(r.Package, tree+"/")
			})
			if _, ok := lint.ImportMap.Rule(tree); !ok && !known {
				t.Errorf("%s may import %s, of which no rule speaks", rule.Package, inside)
			}
		}
	}
}

func TestBreakingTheImportMapIsFound(t *testing.T) {
	rules := lint.Map{
		Rules: []lint.Rule{
			{Package: "policy"},
			{Package: "policy/rego", Inside: []string{"policy"}, Outside: []string{"example.org/opa"}},
			{Package: "bundles", Inside: []string{"policy"}, Never: []string{"net"}},
			{Package: "internal/wire", Inside: []string{"policy", "policy/rego", "internal/loop"}},
			{Package: "internal/loop", Inside: []string{"internal/wire"}, Outside: []string{"log/slog"}},
			{Package: "clients/remote", Inside: []string{"internal/wire", "policy"}, Never: []string{"example.org/opa", "policy/rego"}},
			{Package: "examples/...", Inside: []string{"clients/..."}, Process: true},
			{Package: "examples/special"},
			{Package: "cmd/app", Inside: []string{"policy/...", "clients/..."}, Process: true},
		},
		Tests: []string{"example.org/cmp"},
	}
	for _, c := range []struct {
		name string
		tree map[string]string
		want []string // one substring a sentence, in order
	}{
		{"nothing is wrong", map[string]string{
			"policy/policy.go":            `package policy; import ("strings"; "encoding/json"; "fmt"); var _ = fmt.Sprint`,
			"policy/rego/rego.go":         `package rego; import ("example.com/m/policy"; "example.org/opa/v1/ast")`,
			"policy/policy_test.go":       `package policy_test; import ("os"; "example.com/m/policy"; "example.com/m/clients/remote"; "example.org/cmp/cmpopts"); var _ = os.Args`,
			"bundles/bundles.go":          `package bundles; import ("net/netip"; "os"); var _ = os.ReadFile`,
			"cmd/app/main.go":             `package main; import ("flag"; "log/slog"; "os"; "example.com/m/policy/rego"); var _ = os.Args`,
			"internal/loop/loop.go":       `package loop; import ("log/slog"; "os"); var _ = os.Open`,
			"examples/shop/shop.go":       `package shop; import ("example.com/m/clients/remote")`,
			"clients/remote/remote.go":    `package remote; import ("example.com/m/policy")`,
			"policy/testdata/bad.go":      `package bad; import "example.org/anything"`,
			"_scratch/bad.go":             `package bad; import "example.org/anything"`,
			".cache/bad.go":               `package bad; import "example.org/anything"`,
			"other/go.mod":                `module example.com/other`,
			"other/bad.go":                `package bad; import "example.org/anything"`,
			"policy/.#policy.go":          `no Go at all`,
			"examples/shop/policy/x.rego": `package authz`,
		}, nil},
		{"a package that the map does not know", map[string]string{
			"policy/extra/extra.go": `package extra`,
		}, []string{"package policy/extra is not in the import map: add a rule to ImportMap in internal/lint/importmap.go"}},
		{"Go in the root", map[string]string{
			"root.go": `package m`,
		}, []string{"package . is not in the import map"}},
		{"a tree of rules ends where its name ends", map[string]string{
			"examples2/x.go": `package examples2`,
		}, []string{"package examples2 is not"}},
		{"the longer rule counts", map[string]string{
			"examples/special/x.go": `package special; import "example.com/m/clients/remote"`,
		}, []string{"examples/special/x.go:1:25: examples/special may not import clients/remote"}},
		{"an import against the direction", map[string]string{
			"policy/policy.go": `package policy; import "example.com/m/policy/rego"`,
		}, []string{"policy/policy.go:1:24: policy may not import policy/rego"}},
		{"the root of the module", map[string]string{
			"policy/policy.go": `package policy; import "example.com/m"`,
		}, []string{"policy may not import example.com/m"}},
		{"a module from outside", map[string]string{
			"policy/policy.go": `package policy; import _ "example.org/opa"`,
		}, []string{"policy may not import example.org/opa"}},
		{"a module whose name only begins like one that is allowed", map[string]string{
			"policy/rego/rego.go": `package rego; import "example.org/opaque"`,
		}, []string{"policy/rego may not import example.org/opaque"}},
		{"a file for another system", map[string]string{
			"policy/policy_windows.go": `package policy; import "example.org/opa"`,
			"policy/odd.go":            "//go:build never\n\npackage policy; import \"example.org/opa\"",
		}, []string{"odd.go:3:24: policy may not import", "policy_windows.go:1:24: policy may not import"}},
		{"a link through another package", map[string]string{
			"clients/remote/remote.go": `package remote; import "example.com/m/internal/wire"`,
			"internal/wire/wire.go":    `package wire; import "example.com/m/internal/loop"; import "example.com/m/policy/rego"`,
			"internal/loop/loop.go":    `package loop; import "example.com/m/internal/wire"`,
			"policy/rego/rego.go":      `package rego; import "example.org/opa/v1/ast"`,
		}, []string{
			"clients/remote must never link example.org/opa/v1/ast: clients/remote -> internal/wire -> policy/rego -> example.org/opa/v1/ast",
			"clients/remote must never link policy/rego: clients/remote -> internal/wire -> policy/rego",
		}},
		{"a standard package that is never to be linked", map[string]string{
			"bundles/bundles.go": `package bundles; import "net"`,
		}, []string{"bundles must never link net: bundles -> net"}},
		{"a test is no link, but has limits", map[string]string{
			"clients/remote/remote_test.go": `package remote; import ("example.com/m/policy/rego"; "example.com/m/cmd/app"; "example.org/natsserver")`,
		}, []string{
			"a test of clients/remote may not import cmd/app",
			"a test of clients/remote may not import example.org/natsserver",
		}},
		{"a package that takes the process for its own", map[string]string{
			"policy/policy.go": `package policy; import ("flag"; system "os"; "fmt")
var (
	_ = system.Getenv
	_ = system.Open
)
func f() { fmt.Println(); fmt.Sprintln() }
`,
			"policy/rego/rego.go": `package rego; import (. "os"; "log/slog"; "os/signal")`,
		}, []string{
			"policy may not import flag: only commands own the process",
			"policy.go:3:6: policy may not use system.Getenv",
			"policy.go:6:12: policy may not use fmt.Println",
			"policy/rego may not import os by a dot",
			"policy/rego may not import log/slog",
			"policy/rego may not import os/signal",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, err := rules.Check(tree(c.tree), "example.com/m")
			if err != nil {
				t.Fatal(err)
			}
			wantEach(t, found, c.want)
		})
	}
}

func TestAFileThatDoesNotParseIsAnError(t *testing.T) {
	found, err := lint.Map{}.Check(tree(map[string]string{"policy/policy.go": `package policy; import "`}), "example.com/m")
	if err == nil || !strings.Contains(err.Error(), "policy/policy.go:1") {
		t.Errorf("found %q, error %v; want an error with the file's name", found, err)
	}
}

func tree(files map[string]string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}

// wantEach wants as many sentences as substrings, and each in its sentence.
func wantEach(t *testing.T, found, want []string) {
	t.Helper()
	ok := len(found) == len(want)
	for i := range min(len(found), len(want)) {
		ok = ok && strings.Contains(found[i], want[i])
	}
	if !ok {
		t.Errorf("found\n\t%s\nwant\n\t%s", strings.Join(found, "\n\t"), strings.Join(want, "\n\t"))
	}
}
