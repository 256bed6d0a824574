package main

import (
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/microwall/microwall/internal/decisions"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// testReport is what test says of a policy, in JSON.
type testReport struct {
	Folder    string           `json:"folder"`
	Namespace policy.Namespace `json:"namespace,omitempty"`
	// Passed is true if there is no problem, no failure, and no threshold
	// that is not reached.
	Passed bool `json:"passed"`
	// Problems keep the policy from being tested, as does a --run that nothing
	// matches: then there is nothing else.
	Problems  []rego.Problem `json:"problems"`
	Tests     []testCase     `json:"tests"`
	Decisions []testCase     `json:"decisions"`
	Coverage  *coverage      `json:"coverage,omitempty"`
	others    int            // Rego tests that --run leaves out
}

// testCase is one Rego test, or one decision.
type testCase struct {
	Name    string  `json:"name"`
	File    string  `json:"file"`
	Line    int     `json:"line"`
	Status  string  `json:"status"`
	Failure string  `json:"failure,omitempty"`
	Output  string  `json:"output,omitempty"`
	Seconds float64 `json:"seconds"`
}

// The values of testCase.Status.
const (
	statusPassed  = "passed"
	statusFailed  = "failed"
	statusSkipped = "skipped"
)

// coverage is what the Rego tests evaluate of a policy.
type coverage struct {
	Percent float64 `json:"percent"`
	// Threshold that was demanded, if one was.
	Threshold *float64 `json:"threshold,omitempty"`
	// NotCovered are places, "file:line" or "file:first-last".
	NotCovered []string `json:"not_covered"`
}

func regoCase(dir string, r rego.TestResult) testCase {
	c := newCase(r.Name, r.Failure, r.Duration)
	c.File, c.Line, c.Output = inFolder(dir, r.File), r.Line, r.Output
	if r.Skipped {
		c.Status = statusSkipped
	}
	return c
}

func decisionCase(dir string, r decisions.Result) testCase {
	c := newCase(r.Case.Name, r.Failure, r.Duration)
	c.File, c.Line = inFolder(dir, decisions.File), r.Case.Line
	return c
}

func newCase(name, failure string, took time.Duration) testCase {
	c := testCase{Name: name, Status: statusPassed, Failure: failure, Seconds: took.Seconds()}
	if failure != "" {
		c.Status = statusFailed
	}
	return c
}

func inFolder(dir, path string) string { return filepath.Join(dir, filepath.FromSlash(path)) }

func newCoverage(dir string, r rego.TestReport) *coverage {
	c := &coverage{Percent: r.Coverage, NotCovered: []string{}}
	for _, place := range r.NotCovered {
		c.NotCovered = append(c.NotCovered, inFolder(dir, place))
	}
	return c
}

// missed reports whether a threshold was demanded and is not reached.
func (c *coverage) missed() bool {
	return c != nil && c.Threshold != nil && c.Percent < *c.Threshold
}

// finish works out whether the policy passed. Lists that are empty are there.
func (r *testReport) finish() *testReport {
	r.Problems = append([]rego.Problem{}, r.Problems...)
	r.Tests = append([]testCase{}, r.Tests...)
	r.Decisions = append([]testCase{}, r.Decisions...)
	r.Passed = len(r.Problems) == 0 && count(r.Tests, statusFailed) == 0 && count(r.Decisions, statusFailed) == 0 && !r.Coverage.missed()
	return r
}

func count(cases []testCase, status string) int {
	n := 0
	for _, c := range cases {
		if c.Status == status {
			n++
		}
	}
	return n
}

// text writes the report for people.
func (r *testReport) text(to io.Writer, verbose bool) error {
	if len(r.Problems) > 0 {
		return printProblems(to, r.Problems)
	}
	var b strings.Builder
	for _, c := range slices.Concat(r.Tests, r.Decisions) {
		c.text(&b, verbose)
	}
	if len(r.Tests)+len(r.Decisions) == 0 {
		fmt.Fprintf(&b, "%s: nothing was tested; write tests into *_test.rego, or requests and what is wanted of them into %s\n", r.Folder, decisions.File)
	}
	summary(&b, "tests", r.Tests)
	summary(&b, "decisions", r.Decisions)
	r.Coverage.text(&b)
	_, err := io.WriteString(to, b.String())
	return err
}

var marks = map[string]string{statusPassed: "ok  ", statusFailed: "FAIL", statusSkipped: "skip"}

func (c testCase) text(b *strings.Builder, verbose bool) {
	if !verbose && c.Status != statusFailed {
		return
	}
	fmt.Fprintf(b, "%s %s (%s:%d)\n", marks[c.Status], c.Name, c.File, c.Line)
	indent(b, c.Failure)
	indent(b, c.Output)
}

func indent(b *strings.Builder, text string) {
	if text = strings.TrimRight(text, "\n"); text != "" {
		b.WriteString("     " + strings.ReplaceAll(text, "\n", "\n     ") + "\n")
	}
}

func summary(b *strings.Builder, what string, cases []testCase) {
	if len(cases) == 0 {
		return
	}
	fmt.Fprintf(b, "%-10s %d passed", what, count(cases, statusPassed))
	for _, status := range []string{statusFailed, statusSkipped} {
		if n := count(cases, status); n > 0 {
			fmt.Fprintf(b, ", %d %s", n, status)
		}
	}
	b.WriteString("\n")
}

func (c *coverage) text(b *strings.Builder) {
	if c == nil {
		return
	}
	fmt.Fprintf(b, "coverage   %s by Rego tests", percent(c.Percent))
	if c.missed() {
		fmt.Fprintf(b, ", below the %v%% that --threshold demands", *c.Threshold)
	}
	b.WriteString("\n")
	for _, place := range c.NotCovered {
		fmt.Fprintf(b, "     not covered: %s\n", place)
	}
}

// percent rounds down: what is below a threshold must not look like it.
func percent(p float64) string { return fmt.Sprintf("%.1f%%", math.Floor(p*10)/10) }
