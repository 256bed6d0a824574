package rego

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/exec"
	"github.com/microwall/microwall/policy/rego/internal/front"
)

// TestOptions of one run of a bundle's tests. The zero value has the defaults. A
// test that needs more than it may has failed.
type TestOptions struct {
	// Timeout of one test. Zero is five seconds. The whole run ends with its
	// context.
	Timeout time.Duration
	// Steps is how many statements and elements one test may look at. Zero is 100
	// million.
	Steps int64
	// Bytes is how much one test may build. Zero is 512 MiB.
	Bytes int64
	// Coverage asks which lines of the policy were evaluated. It costs time, and
	// runs the tests once more with OPA's evaluator, which a hostile test can
	// hang or crash: it is for authors and their own tests.
	Coverage bool
}

// TestResult is one test and how it ended. A parameterised test (`test_x[name] if
// ...`) has a result for each of its cases.
type TestResult struct {
	// Name is "package.rule", for instance "authz_test.test_frontend", and the
	// names of the case behind it, as in "authz_test.test_frontend[no id]".
	Name string `json:"name"`
	File string `json:"file"`
	Line int    `json:"line"`
	// Failure says why it did not pass; "" if it passed or was skipped.
	Failure string `json:"failure,omitempty"`
	// Skipped is a test whose name starts with todo_.
	Skipped bool `json:"skipped,omitempty"`
	// Output is what print() wrote; with the cases of a parameterised test, what
	// all of them wrote.
	Output string `json:"output,omitempty"`
	// Duration of the test. The cases of a parameterised test are evaluated
	// together, and each has its share.
	Duration time.Duration `json:"duration"`
}

// TestReport is the result of a run.
type TestReport struct {
	// Results sorted by place and name.
	Results []TestResult `json:"results"`
	// Coverage in percent of the policy's lines, tests not counted; 0 if it
	// was not asked for.
	Coverage float64 `json:"coverage,omitempty"`
	// NotCovered are the places of lines that no test evaluated, "file:line"
	// or "file:first-last".
	NotCovered []string `json:"not_covered,omitempty"`
}

// Failed returns the tests that did not pass.
func (r TestReport) Failed() []TestResult {
	var failed []TestResult
	for _, t := range r.Results {
		if t.Failure != "" {
			failed = append(failed, t)
		}
	}
	return failed
}

// mayTest reports whether a bundle may have tests. They may stand beside the
// rules, too.
func (s *Source) mayTest() bool {
	return len(s.Tests) > 0 || slices.ContainsFunc(s.Modules, func(m Module) bool { return bytes.Contains(m.Source, []byte("test_")) })
}

// Test runs a bundle's tests, one after the other: the rules that OPA's tester
// takes for tests, with the evaluator that decides. Whatever the tests are, they
// cannot crash the process, or hang it beyond ctx.
//
// A test passes if it is true, and a case of a parameterised test if its member
// of the test is. It fails if a call of a built-in fails anywhere, also where
// that alone would make an expression undefined. As in a decision, what OPA's
// evaluator leaves out is computed as well (the rest of an every that does not
// hold, of a rule that is true already): it may print, and it may fail.
//
// The error is [Problems] if something does not compile, and ctx's if it ended
// first; failed tests are in the report.
func Test(ctx context.Context, src Source, o TestOptions) (TestReport, error) {
	if !o.Coverage && !src.mayTest() {
		return TestReport{}, nil
	}
	o.Timeout = cmp.Or(o.Timeout, 5*time.Second)
	bounded, cancel := context.WithTimeoutCause(ctx, compileTime, errSlow)
	defer cancel()
	c, err := compile(bounded, src, true)
	if err != nil {
		return TestReport{}, err
	}
	t := tests{
		compiled: c,
		limits:   budget.Limits{Time: o.Timeout, Steps: cmp.Or(o.Steps, 100_000_000), Bytes: cmp.Or(o.Bytes, 512<<20)},
		room:     reportBytes,
	}
	var run []front.Test
	for _, test := range c.front.Tests() {
		known := resultOf(test)
		switch {
		case test.Skipped:
			known.Skipped = true
		case test.Function:
			known.Failure = "is a function, and a test has no arguments: give it another name, or call it in a test"
		default:
			run = append(run, test)
			continue
		}
		t.report.Results = append(t.report.Results, known)
	}
	for some := range slices.Chunk(run, planned) {
		if err := t.run(ctx, some); err != nil {
			return TestReport{}, fmt.Errorf("tests were not finished: %w", err)
		}
	}
	slices.SortStableFunc(t.report.Results, func(a, b TestResult) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Name, b.Name))
	})
	if o.Coverage {
		if err := t.report.cover(ctx, src, o.Timeout); err != nil {
			return TestReport{}, err
		}
	}
	return t.report, nil
}

