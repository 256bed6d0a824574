package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/decisions"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// testFlags are those of the test command.
type testFlags struct {
	output
	guardrails []string
	namespace  string
	coverage   bool
	threshold  float64
	demanding  bool // whether a threshold was given
	run        string
	verbose    bool
	file       string
}

func newTest(w world) *cobra.Command {
	var f testFlags
	cmd := &cobra.Command{
		Use:     "test DIR",
		GroupID: groupAuthor,
		Short:   "Run a policy's Rego tests and its decisions.yaml",
		Long: `Run what a policy is tested by: the tests in its *_test.rego, which are those
that opa test runs, and the requests in its decisions.yaml, through the whole
path that a request goes, with the decisions, reasons and obligations that are
wanted.

With --guardrail the guardrails in that folder bind the policy, as they will
where it is released; name each with a flag of its own. A decision is made at
2026-01-05T12:00:00Z, a Monday, unless it sets another time.

Coverage counts the lines of the policy that its Rego tests evaluate;
decisions.yaml does not count.

Exit code 1 if the policy does not compile, a test or decision fails, nothing
matches --run, or the coverage is below --threshold.`,
		Example: `  microwall test policies/cart
  microwall test policies/cart --guardrail policies/guardrails --coverage --threshold 90
  microwall test policies/cart --format junit -o report.xml`,
		Args:              one("folder"),
		ValidArgsFunction: completeFolder,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.demanding = cmd.Flags().Changed("threshold")
			r, err := f.test(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := f.write(w.stdout, r); err != nil {
				return err
			}
			if !r.Passed {
				return errNo
			}
			return nil
		},
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&f.guardrails, "guardrail", nil, "folder with guardrails that bind the policy; may be repeated")
	fs.StringVar(&f.namespace, "namespace", "", "namespace of the policy (default: as its .manifest says)")
	fs.BoolVar(&f.coverage, "coverage", false, "say which lines the Rego tests evaluate")
	fs.Float64Var(&f.threshold, "threshold", 0, "coverage in percent that is demanded; implies --coverage")
	fs.StringVar(&f.run, "run", "", "report only tests and decisions whose name matches this regular expression")
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "list every test and decision, and what they print")
	fs.StringVarP(&f.file, "out", "o", "", "file for the report; the text then goes to standard output, too")
	_ = cmd.MarkFlagDirname("guardrail") // fails only for a flag that is not there
	f.flag(cmd, formatJSON, formatJUnit)
	return cmd
}

// test makes the report on the policy in a folder.
func (f *testFlags) test(ctx context.Context, dir string) (*testReport, error) {
	own, err := openPolicy(ctx, dir)
	if err != nil {
		return nil, err
	}
	return f.testFolder(ctx, own)
}

// testFolder makes the report on a policy that was read.
func (f *testFlags) testFolder(ctx context.Context, own *policyFolder) (*testReport, error) {
	match, err := f.check()
	if err != nil {
		return nil, err
	}
	cases, err := own.decisions()
	if err != nil {
		return nil, err
	}
	r := &testReport{Folder: own.dir, Problems: own.problems}
	var guardrails []*policyFolder
	for _, dir := range f.guardrails {
		g, err := openPolicy(ctx, dir)
		if err != nil {
			return nil, err
		}
		r.Problems = append(r.Problems, g.problems...)
		guardrails = append(guardrails, g)
	}
	if len(r.Problems) > 0 {
		return r.finish(), nil
	}
	if r.Namespace, err = namespaceOf(own.bundle, f.namespace); err != nil {
		return nil, err
	}
	if err := r.runTests(ctx, own, match, f.coverage || f.demanding); err != nil {
		return nil, err
	}
	if len(cases) > 0 || len(guardrails) > 0 {
		if err := r.runDecisions(ctx, own, guardrails, cases, match); err != nil {
			return nil, err
		}
	}
	if match != nil && len(r.Tests)+len(r.Decisions) == 0 {
		r.Problems = append(r.Problems, rego.Problem{File: own.dir, Message: fmt.Sprintf("no test or decision matches --run %s (%s, %s)", f.run, plural(r.others, "test"), plural(len(cases), "decision"))})
	}
	if f.demanding {
		r.Coverage.Threshold = &f.threshold
	}
	return r.finish(), nil
}

// check checks the flags, and returns what the names have to match, nil for
// anything.
func (f *testFlags) check() (match *regexp.Regexp, err error) {
	if err := f.output.check(); err != nil {
		return nil, err
	}
	// Written so that NaN, below which nothing is, is none.
	if !(f.threshold >= 0 && f.threshold <= 100) {
		return nil, policy.Errorf(policy.BadRequest, "--threshold is %v; it is a percentage from 0 to 100", f.threshold)
	}
	if f.run == "" {
		return nil, nil
	}
	if f.coverage || f.demanding {
		return nil, policy.Errorf(policy.BadRequest, "--run reports some tests, and coverage counts all; leave one of them away")
	}
	if match, err = regexp.Compile(f.run); err != nil {
		return nil, policy.Errorf(policy.BadRequest, "--run is no regular expression: %w", err)
	}
	return match, nil
}

func (r *testReport) runTests(ctx context.Context, f *policyFolder, match *regexp.Regexp, coverage bool) error {
	report, err := rego.Test(ctx, live.SourceOf(f.bundle), rego.TestOptions{Coverage: coverage})
	if err != nil {
		return err
	}
	for _, t := range report.Results {
		if match == nil || match.MatchString(t.Name) {
			r.Tests = append(r.Tests, regoCase(f.dir, t))
		} else {
			r.others++
		}
	}
	if coverage {
		r.Coverage = newCoverage(f.dir, report)
	}
	return nil
}

func (r *testReport) runDecisions(ctx context.Context, f *policyFolder, guardrails []*policyFolder, cases []decisions.Case, match *regexp.Regexp) error {
	snapshot, err := newLocal(ctx, f, r.Namespace, guardrails)
	if err != nil {
		return err
	}
	var matching []decisions.Case
	for _, c := range cases {
		if match == nil || match.MatchString(c.Name) {
			matching = append(matching, c)
		}
	}
	results, err := decisions.Run(ctx, snapshot, matching, r.Namespace)
	if err != nil {
		return err
	}
	for _, result := range results {
		r.Decisions = append(r.Decisions, decisionCase(f.dir, result))
	}
	return nil
}

// write writes the report where the flags say.
func (f *testFlags) write(stdout io.Writer, r *testReport) error {
	var report bytes.Buffer
	var err error
	switch f.format {
	case formatJSON:
		err = writeJSON(&report, r)
	case formatJUnit:
		err = r.junit(&report)
	default:
		err = r.text(&report, f.verbose)
	}
	if err != nil {
		return err
	}
	if f.file == "" || f.file == "-" {
		_, err = stdout.Write(report.Bytes())
		return err
	}
	if err := r.text(stdout, f.verbose); err != nil {
		return err
	}
	return writeFile(f.file, report.Bytes())
}
