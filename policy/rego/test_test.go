package rego_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/policy/rego"
)

// withTests is a policy that allows the action A, and a file of tests.
func withTests(tests string) rego.Source {
	src := source("package authz\n\ndefault allow := false\n\nallow if input.action.name == \"A\"", `{"table": {"a": 1}}`)
	src.Tests = []rego.Module{{Path: "authz_test.rego", Source: []byte("package authz_test\nimport data.authz\n" + tests)}}
	return src
}

func runTests(t testing.TB, src rego.Source, o rego.TestOptions) rego.TestReport {
	t.Helper()
	report, err := rego.Test(t.Context(), src, o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// failuresOf are the failures of a report by the tests' names without their
// package; "" for one that passed.
func failuresOf(r rego.TestReport) map[string]string {
	failures := map[string]string{}
	for _, result := range r.Results {
		failures[strings.TrimPrefix(result.Name, "authz_test.")] = result.Failure
	}
	return failures
}

func TestAFailedTestSaysWhereAndWhy(t *testing.T) {
	for name, test := range map[string]struct {
		tests string
		want  map[string]string
	}{
		"the expression that is not true": {`test_x if {
	name := "B"
	authz.allow with input.action.name as name
	name == "never asked"
}`, map[string]string{"test_x": `is not true: authz_test.rego:5: authz.allow with input.action.name as name`}},
		"an undefined variable's": {`test_x if {
	n := input.subject.id
	n == "x"
}`, map[string]string{"test_x": `is not true: authz_test.rego:4: n := input.subject.id`}},
		"the furthest one of many tries": {`test_x if {
	some n in [1, 5, 2]
	n > 4
	n > 5
}`, map[string]string{"test_x": `is not true: authz_test.rego:6: n > 5`}},
		"one of several lines": {`test_x if {
	every n in [1, 2] {
		n > 1
	}
}`, map[string]string{"test_x": `is not true: authz_test.rego:4: every n in [1, 2] { ...`}},
		"of every case its own": {`test_x[n] if {
	some n in ["A", "B", "C"]
	n != "C"
	authz.allow with input.action.name as n
}`, map[string]string{
			"test_x[A]": "",
			"test_x[B]": `is not true: authz_test.rego:6: authz.allow with input.action.name as n`,
			"test_x[C]": `is not true: authz_test.rego:5: n != "C"`,
		}},
		"of else the last": {`test_x if {
	false
} else if {
	1 == 2
}`, map[string]string{"test_x": `is not true: authz_test.rego:6: 1 == 2`}},
		"what is there instead": {"test_x := false\ntest_y := 1\ntest_z := {1}\ntest_v := [1]\ntest_w[n] := n if some n in [false]", map[string]string{
			"test_x": "is not true, but false", "test_y": "is not true, but a number", "test_z": "is not true, but a set",
			"test_v": "is not true, but an array", "test_w[false]": "is not true, but false",
		}},
		"a call that fails": {`test_x if not to_number("x") == 1`, map[string]string{
			"test_x": `authz_test.rego:3: eval_builtin_error: to_number: strconv.ParseFloat: parsing "x": invalid syntax`,
		}},
		"each call that fails, once": {`test_x if {
	some s in ["x", "y", "x", "1"]
	to_number(s) == 1
}`, map[string]string{
			"test_x": `authz_test.rego:5: eval_builtin_error: to_number: strconv.ParseFloat: parsing "x": invalid syntax` + "\n" +
				`authz_test.rego:5: eval_builtin_error: to_number: strconv.ParseFloat: parsing "y": invalid syntax`,
		}},
		"a conflict": {"f(x) := 1 if x\nf(x) := 2 if x\ntest_x if f(true) == 1", map[string]string{
			"test_x": `authz_test.rego:4: eval_conflict_error: function data.authz_test.f produced conflicting values for the same inputs: 1 and 2`,
		}},
		"a function": {`test_x(y) if y`, map[string]string{"test_x": "is a function, and a test has no arguments: give it another name, or call it in a test"}},
		"places that the test makes up": {`test_x if { internal.test_case(data.table.a); internal.test_case(input.x); false }`, map[string]string{
			"test_x": "is not true: authz_test.rego:3: internal.test_case(input.x)",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := failuresOf(runTests(t, withTests(test.tests), rego.TestOptions{})); !maps.Equal(got, test.want) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestATestMayStandBesideTheRules(t *testing.T) {
	src := source("package authz\n\nallow if input.action.name == \"A\"\n\ntest_no if allow", "{}")
	if got := failuresOf(runTests(t, src, rego.TestOptions{})); got["authz.test_no"] == "" {
		t.Errorf("got %v", got)
	}
}

func TestATestThatLostItsCasesDoesNotPassByWhatStandsBeside(t *testing.T) {
	src := withTests("foo.test_bar[name] := true if { some name in []; false }\nfoo[x] := {\"y\": true} if x := \"other\"")
	for name, failure := range failuresOf(runTests(t, src, rego.TestOptions{})) {
		if failure == "" {
			t.Errorf("%s has passed", name)
		}
	}
}

func TestMoreCallsFailThanAreTold(t *testing.T) {
	got := failuresOf(runTests(t, withTests(`test_x if {
	some i in numbers.range(1, 1000)
	to_number(sprintf("x%d", [i])) == 1
}`), rego.TestOptions{}))["test_x"]
	if lines := strings.Split(got, "\n"); len(lines) != 11 || lines[10] != "and 990 more" {
		t.Errorf("got %q", got)
	}
}

func TestSeveralTestsOfOneNameAreNumberedByPlace(t *testing.T) {
	src := withTests("test_x if true\ntest_x if false\ntest_y if true")
	src.Tests = append(src.Tests, rego.Module{Path: "b_test.rego", Source: []byte("package authz_test\ntest_y if false\ntest_x if true")})
	for range 20 { // OPA's tester takes modules in the order of a map
		var got []string
		for _, r := range runTests(t, src, rego.TestOptions{}).Results {
			got = append(got, fmt.Sprintf("%s:%d %s %v", r.File, r.Line, r.Name, r.Failure == ""))
		}
		if want := []string{
			"authz_test.rego:3 authz_test.test_x true",
			"authz_test.rego:4 authz_test.test_x#01 false",
			"authz_test.rego:5 authz_test.test_y true",
			"b_test.rego:2 authz_test.test_y#01 false",
			"b_test.rego:3 authz_test.test_x#02 true",
		}; !slices.Equal(got, want) {
			t.Fatalf("got  %q\nwant %q", got, want)
		}
	}
}

func TestATestHasABudget(t *testing.T) {
	tests := `test_before if true
test_x if {
	some a in numbers.range(1, 3000)
	some b in numbers.range(1, 3000)
	some c in numbers.range(1, 3000)
	a + b + c < 0
}
test_y if count(numbers.range(1, 1000000)) == 1000000
test_after if true`
	const less = ": make it do less, or several tests of it"
	for name, test := range map[string]struct {
		options rego.TestOptions
		x, y    string
	}{
		"of steps": {rego.TestOptions{Steps: 100_000}, "went over its budget of 100000 steps" + less, "went over its budget of 100000 steps" + less},
		"of bytes": {rego.TestOptions{Bytes: 1 << 20}, "went over its budget of 1048576 bytes" + less, "went over its budget of 1048576 bytes" + less},
		"of time":  {rego.TestOptions{Timeout: 20 * time.Millisecond, Steps: 1 << 60}, "took too long, over 20ms" + less, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := failuresOf(runTests(t, withTests(tests), test.options))
			if name == "of time" { // a fast machine gets it done
				delete(got, "test_y")
			} else if got["test_y"] != test.y {
				t.Errorf("test_y: %q", got["test_y"])
			}
			if got["test_before"] != "" || got["test_x"] != test.x || got["test_after"] != "" {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestATestHasABudgetThatNobodyAskedFor(t *testing.T) {
	if race {
		t.Skip("a hundred million steps mean nothing under the race detector, and take long: run it without")
	}
	start := time.Now()
	got := failuresOf(runTests(t, withTests(`test_x if {
	some a in numbers.range(1, 3000)
	some b in numbers.range(1, 3000)
	some c in numbers.range(1, 3000)
	a + b + c < 0
}
test_y if count(numbers.range(1, 100000000)) > 0`), rego.TestOptions{}))
	if x := got["test_x"]; !strings.HasPrefix(x, "went over its budget of 100000000 steps") && !strings.HasPrefix(x, "took too long, over 5s") {
		t.Errorf("test_x: %q", x)
	}
	if y := got["test_y"]; !strings.HasPrefix(y, "went over its budget of 536870912 bytes") {
		t.Errorf("test_y: %q", y)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestARunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := rego.Test(ctx, withTests(`test_x if {
	some a in numbers.range(1, 3000)
	some b in numbers.range(1, 3000)
	some c in numbers.range(1, 3000)
	a + b + c < 0
}`), rego.TestOptions{Timeout: time.Hour, Steps: 1 << 60})
	if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > 5*time.Second {
		t.Errorf("got %v after %s", err, took)
	}
}

// One test that nobody can plan does not take the others with it.
func TestATestThatIsTooMuchToPlanFailsAlone(t *testing.T) {
	var many strings.Builder
	for i := range 20 {
		fmt.Fprintf(&many, "r%d := %d if input.action.name\n", i, i)
	}
	src := withTests(`test_a if true
test_b if { data.many[a] == 1; data.many[b] == 2; data.many[c] == 3; data.many[d] == 4; data.many[e] == 5 }
test_c if false`)
	src.Modules = append(src.Modules, rego.Module{Path: "many.rego", Source: []byte("package many\n" + many.String())})
	got := failuresOf(runTests(t, src, rego.TestOptions{}))
	if got["test_a"] != "" || !strings.Contains(got["test_b"], "authz_test.rego:4") || !strings.Contains(got["test_c"], "authz_test.rego:5") || len(got) != 3 {
		t.Errorf("got %q", got)
	}
}

func TestAReportIsBounded(t *testing.T) {
	report := runTests(t, withTests(`
text := concat("", [x | some _ in numbers.range(1, 100000); x := "0123456789"])
test_a if { every i in numbers.range(1, 50) { print(i, text) } }
test_b if { every i in numbers.range(1, 50) { print(i, text) } }
test_c if print("too late")
test_d[name] if { some i in numbers.range(1, 10); name := sprintf("%d %s", [i, text]) }
`), rego.TestOptions{})
	size := 0
	for _, r := range report.Results {
		size += len(r.Name) + len(r.Output) + len(r.Failure)
	}
	if size > 70<<20 {
		t.Errorf("the report has %d bytes", size)
	}
	got := map[string]rego.TestResult{}
	for _, r := range report.Results {
		got[r.Name] = r
	}
	const full = "(the report has no room for more)\n"
	if out := got["authz_test.test_a"].Output; strings.HasSuffix(out, full) || len(out) < 50_000_000 {
		t.Errorf("test_a: %d bytes", len(out))
	}
	if out := got["authz_test.test_b"].Output; !strings.HasSuffix(out, full) {
		t.Errorf("test_b: %d bytes", len(out))
	}
	if r := got["authz_test.test_d"]; r.Failure != "the report has no room for all of its cases" {
		t.Errorf("test_d: %s", r.Failure)
	}
}

func TestAThousandTestsEachHaveTheirResult(t *testing.T) {
	var tests strings.Builder
	want := map[string]string{}
	for i := range 1000 {
		name, failure := fmt.Sprintf("test_%d", i), ""
		fmt.Fprintf(&tests, "%s if authz.allow with input.action.name as [\"A\", \"B\", \"A\"][%d %% 3]\n", name, i)
		if i%3 == 1 {
			failure = fmt.Sprintf(`is not true: authz_test.rego:%d: authz.allow with input.action.name as ["A", "B", "A"][%d %% 3]`, i+3, i)
		}
		want[name] = failure
	}
	if got := failuresOf(runTests(t, withTests(tests.String()), rego.TestOptions{})); !maps.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