const (
	// planned is how many tests are planned together: each plan has all of the
	// policy that they use.
	planned = 300
	// reportBytes is how much a report keeps of what tests write, and of the names
	// that they give to their cases.
	reportBytes = 64 << 20
)

// tests is a run of tests.
type tests struct {
	compiled *compiled
	limits   budget.Limits
	room     int // left in the report, in bytes
	report   TestReport
}

// run runs some tests. Its error is ctx's.
func (t *tests) run(ctx context.Context, some []front.Test) error {
	program, err := t.program(ctx, some)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil && len(some) == 1:
		failed := resultOf(some[0])
		failed.Failure = brief(err.Error())
		t.report.Results = append(t.report.Results, failed)
		return nil
	case err != nil:
		// One of them cannot be planned, or all of them are too much for one plan.
		half := len(some) / 2
		if err := t.run(ctx, some[:half]); err != nil {
			return err
		}
		return t.run(ctx, some[half:])
	}
	for i, test := range some {
		start := time.Now()
		seen := observe(test, &t.room)
		err := t.observe(ctx, program, i, seen)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		t.report.Results = append(t.report.Results, seen.results(t.explain(err), time.Since(start))...)
	}
	return nil
}

// observe runs one test. A panic is an error like any other.
func (t *tests) observe(ctx context.Context, p *exec.Program, answer int, seen *observed) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("crashed the evaluator: %v", r)
		}
	}()
	return p.Test(ctx, answer, seen.watch(), t.limits, seen.judge)
}

// program plans tests together. Each is one answer of the program.
func (t *tests) program(ctx context.Context, some []front.Test) (p *exec.Program, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("crashed the compiler: %v", r)
		}
	}()
	var query []string
	var names []string
	for i, test := range some {
		names = append(names, fmt.Sprintf("t%d", i))
		query = append(query, fmt.Sprintf("t%d = [x | x := %s]", i, test.Query))
	}
	plan, err := t.compiled.front.Plan(ctx, strings.Join(query, "; "))
	if err != nil {
		return nil, err
	}
	return exec.Compile(ctx, plan.Policy, exec.Options{
		Data: t.compiled.data, Answers: names, Functions: t.compiled.front.Functions(), Find: builtin.Find,
	})
}

// explain returns why a test failed that did not come to its end.
func (t *tests) explain(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, budget.ErrTime):
		return fmt.Sprintf("took too long, over %s: make it do less, or several tests of it", t.limits.Time)
	case errors.Is(err, budget.ErrSteps):
		return fmt.Sprintf("went over its budget of %d steps: make it do less, or several tests of it", t.limits.Steps)
	case errors.Is(err, budget.ErrBytes):
		return fmt.Sprintf("went over its budget of %d bytes: make it do less, or several tests of it", t.limits.Bytes)
	}
	return err.Error()
}

func resultOf(t front.Test) TestResult {
	r := TestResult{Name: strings.TrimPrefix(t.Package, "data.") + "." + t.Name}
	if t.Place != nil {
		r.File, r.Line = t.Place.File, t.Place.Row
	}
	return r
}
