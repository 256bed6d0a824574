package rego_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// rules are n rules that deny with their number.
func rules(n int, body func(i int) string) string {
	var b strings.Builder
	b.WriteString("package authz\n")
	for i := range n {
		fmt.Fprintf(&b, "deny contains \"%d\" if %s\n", i, body(i))
	}
	return b.String()
}

// What a policy's constants are prepared to is bounded for all of them together:
// with short patterns that compile to much, nobody stops the process that activates
// a bundle, or fills its memory.
func TestConstantPatternsDoNotStopTheProcess(t *testing.T) {
	pattern := func(format string, args ...any) string {
		return "regex.match(`" + fmt.Sprintf(format, args...) + "`, input.subject.id)"
	}
	rep := strings.Repeat
	for name, body := range map[string]func(i int) string{
		"one that repeats":        func(int) string { return pattern("(%s){1000}", rep("a", 640)) },
		"many that repeat":        func(i int) string { return pattern("(%d%s){1000}", i, rep("a", 300)) },
		"many that repeat little": func(i int) string { return pattern("(%d%s){1000}", i, rep("a", 10)) },
		"alternatives":            func(i int) string { return pattern("%d(%s)", i, rep("a|bc|d?|", 400)) },
		"classes":                 func(i int) string { return pattern("%d%s", i, rep(`\pL`, 400)) },
		"ranges in any case":      func(i int) string { return pattern("(?i)%d%s", i, rep(`[a-\x{10ffff}]`, 30)) },
		"templates": func(i int) string {
			return fmt.Sprintf("regex.template_match(`%d%s`, input.subject.id, \"{\", \"}\")", i, rep("{(ab){900}}", 10))
		},
		"globs": func(i int) string {
			return fmt.Sprintf("glob.match(`{%d%s}`, [], input.subject.id)", i, rep(",*a?[!x]", 200))
		},
		"replacements": func(i int) string {
			return fmt.Sprintf("strings.replace_n({`%d%s`: `x`}, input.subject.id) == `x`", i, rep("a", 30_000))
		},
		"prefixes": func(i int) string {
			return fmt.Sprintf("strings.any_prefix_match(input.subject.id, {%s`%d`})", rep("`a`, ", 500), i)
		},
	} {
		t.Run(name, func(t *testing.T) {
			module := rules(200, body)
			before := inUse()
			start := time.Now()
			p := compile(t, module, "{}")
			if took := time.Since(start); took > 3*time.Second && !race {
				t.Errorf("%d KB of policy take %s to compile", len(module)>>10, took)
			}
			if grown := int64(inUse()-before) >> 20; grown > 300 {
				t.Errorf("%d KB of policy are compiled to %d MiB", len(module)>>10, grown)
			}
			r := request(t)
			r.Subject.ID = "7"
			got, err := p.Evaluate(t.Context(), rego.NewInput(&r, noon))
			switch {
			case err == nil:
				if slices.ContainsFunc(got.Deny, func(s string) bool { return s != "7" }) {
					t.Errorf("denied because of %v", got.Deny)
				}
			case policy.KindOf(err) != policy.Failed || !strings.Contains(err.Error(), "went over its budget"):
				t.Error(err)
			}
		})
	}
}

func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A pattern that is too large leaves the others as cheap to call as they are
// without it, and so does one that stands there many times.
func TestOneLargePatternIsNotToldOnTheOthers(t *testing.T) {
	large := strings.Repeat("a", 640)
	p, err := rego.Compile(t.Context(), source(rules(400, func(i int) string {
		switch i % 2 {
		case 0: // is not compiled before it is called, and it is not called
			return "{ input.subject.id == \"nobody\"; regex.match(`(" + large + "){1000}`, input.subject.id) }"
		default: // 4,000 instructions, 600 KB
			return "{ regex.match(`^((abcd){1000}|.*)$`, input.subject.id); input.resource.id != \"" + fmt.Sprint(i) + "\" }"
		}
	}), "{}"), rego.Options{Steps: 10_000_000})
	if err != nil {
		t.Fatal(err)
	}
	r := request(t)
	r.Subject.ID = "x"
	if got, err := p.Evaluate(t.Context(), rego.NewInput(&r, noon)); err != nil || len(got.Deny) != 200 {
		t.Errorf("denied %d times, %v", len(got.Deny), err)
	}
}
