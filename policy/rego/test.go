package rego

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/util"
)

// TestOptions of one run of a bundle's tests. The zero value has the defaults.
type TestOptions struct {
	// Timeout of one test. Zero is five seconds. The whole run ends with its
	// context.
	Timeout time.Duration
	// Coverage asks which lines of the policy were evaluated. It costs time.
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

// Test runs a bundle's tests with OPA's tester, in the same language as the
// policy. A test whose evaluation errs has failed. The error is [Problems] if
// something does not compile, and ctx's if it ended first; failed tests are in
// the report.
func Test(ctx context.Context, src Source, o TestOptions) (report TestReport, err error) {
	defer func() {
		if r := recover(); r != nil {
			report, err = TestReport{}, fmt.Errorf("a test crashed the evaluator: %v", r)
		}
	}()
	if len(src.Tests) == 0 && !o.Coverage {
		return TestReport{}, nil
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	// The tester compiles for itself, to keep what tests print; this reports
	// what does not compile as everywhere else.
	if _, err := compile(ctx, slices.Concat(src.Modules, src.Tests), src.Data); err != nil {
		return TestReport{}, err
	}
	store, err := newStore(src.Data)
	if err != nil {
		return TestReport{}, err
	}
	caps, err := language()
	if err != nil {
		return TestReport{}, err
	}
	modules := make(map[string]*ast.Module)
	var own []string
	for i, m := range slices.Concat(src.Modules, src.Tests) {
		if modules[m.Path], err = ast.ParseModuleWithOpts(m.Path, string(m.Source), ast.ParserOptions{Capabilities: caps, RegoVersion: ast.RegoV1, ProcessAnnotation: true}); err != nil {
			return TestReport{}, err
		}
		if i < len(src.Modules) {
			own = append(own, m.Path)
		}
	}
	runner := tester.NewRunner().
		SetCompiler(ast.NewCompiler().WithCapabilities(caps).WithDefaultRegoVersion(ast.RegoV1).WithEnablePrintStatements(true)).
		SetStore(store).
		SetModules(modules).
		SetTimeout(o.Timeout).
		RaiseBuiltinErrors(true).
		CapturePrintOutput(true)
	var coverage *cover.Cover
	if o.Coverage {
		coverage = cover.New()
		runner = runner.SetCoverageQueryTracer(coverage)
	}
	err = storage.Txn(ctx, store, storage.TransactionParams{}, func(txn storage.Transaction) error {
		results, err := runner.RunTests(ctx, txn)
		if err != nil {
			return err
		}
		for r := range results {
			report.Results = append(report.Results, testResults(r)...)
		}
		return ctx.Err()
	})
	if err != nil {
		return TestReport{}, fmt.Errorf("tests were not finished: %w", err)
	}
	// The tester runs tests in no order.
	slices.SortFunc(report.Results, func(a, b TestResult) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Name, b.Name))
	})
	if coverage != nil {
		report.addCoverage(coverage.Report(modules), own)
	}
	return report, nil
}

// newStore returns data as OPA's tester wants it.
func newStore(data []byte) (storage.Store, error) {
	root := map[string]any{}
	if len(data) > 0 {
		if err := util.NewJSONDecoder(bytes.NewReader(data)).Decode(&root); err != nil {
			return nil, fmt.Errorf("data.json: %w", err)
		}
	}
	return inmem.NewFromObjectWithOpts(root, inmem.OptRoundTripOnWrite(false), inmem.OptReturnASTValuesOnRead(true)), nil
}

// testResults returns one result for each case of a parameterised test, and one
// for any other. A failure that no case accounts for, an error of the whole test
// for instance, has a result of its own, so that none is lost.
func testResults(r *tester.Result) []TestResult {
	whole := testResult(r)
	var cases []TestResult
	for path, sub := range r.SubResults.Iter {
		if len(sub.SubResults) > 0 {
			continue // its own cases follow
		}
		c := whole
		c.Name += "[" + strings.Join(path, "][") + "]"
		if c.Failure = ""; sub.Fail {
			c.Failure = "is not true"
		}
		cases = append(cases, c)
	}
	for i := range cases {
		cases[i].Duration = whole.Duration / time.Duration(len(cases))
	}
	failed := slices.ContainsFunc(cases, func(c TestResult) bool { return c.Failure != "" })
	if len(cases) == 0 || r.Error != nil || r.Fail && !failed {
		if len(cases) > 0 {
			whole.Duration = 0 // the cases have it
		}
		cases = append(cases, whole)
	}
	return cases
}

func testResult(r *tester.Result) TestResult {
	t := TestResult{
		Name:     strings.TrimPrefix(r.Package, "data.") + "." + r.Name,
		Skipped:  r.Skip,
		Output:   string(r.Output),
		Duration: r.Duration,
	}
	if r.Location != nil {
		t.File, t.Line = r.Location.File, r.Location.Row
	}
	switch {
	case r.Error != nil && topdown.IsCancel(r.Error):
		t.Failure = "took too long"
	case r.Error != nil:
		t.Failure = r.Error.Error()
	case r.Fail:
		t.Failure = "is not true"
		if r.FailedAt != nil && r.FailedAt.Location != nil {
			t.Failure = fmt.Sprintf("is not true: %s:%d: %s", r.FailedAt.Location.File, r.FailedAt.Location.Row, r.FailedAt.Location.Text)
		}
	}
	return t
}

// addCoverage counts the policy's own files; a test covers itself.
func (r *TestReport) addCoverage(all cover.Report, own []string) {
	covered, lines := 0, 0
	for _, path := range own {
		f, ok := all.Files[path]
		if !ok {
			continue
		}
		covered += f.CoveredLines
		lines += f.CoveredLines + f.NotCoveredLines
		for _, gap := range f.NotCovered {
			place := fmt.Sprintf("%s:%d", path, gap.Start.Row)
			if gap.End.Row > gap.Start.Row {
				place += fmt.Sprintf("-%d", gap.End.Row)
			}
			r.NotCovered = append(r.NotCovered, place)
		}
	}
	r.NotCovered = slices.Compact(r.NotCovered)
	r.Coverage = 100
	if lines > 0 {
		r.Coverage = 100 * float64(covered) / float64(lines)
	}
}
