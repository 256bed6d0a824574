package main

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// explanationReport is what explain says in JSON.
type explanationReport struct {
	Namespace policy.Namespace `json:"namespace"`
	// Decision is allowed, denied or error.
	Decision    string            `json:"decision"`
	Error       string            `json:"error,omitempty"`
	Reasons     []policy.Reason   `json:"reasons"`
	Obligations policy.Properties `json:"obligations"`
	// Because are the lines at the end of the text.
	Because      []string          `json:"because"`
	Policies     []explainedReport `json:"policies"`
	Disagreement string            `json:"disagreement,omitempty"`
}

type explainedReport struct {
	Namespace policy.Namespace `json:"namespace"`
	Folder    string           `json:"folder"`
	Guardrail bool             `json:"guardrail"`
	Error     string           `json:"error,omitempty"`
	Answers   []rego.Answer    `json:"answers"`
	// Untraced says why there are no answers.
	Untraced string `json:"untraced,omitempty"`
	// OPAGoesOn is set where OPA, as is documented, does not have the error.
	OPAGoesOn bool `json:"opa_goes_on,omitempty"`
	Truncated bool `json:"truncated,omitempty"`
}

func (x *explanation) report() explanationReport {
	r := explanationReport{
		Namespace: x.namespace, Decision: x.verdict(), Reasons: append([]policy.Reason{}, x.decision.Reasons...),
		Obligations: x.decision.Obligations, Because: x.because(), Disagreement: x.disagreement(),
	}
	if x.err != nil {
		r.Error = x.err.Error()
	}
	for _, p := range x.policies {
		e := explainedReport{Namespace: p.namespace, Folder: p.dir, Guardrail: p.guardrail, Answers: append([]rego.Answer{}, p.Answers...), Untraced: p.Untraced, OPAGoesOn: p.OPAGoesOn, Truncated: p.Truncated}
		if p.Err != nil {
			e.Error = p.Err.Error()
		}
		r.Policies = append(r.Policies, e)
	}
	return r
}

// manyRules is how many rules that end at their first expression are shown for
// one answer, if not all are wanted.
const manyRules = 10

// explainWriter writes an explanation as text.
type explainWriter struct {
	strings.Builder
	dir string
	all bool
}

func (x *explanation) text(to io.Writer, all bool) error {
	w := &explainWriter{all: all}
	for _, p := range x.policies {
		w.dir = p.dir
		what := "policy"
		if p.guardrail {
			what = "guardrail"
		}
		fmt.Fprintf(w, "%s %s in %s\n", what, p.namespace, p.dir)
		for _, a := range p.Answers {
			w.answer(a)
		}
		if p.Untraced != "" {
			fmt.Fprintf(w, "  %s\n", p.Untraced)
		}
		if p.Truncated {
			w.WriteString("  (there is more to it; this is what was evaluated first)\n")
		}
		w.WriteString("\n")
	}
	for _, line := range x.because() {
		w.WriteString(line + "\n")
	}
	if x.decision.Allowed { // what its caller gets with it
		writeDecided(&w.Builder, x.decision)
	}
	_, err := io.WriteString(to, w.String())
	return err
}

func (w *explainWriter) answer(a rego.Answer) {
	value := a.Value
	if value == "" {
		value = "undefined"
	}
	if len(a.Attempts) == 0 {
		fmt.Fprintf(w, "  %s: no rule\n", a.Rule)
		return
	}
	fmt.Fprintf(w, "  %s = %s\n", a.Rule, value)
	hidden, first := 0, 0
	for _, attempt := range a.Attempts {
		if !attempt.Held && len(attempt.Steps) <= 1 {
			if first++; first > manyRules && !w.all {
				hidden++
				continue
			}
		}
		w.attempt(attempt, "    ")
	}
	if hidden > 0 {
		fmt.Fprintf(w, "    and %s whose first expression is not true; --all shows them\n", plural(hidden, "more rule"))
	}
}

func (w *explainWriter) attempt(a rego.Attempt, indent string) {
	name := a.Rule
	if a.Default {
		name = "default " + name
	}
	fmt.Fprintf(w, "%s%s: %s %s", indent, w.place(a.File, a.Line), name, outcomeOf(a))
	if a.Times > 1 {
		fmt.Fprintf(w, " (tried %d times)", a.Times)
	}
	w.WriteString("\n")
	w.steps(a.Steps, indent+"    ")
}

