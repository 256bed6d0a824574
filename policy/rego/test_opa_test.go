package rego_test

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"

	"github.com/microwall/microwall/policy/rego"
)

// byOPA returns how OPA's tester says that the tests of a source end: by name,
// "ok", "skip" or "fail", and behind that what was printed.
func byOPA(t *testing.T, src rego.Source) map[string]string {
	t.Helper()
	modules := map[string]*ast.Module{}
	for _, m := range slices.Concat(src.Modules, src.Tests) {
		var err error
		if modules[m.Path], err = ast.ParseModuleWithOpts(m.Path, string(m.Source), ast.ParserOptions{RegoVersion: ast.RegoV1}); err != nil {
			t.Fatal(err)
		}
	}
	root := map[string]any{}
	if len(src.Data) > 0 {
		if err := json.Unmarshal(src.Data, &root); err != nil {
			t.Fatal(err)
		}
	}
	store := inmem.NewFromObject(root)
	got := map[string]string{}
	err := storage.Txn(t.Context(), store, storage.TransactionParams{}, func(txn storage.Transaction) error {
		results, err := tester.NewRunner().
			SetCompiler(ast.NewCompiler().WithDefaultRegoVersion(ast.RegoV1).WithEnablePrintStatements(true)).
			SetStore(store).SetModules(modules).RaiseBuiltinErrors(true).CapturePrintOutput(true).
			RunTests(context.Background(), txn)
		if err != nil {
			return err
		}
		for r := range results {
			name := r.Name
			if r.Package != "data.authz_test" {
				name = strings.TrimPrefix(r.Package, "data.") + "." + name
			}
			failed := r.Fail || r.Error != nil
			cases := false
			for path, sub := range r.SubResults.Iter {
				if len(sub.SubResults) > 0 {
					continue
				}
				cases = true
				got[name+"["+strings.Join(path, "][")+"]"] = ending(sub.Fail, false, string(r.Output))
				failed = failed && (!sub.Fail || r.Error != nil)
			}
			if !cases || failed {
				got[name] = ending(failed, r.Skip, string(r.Output))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func ending(failed, skipped bool, output string) string {
	switch {
	case failed:
		return "fail\n" + output
	case skipped:
		return "skip\n" + output
	}
	return "ok\n" + output
}

func byUs(t *testing.T, src rego.Source) map[string]string {
	t.Helper()
	report, err := rego.Test(t.Context(), src, rego.TestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range report.Results {
		if _, ok := got[r.Name]; ok && !r.Skipped {
			t.Errorf("%s is there twice", r.Name)
		}
		got[strings.TrimPrefix(r.Name, "authz_test.")] = ending(r.Failure != "", r.Skipped, r.Output)
	}
	return got
}

// odd are tests as nobody should write them.
var odd = map[string]string{
	"functions":                          `test_f(x) if x == 1`,
	"a function without conditions":      "test_f(_) := true\ntest_g if test_f(1)",
	"a set":                              `test_s contains "a" if true`,
	"a set without members":              `test_s contains "a" if false`,
	"an object":                          `test_o := {"a": true}`,
	"another value":                      "test_n := 1\ntest_t := \"true\"\ntest_null := null\ntest_array := [true]",
	"false":                              "test_f := false\ntest_g := false if true\ntest_h := 1 == 2",
	"undefined":                          "test_u if input.x\ntest_v := input.y",
	"not":                                "test_n if not input.x\ntest_m if not true",
	"cases":                              `test_x[n] if { some n in ["a", "b"]; n == "a" }`,
	"no case":                            `test_x[n] if { some n in []; n == "a" }`,
	"cases of constants":                 "test_x.a if true\ntest_x.b if false\ntest_x.c if true",
	"cases of two rules":                 "test_x[n] if { some n in [\"a\", \"b\"] }\ntest_x[n] if { some n in [\"c\", \"d\"]; n != \"c\" }",
	"cases with values":                  "test_x[n] := v if some n, v in {\"a\": true, \"b\": false, \"c\": 1, \"d\": [true], \"e\": \"x\"}",
	"numbered cases":                     `test_x[n] if { some n in [1, 2.5, true, null, ["a"], {"b": 1}]; n != 2.5 }`,
	"levels":                             "test_x[a][b][c] if { some a in [\"p\", \"q\"]; some b in [1, 2]; some c in [true, false]; c }",
	"levels and constants":               "test_x.k[a].m[b] if { some a in [\"p\", \"q\"]; some b in [1, 2]; b == 1 }",
	"a name by more than one expression": "test_x[sprintf(\"%d and %d\", [a, b])] if { some a in [1, 2]; some b in [3, 4]; a + b < 6 }",
	"a name that is known late":          "test_x[n] if { some a in [1, 2]; a == 1; n := sprintf(\"case %d\", [a]) }",
	"a set of cases":                     "test_x[n] contains 1 if some n in [\"a\"]",
	"else":                               "test_e if { false } else if { true }\ntest_f if { false } else if { false }\ntest_g if { false } else := false",
	"default":                            "default test_d := true\ntest_d if false\ndefault test_e := false",
	"several of one name":                "test_x if true\ntest_x if false\ntest_x if true\ntest_x[\"a\"] if true",
	"a long name":                        "a.test_x if true\na.test_y.b if true\na.test_z[n] if some n in [\"c\"]\ntest_w.test_v if false",
	"numbered long names":                "a.test_x if true\na.test_x if false\na[\"test_x\"] if true",
	"a case that errs":                   `test_x[n] if { some n, v in {"a": "1", "b": "x", "c": "2"}; to_number(v) < 2 }`,
	"an error in a not":                  `test_x if not to_number("x")`,
	"errors":                             "test_x if { some v in [\"x\", \"y\"]; to_number(v) }\ntest_y if to_number(\"z\") == 1",
	"a conflict":                         "f(x) := 1 if x\nf(x) := 2 if x\ntest_x if f(true) == 1\ntest_y[n] if { some n in [\"a\"]; f(true) == 1 }",
	"later":                              "todo_test_x if false\ntodo_test_y[n] if { some n in [\"a\"] }\ntodo_z if false\ntodo_test_x if true",
	"no tests":                           "a := 1\ntesting := false\nTest_x := false",
	"print":                              "test_x if { print(\"a\", 1, 1.50, true, null, {\"b\": [1]}, input.x, {1, 2}, []); true }",
	"print of several":                   "test_x if { print({x | some x in [1, 2]}, [\"a\", \"b\"]) }",
	"print in another rule":              "p if { print(\"p\", input) }\ntest_x if { p with input as 1; p with input as {\"a\": {2}} }",
	"print that fails":                   "test_x if print(to_number(\"x\"))",
	"print by its other name":            "test_x if internal.print([{1}, {\"b\"}, set()])",
	"print of a scalar case":             "test_x[n] if { some n in [1, 2]; print(\"case\", n); n == 1 }",
	"cases by hand":                      "test_x[a] if { some a in [\"a\", \"b\"]; internal.test_case([a]); a == \"a\" }\ntest_y if { internal.test_case([\"z\"]) }",
	"mocks":                              "f(x) := x\ntest_x if f(1) == 2 with f as 2\ntest_y if count([]) == 7 with count as 7\ng(_) := 3\ntest_z if f(1) == 3 with f as g\ntest_w if { upper(\"a\") == \"b\" with upper as lower2 }\nlower2(_) := \"b\"",
	"input and data":                     "test_x if input == {\"a\": {\"b\": 1}} with input.a.b as 1\ntest_y if data.table.a == 2 with data.table.a as 2\ntest_z if data.table.a == 1\ntest_w if data.new == 1 with data.new as 1\ntest_v if not input\ntest_u if not data.authz.allow\ntest_t if data.authz.allow with input.action.name as \"A\"\ntest_s if data.authz.allow with data.authz.allow as true",
	"tests that use tests":               "test_x if not test_y\ntest_y if false\ntest_z if data.authz_test.test_x",
	"every":                              "test_x if every n in [1, 2] { n > 0 }\ntest_y if every n in [1, 2] { n > 1 }",
	"comprehensions":                     "test_x if [n | some n in [1, 2]; n > 1] == [2]\ntest_y if { s := {n | some n in [1, 2, 2]}; count(s) == 3 }",
	"unification":                        "test_x if { [a, b] := [1, 2]; a < b; some x; x = a; x == 1 }\ntest_y if { {\"a\": a, \"b\": 3} = {\"a\": 1, \"b\": 2}; a }",
	"another order":                      "test_x if { some a, b; a > 1; a = b; b = 2 }\ntest_y if { some a, b; a > 2; a = b; b = 2 }",
}

// differing are tests that end otherwise here, and why.
var differing = map[string]struct {
	text      string
	ours, opa map[string]string
}{
	"every goes on after the first element that does not hold: a later one may fail": {
		`test_x if every n in [1, 2] { print(n); n > 1 }`,
		map[string]string{"test_x": "fail\n1\n2\n"}, map[string]string{"test_x": "fail\n1\n"},
	},
	"a rule goes on when it is true already": {
		`test_x if { some n in [1, 2]; print(n) }`,
		map[string]string{"test_x": "ok\n1\n2\n"}, map[string]string{"test_x": "ok\n1\n"},
	},
	"a failing call is found though the test is true already": {
		"p if true\np if to_number(\"x\") == 1\ntest_x if p",
		map[string]string{"test_x": "fail\n"}, map[string]string{"test_x": "ok\n"},
	},
	"a case that is null is not true": {
		`test_x[n] := null if some n in ["a"]`,
		map[string]string{"test_x[a]": "fail\n"}, map[string]string{"test_x[a]": "ok\n"},
	},
	"a case that is {} is not true": {
		`test_x[n] := {} if some n in ["a"]`,
		map[string]string{"test_x[a]": "fail\n"}, map[string]string{"test_x[a]": "ok\n"},
	},
}

func TestTestsThatEndOtherwiseThanOPAsTesterHasIt(t *testing.T) {
	for name, test := range differing {
		t.Run(name, func(t *testing.T) {
			src := withTests(test.text)
			if got := byUs(t, src); !maps.Equal(got, test.ours) {
				t.Errorf("got %q, want %q", got, test.ours)
			}
			if got := byOPA(t, src); !maps.Equal(got, test.opa) {
				t.Errorf("OPA's is %q, not %q: is it still a difference?", got, test.opa)
			}
		})
	}
}

// OPA's tester crashes: the case that it is told of is below one that it knows.
func TestACaseBelowACase(t *testing.T) {
	got := failuresOf(runTests(t, withTests(`test_x[n] if { some n in ["a"]; internal.test_case([n, "b"]); internal.test_case([]) }`), rego.TestOptions{}))
	want := map[string]string{"test_x[a]": "", "test_x[a][b]": "is not true", "test_x[]": "is not true"}
	if !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTestsEndAsOPAsTesterHasIt(t *testing.T) {
	for name, text := range odd {
		t.Run(name, func(t *testing.T) {
			src := withTests(text)
			if got, want := byUs(t, src), byOPA(t, src); !maps.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
	t.Run("packages", func(t *testing.T) {
		src := withTests("test_x if data.lib.f(1) == 2\ntest_y if data.lib.test_z")
		src.Modules = append(src.Modules, rego.Module{Path: "lib.rego", Source: []byte("package lib\nf(x) := x + 1\ntest_z if f(1) == 3")})
		src.Tests = append(src.Tests,
			rego.Module{Path: "a_test.rego", Source: []byte("package authz\ntest_x if allow with input.action.name as \"A\"\ntest_y if allow")},
			rego.Module{Path: "b_test.rego", Source: []byte("package lib.deep[\"a b\"].tests\nimport data.lib\ntest_x if lib.f(2) == 3\ntest_y[\"a b\"] if lib.f(2) == 4")},
			rego.Module{Path: "c_test.rego", Source: []byte("package test_authz\nx if true\ntest_x if x")},
		)
		got, want := byUs(t, src), byOPA(t, src)
		if len(got) != 8 || !maps.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	})
	folders, err := filepath.Glob("../../examples/boutique/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range folders {
		var src rego.Source
		files, err := filepath.Glob(dir + "/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			switch name := filepath.Base(path); {
			case strings.HasSuffix(name, "_test.rego"):
				src.Tests = append(src.Tests, rego.Module{Path: name, Source: content})
			case strings.HasSuffix(name, ".rego"):
				src.Modules = append(src.Modules, rego.Module{Path: name, Source: content})
			case name == "data.json":
				src.Data = content
			}
		}
		if len(src.Tests) == 0 {
			continue
		}
		t.Run(dir, func(t *testing.T) {
			got, want := byUs(t, src), byOPA(t, src)
			if len(got) < 3 || !maps.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}
