package rego_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/microwall/microwall/policy/rego"
)

// hostileTests are tests that a team might write to bring the PDP down that runs
// them: what only tests have, and some of what a policy might try as well.
func hostileTests() map[string]hostile {
	const (
		text      = `t := concat("", [x | some i in numbers.range(1, 100000); x := "0123456789"])`
		unplanned = "test_x if { data.many[a] == 1; data.many[b] == 2; data.many[c] == 3; data.many[d] == 4; data.many[e] == 5 }\n"
	)
	// grown is a value that is made of the one before it, 60 times.
	grown := func(next string) string {
		var b strings.Builder
		b.WriteString("x0 := \"0123456789\"\n")
		for i := range 60 {
			fmt.Fprintf(&b, "x%d := %s\n", i+1, strings.ReplaceAll(next, "X", fmt.Sprintf("x%d", i)))
		}
		return b.String() + "test_x if count(x60) == 0"
	}
	all := map[string]hostile{
		"lines without end":   {module: `test_x if { every i in numbers.range(1, 10000000) { print("a line", i) } }`},
		"every line of print": {module: `test_x if { s := {x | some x in numbers.range(1, 1000)}; internal.print([s, s, s]); false }`},
		"cases without end":   {module: `test_x[n] if { some n in numbers.range(1, 10000000) }`},
		"cases that all fail": {module: `test_x[n] if { some n in numbers.range(1, 10000000); n < 0 }`},
		"names that are large": {module: `test_x[[n, data.l]] if { some n in numbers.range(1, 1000000) }`, data: func() string {
			return `{"l":[` + strings.Repeat("1234567,", 99_999) + `0]}`
		}},
		"cases that all fail at length":  {module: `test_x[n] if { some n in numbers.range(1, 100000); sprintf("%d", [n]) == "` + strings.Repeat("x", 1_000_000) + `" }`},
		"a case of many names":           {module: "test_x" + strings.Repeat("[n]", 20_000) + " if { some n in [1]; " + strings.Repeat("n > 0; ", 20_000) + "n > 1 }"},
		"cases by hand":                  {module: `test_x[a] if { a := "a"; every i in numbers.range(1, 10000000) { internal.test_case([a, i]) } }`},
		"calls that fail":                {module: `test_x if { some i in numbers.range(1, 10000000); to_number(sprintf("x%d", [i])) == 1 }`},
		"errors that are long":           {module: `test_x if { every i in numbers.range(1, 20) { not to_number(sprintf("%dx%s", [i, t])) } }` + "\n" + text},
		"many of one name":               {module: strings.Repeat("test_x if { bits.lsh(1, 2000000000) > 0 }\n", 5_000)},
		"many that print":                {module: strings.Repeat("test_x if { print(t); false }\n", 200) + text},
		"many that use up their budgets": {module: strings.Repeat("test_x if { some a in numbers.range(1, 3000); some b in numbers.range(1, 3000); some c in numbers.range(1, 3000); a + b + c < 0 }\n", 100)},
		"many that fill the memory":      {module: strings.Repeat("test_x if { s := {[a, b] | some a in numbers.range(1, 3000); some b in numbers.range(1, 3000)}; count(s) == 0 }\n", 20)},
		"many that cannot be planned":    {module: strings.Repeat(unplanned, 300)},
		"a text that doubles":            {module: grown(`concat("", [X, X])`)},
		"a JSON that doubles":            {module: grown(`json.marshal([X, X])`)},
		"a replacement that is replaced": {module: `test_x if { every i in numbers.range(1, 10000000) { data.authz.allow with input as {"action": {"name": i}} with data.table as [i] } }`},
	}
	policies := hostilePolicies()
	for _, name := range []string{
		"a shift by two billion", "a range of a billion", "nested counted repetition on a megabyte", "a product of sets", "a deep document",
		"five unbound references", "rules that are all one", "functions replaced in functions that are replaced",
	} {
		h := policies[name]
		h.module = strings.NewReplacer("allow if", "test_allow if", "input.resource.properties.text", "data.text", "input.action.name", "input.x").Replace(h.module)
		all[name] = h
	}
	return all
}

// What a team pushes as tests, however they are written, costs a failed test, not
// the process.
func TestHostileTestsDoNotBringTheProcessDown(t *testing.T) {
	if name := os.Getenv(hostileEnv); name != "" {
		sufferTests(t, hostileTests()[name])
		return
	}
	if race {
		t.Skip("the race detector takes more memory and time than hostile tests may")
	}
	for name := range hostileTests() {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), childTimeout)
			defer cancel()
			out, err := child(ctx, "TestHostileTestsDoNotBringTheProcessDown", name).CombinedOutput()
			if ctx.Err() != nil {
				t.Fatalf("still running after %s", childTimeout)
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
		})
	}
}

// sufferTests runs tests as a PDP does at a push, under a limit of memory.
func sufferTests(t *testing.T, h hostile) {
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: childMemory, Max: childMemory}); err != nil {
		t.Fatal(err)
	}
	const (
		budget     = 2 * time.Second
		mostMemory = 1200 // MiB, with 512 for what a test builds
	)
	src := withTests(h.module)
	if strings.Contains(h.module, "data.many") {
		src.Modules = append(src.Modules, rego.Module{Path: "many.rego", Source: []byte(twentyRules())})
	}
	if h.data != nil {
		src.Data = []byte(h.data())
	}
	if h.text != nil {
		src.Data = []byte(`{"text":"` + h.text() + `"}`)
	}
	ctx, cancel := context.WithTimeout(t.Context(), budget)
	defer cancel()
	start := time.Now()
	report, err := rego.Test(ctx, src, rego.TestOptions{Timeout: time.Second})
	took := time.Since(start)
	failed := report.Failed()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB, %d results after %s, %d failed: %v", usage.Maxrss>>10, len(report.Results), took, len(failed), err)
	if len(failed) > 0 {
		t.Logf("%.100s: %.300s", failed[0].Name, failed[0].Failure)
	}
	if err == nil && len(failed) == 0 {
		t.Error("it passed")
	}
	if usage.Maxrss>>10 > mostMemory {
		t.Errorf("it took %d MiB", usage.Maxrss>>10)
	}
	if took > budget+3*time.Second {
		t.Errorf("it took %s", took)
	}
}