func outcomeOf(a rego.Attempt) string {
	switch {
	case !a.Held && len(a.Steps) == 0 && strings.Contains(a.Rule, "("):
		return "does not take these"
	case !a.Held:
		return "does not hold"
	case len(a.Values) == 0 || len(a.Values) == 1 && a.Values[0] == "true":
		return "holds"
	}
	return "is " + strings.Join(a.Values, "; ")
}

func (w *explainWriter) place(file string, line int) string {
	return fmt.Sprintf("%s:%d", filepath.Join(w.dir, filepath.FromSlash(file)), line)
}

func (w *explainWriter) steps(all []rego.Step, indent string) {
	for _, s := range all {
		mark := "true "
		switch {
		case s.Error != "":
			mark = "FAILS"
		case !s.Held:
			mark = "FALSE"
		}
		fmt.Fprintf(w, "%s%s %d: %s\n", indent, mark, s.Line, s.Text)
		if s.Error != "" {
			fmt.Fprintf(w, "%s      %s\n", indent, s.Error)
		}
		for _, o := range s.Operands {
			fmt.Fprintf(w, "%s      %s\n", indent, operand(o))
		}
		for _, a := range s.Attempts {
			w.attempt(a, indent+"      ")
		}
		w.steps(s.Steps, indent+"      ")
	}
}

func operand(o rego.Operand) string {
	if o.Value == "" {
		return o.Text + " is undefined"
	}
	return o.Text + " = " + o.Value
}

// because says, in a line or a few, what the decision hinged on.
func (x *explanation) because() (lines []string) {
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if x.err != nil {
		add("no decision, so nothing is allowed: %v", x.err)
		if slices.ContainsFunc(x.policies, func(p explained) bool { return p.OPAGoesOn }) {
			add("here OPA goes on; see docs/from-opa.md, What else differs")
		}
		return lines
	}
	var own explained
	for _, p := range x.policies {
		who := ""
		if p.guardrail {
			who = fmt.Sprintf("by guardrail %s, ", p.namespace)
		} else {
			own = p
		}
		for _, a := range attemptsOf(p, "deny") {
			if a.Held {
				add("denied %sbecause %s holds: %s", who, at(p, a), strings.Join(a.Values, ", "))
			}
		}
	}
	allow := attemptsOf(own, "allow")
	switch {
	case x.decision.Allowed:
		for _, a := range allow {
			if a.Held && len(a.Values) == 1 && a.Values[0] == "true" {
				add("allowed because %s holds, and no deny does", at(own, a))
			}
		}
	case !own.Outcome.Allow:
		if c := closest(allow); c != nil {
			add("denied: no rule for allow holds; the closest is %s%s", at(own, *c), ends(own, c.Steps))
		} else {
			add("denied: no rule for allow holds")
		}
	}
	if !x.decision.Allowed && slices.ContainsFunc(x.policies, func(p explained) bool { return p.Explanation != nil && p.Outcome.Obligations.Len() > 0 }) {
		add("the obligations are dropped: a denial has none")
	}
	return lines
}

// ends says at which expression a rule ended.
func ends(p explained, steps []rego.Step) string {
	if len(steps) == 0 {
		return ""
	}
	last := steps[len(steps)-1]
	var b strings.Builder
	fmt.Fprintf(&b, ", in which line %d is not true: %s", last.Line, last.Text)
	for i, o := range last.Operands {
		b.WriteString([]string{" (", ", "}[min(i, 1)] + operand(o))
	}
	if len(last.Operands) > 0 {
		b.WriteString(")")
	}
	return b.String()
}

func at(p explained, a rego.Attempt) string {
	return fmt.Sprintf("%s:%d", filepath.Join(p.dir, filepath.FromSlash(a.File)), a.Line)
}

func attemptsOf(p explained, rule string) []rego.Attempt {
	if p.Explanation == nil {
		return nil
	}
	for _, a := range p.Answers {
		if a.Rule == rule {
			return a.Attempts
		}
	}
	return nil
}
