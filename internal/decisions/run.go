package decisions

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// Result is a case that was run.
type Result struct {
	Case Case
	// Failure says how the answer differs from what was wanted, a line each:
	// "- " what was wanted, "+ " what came instead, "  " what helps to see why.
	// "" if the case passed.
	Failure string
	// Duration of the decision.
	Duration time.Duration
}

// Run decides every case by the snapshot. A case that names no namespace is
// about the default one. The error is ctx's if it ended first; whatever happens
// to one case stands in its result.
func Run(ctx context.Context, snapshot *live.Snapshot, cases []Case, defaultNamespace policy.Namespace) ([]Result, error) {
	results := make([]Result, len(cases))
	for i, c := range cases {
		r := c.Request
		if r.Namespace == "" {
			r.Namespace = defaultNamespace
		}
		start := time.Now()
		d, err := decide(ctx, snapshot, &r, c.Time)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("decisions were not finished: %w", context.Cause(ctx))
		}
		results[i] = Result{Case: c, Failure: c.Want.diff(r.Namespace, d, err), Duration: time.Since(start)}
	}
	return results, nil
}

func decide(ctx context.Context, snapshot *live.Snapshot, r *policy.Request, at time.Time) (policy.Decision, error) {
	if err := (policy.Limits{}).Check(r); err != nil {
		return policy.Decision{}, err
	}
	path, err := snapshot.Path(r.Namespace)
	if err != nil {
		return policy.Decision{}, err
	}
	return path.Decide(ctx, rego.NewInput(r, rego.NewStamp(at)))
}

// diff compares an answer with what was wanted.
func (w Want) diff(n policy.Namespace, got policy.Decision, err error) string {
	var d lines
	switch {
	case w.Error != "" && err == nil:
		d.add("- ", "error: ", w.Error)
		d.add("+ ", "allowed: ", fmt.Sprint(got.Allowed))
		d.explain(n, got)
	case w.Error != "":
		if !strings.Contains(err.Error(), w.Error) {
			d.add("- ", "error: ", w.Error)
			d.add("+ ", "error: ", err.Error())
		}
	case err != nil:
		d.add("- ", "allowed: ", fmt.Sprint(w.Allowed))
		d.add("+ ", "error: ", err.Error())
	default:
		w.diffDecision(&d, n, got)
	}
	return strings.Join(d, "\n")
}

func (w Want) diffDecision(d *lines, n policy.Namespace, got policy.Decision) {
	if got.Allowed != w.Allowed {
		d.add("- ", "allowed: ", fmt.Sprint(w.Allowed))
		d.add("+ ", "allowed: ", fmt.Sprint(got.Allowed))
		if w.Reasons == nil {
			d.explain(n, got)
		}
	}
	if w.Reasons != nil {
		given := texts(got.Reasons)
		d.addAll("- ", without(w.Reasons, given))
		d.addAll("+ ", without(given, w.Reasons))
	}
	if w.Obligations != nil && got.Obligations.String() != w.Obligations.String() {
		d.add("- ", "obligations: ", w.Obligations.String())
		d.add("+ ", "obligations: ", got.Obligations.String())
	}
}

// lines of a diff.
type lines []string

// add appends a line; one with line ends in it stays indented.
func (d *lines) add(mark, name, text string) {
	*d = append(*d, mark+name+strings.ReplaceAll(text, "\n", "\n  "))
}

func (d *lines) addAll(mark string, reasons []string) {
	for _, r := range reasons {
		d.add(mark, "reason: ", r)
	}
}

// explain adds why a decision is as it is.
func (d *lines) explain(n policy.Namespace, got policy.Decision) {
	d.addAll("  ", texts(got.Reasons))
	if !got.Allowed && len(got.Reasons) == 0 {
		d.add("  ", "", fmt.Sprintf("no rule of %s allowed it", n))
	}
}

func texts(reasons []policy.Reason) []string {
	all := make([]string, len(reasons))
	for i, r := range reasons {
		all[i] = r.String()
	}
	return all
}

// without returns the members of all that others lacks, as often as it lacks
// them.
func without(all, others []string) []string {
	left := slices.Clone(others)
	var missing []string
	for _, s := range all {
		if i := slices.Index(left, s); i >= 0 {
			left = slices.Delete(left, i, i+1)
			continue
		}
		missing = append(missing, s)
	}
	return missing
}
