package rego

import (
	"context"
	"fmt"
	"reflect"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/util"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/convert"
	"github.com/microwall/microwall/policy/rego/internal/reference"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// Explanation is what the rules of one bundle say about one input, and how they
// came to it: which rules were tried, what held in them and what did not.
type Explanation struct {
	// Outcome is as [Program.Evaluate] computes it; the zero one if Err is set.
	Outcome Outcome
	// Err is why there is no outcome: of kind policy.Failed.
	Err error
	// Answers are allow, deny, reasons and obligations, in this order; of a
	// guardrail deny and obligations alone.
	Answers []Answer
	// Untraced says why OPA's evaluator was not asked, so that there are no
	// Answers; "" if it was. It has no budget and no longest number, and might not
	// end where Microwall's went over these.
	Untraced string
	// OPAGoesOn is set if Err is one that OPA's evaluator does not have, and the
	// language says so (docs/from-opa.md, What else differs).
	OPAGoesOn bool
	// Truncated is set if there was more to tell than is kept.
	Truncated bool
	// Disagreement says how OPA's own evaluator, which is the one that was
	// traced, answers differently; "" if it does not. It is a bug of one of the
	// two, never of the policy.
	Disagreement string
}

// Answer is one of the four rules, and what was tried for it.
type Answer struct {
	// Rule is its name, for instance "allow".
	Rule string `json:"rule"`
	// Value as Rego writes it, shortened if it is long; "" if it is undefined.
	Value string `json:"value,omitempty"`
	// Attempts are its rules in the order in which they were tried.
	Attempts []Attempt `json:"attempts,omitempty"`
}

// Attempt is a rule that was tried.
type Attempt struct {
	// Rule is its name without "data.", of a function with its arguments.
	Rule string `json:"rule"`
	// File and Line of its head.
	File string `json:"file"`
	Line int    `json:"line"`
	// Default is set for a default rule.
	Default bool `json:"default,omitempty"`
	// Held is set if its body holds.
	Held bool `json:"held"`
	// Values are what it gives: its value, or its members, as Rego writes them.
	// There are at most ten.
	Values []string `json:"values,omitempty"`
	// Times is how often it was tried where it stands here; 0 is once. What is
	// kept is a time that it held, or else the one that got furthest.
	Times int `json:"times,omitempty"`
	// Steps are the expressions of its body as far as they were reached. If it
	// did not hold, the last one is what was not true.
	Steps []Step `json:"steps,omitempty"`
}

// Step is an expression of a body.
type Step struct {
	Line int `json:"line"`
	// Text of the expression in the file.
	Text string `json:"text"`
	Held bool   `json:"held"`
	// Error is how a call in it failed, "" if none did.
	Error string `json:"error,omitempty"`
	// Operands are what it was about: variables, references, calls, each with
	// its value.
	Operands []Operand `json:"operands,omitempty"`
	// Attempts are the rules that were tried for it.
	Attempts []Attempt `json:"attempts,omitempty"`
	// Steps are those inside of `every`, for the element that did not hold, and
	// inside of `not { ... }`.
	Steps []Step `json:"steps,omitempty"`
}

// Operand is a part of an expression and its value.
type Operand struct {
	Text string `json:"text"`
	// Value as Rego writes it, shortened if it is long; "" is undefined.
	Value string `json:"value,omitempty"`
}

// Explain computes what Evaluate of a Program of src does, and traces OPA's own
// evaluator about the same. It takes a thousand times as long.
//
// What went over a limit in the former is not traced.
//
// The error is [Problems] if src does not compile, and ctx's if ctx ended first.
// That the policy failed is an [Explanation].
func Explain(ctx context.Context, src Source, in *Input) (*Explanation, error) {
	return explain(ctx, src, in, (*Program).Evaluate, allow, deny, reasons, obligations)
}

// ExplainGuardrail is Explain for what EvaluateGuardrail computes.
func ExplainGuardrail(ctx context.Context, src Source, in *Input) (*Explanation, error) {
	return explain(ctx, src, in, (*Program).EvaluateGuardrail, deny, obligations)
}

func explain(ctx context.Context, src Source, in *Input, evaluate func(*Program, context.Context, *Input) (Outcome, error), rules ...int) (*Explanation, error) {
	p, err := Compile(ctx, src, Options{})
	if err != nil {
		return nil, err
	}
	x := &Explanation{}
	if x.Outcome, x.Err = evaluate(p, ctx, in); x.Err != nil && ctx.Err() != nil {
		return nil, x.Err
	}
	if x.Untraced, x.OPAGoesOn = unbounded(x.Err); x.Untraced != "" {
		return x, nil
	}
	w, err := newWitness(src, in, false)
	if err != nil {
		return nil, err
	}
	free := &builtin.Call{Meter: new(budget.Meter)}
	free.Reset(ctx, budget.Limits{})
	traced, failures := Outcome{}, []error(nil)
	for _, rule := range rules {
		t := newTracer(w)
		v, failed, err := w.ask(ctx, answers[rule], t)
		if err != nil {
			return nil, err
		}
		if v.Defined() {
			if err := traced.set(free, rule, v); err != nil {
				failed = append(failed, err)
			}
		}
		failures = append(failures, failed...)
		a := Answer{Rule: answers[rule], Attempts: t.attempts(failed)}
		if v.Defined() {
			a.Value = shorten(convert.ToAST(v).String())
		}
		x.Answers = append(x.Answers, a)
		x.Truncated = x.Truncated || t.truncated
	}
	x.Disagreement, err = disagreement(ctx, src, in, x, traced, failures, rules)
	return x, err
}

// disagreement says how the traced outcome is another one, "" if it is not.
func disagreement(ctx context.Context, src Source, in *Input, x *Explanation, traced Outcome, failures []error, rules []int) (string, error) {
	switch {
	case x.Err != nil && len(failures) > 0:
		return "", nil
	case x.Err == nil && len(failures) > 0:
		return fmt.Sprintf("OPA's evaluator reports an error, which Microwall's misses: %v", failures[0]), nil
	case x.Err == nil && (traced.Allow != x.Outcome.Allow || !reflect.DeepEqual(list(traced.Deny), list(x.Outcome.Deny)) ||
		!reflect.DeepEqual(list(traced.Reasons), list(x.Outcome.Reasons)) || traced.Obligations.String() != x.Outcome.Obligations.String()):
		return fmt.Sprintf("OPA's evaluator answers %s, Microwall's %s", traced, x.Outcome), nil
	case x.Err == nil:
		return "", nil
	}
	// OPA leaves out some calls. It does not, if it is made to.
	w, err := newWitness(src, in, true)
	if err != nil {
		return "", err
	}
	for _, rule := range rules {
		_, failed, err := w.ask(ctx, answers[rule], nil)
		if err != nil {
			return "", err
		}
		if len(failed) > 0 {
			return "", nil
		}
	}
	if strings.Contains(x.Err.Error(), "%p would show") {
		x.OPAGoesOn = true
		return "", nil
	}
	return fmt.Sprintf("Microwall's evaluator reports an error, which OPA's does not: %v", x.Err), nil
}

// unbounded says why OPA's evaluator is not asked about what ended with err, if
// it is not, and whether that is a difference of the language.
func unbounded(err error) (untraced string, goesOn bool) {
	switch {
	case err == nil:
	case strings.Contains(err.Error(), "policy went over its budget"):
		return "a policy over its budget is not traced: OPA's evaluator, which would be, has none and might not end", false
	case strings.Contains(err.Error(), "a number of more than"):
		return "a policy with too long a number is not traced: OPA's evaluator, which would be, computes it and might not end", true
	}
	return "", false
}

func list(texts []string) []string { return append([]string{}, texts...) }

// String returns what the four rules are, in one line.
func (o Outcome) String() string {
	return fmt.Sprintf("allow %t, deny %q, reasons %q, obligations %s", o.Allow, list(o.Deny), list(o.Reasons), o.Obligations)
}

// witness is OPA's evaluator with a policy, its data and an input.
type witness struct {
	compiler *ast.Compiler
	data     map[string]any
	tree     ast.Value // data
	input    ast.Value
}

// newWitness compiles a source that [Compile] has accepted; whole is as in
// [reference.Options].
func newWitness(src Source, in *Input, whole bool) (*witness, error) {
	caps, err := language()
	if err != nil {
		return nil, err
	}
	modules := make(map[string]*ast.Module, len(src.Modules))
	for _, m := range src.Modules {
		if modules[m.Path], err = ast.ParseModuleWithOpts(m.Path, string(m.Source), ast.ParserOptions{Capabilities: caps, RegoVersion: ast.RegoV1}); err != nil {
			return nil, fmt.Errorf("parse once more, to explain: %w", err)
		}
	}
	w := &witness{data: map[string]any{}}
	if len(src.Data) > 0 {
		if err := util.UnmarshalJSON(src.Data, &w.data); err != nil {
			return nil, fmt.Errorf("read the data once more, to explain: %w", err)
		}
	}
	if w.tree, err = ast.InterfaceToValue(w.data); err != nil {
		return nil, err
	}
	if w.compiler, err = reference.Compile(modules, reference.Options{Capabilities: caps, Whole: whole}); err != nil {
		return nil, fmt.Errorf("compile once more, to explain: %w", err)
	}
	w.input = convert.ToAST(in.read.Value())
	return w, nil
}

// ask returns what a rule of authz is, undefined if it is, and what failed on the
// way. The error is ctx's.
func (w *witness) ask(ctx context.Context, rule string, t topdown.QueryTracer) (value.Value, []error, error) {
	q, err := reference.New(w.compiler, w.data, ast.MustParseBody("x = data.authz."+rule))
	if err != nil {
		return value.Value{}, nil, fmt.Errorf("ask for %s once more, to explain: %w", rule, err)
	}
	r, err := q.Eval(ctx, w.input, reference.Mode{Tracer: t})
	if ctx.Err() != nil {
		return value.Value{}, nil, fmt.Errorf("explanation was not finished: %w", context.Cause(ctx))
	}
	failures := r.Failures
	if err != nil && len(failures) == 0 {
		failures = []error{err} // a panic
	}
	if len(failures) > 0 || len(r.Bindings) == 0 {
		return value.Value{}, failures, nil
	}
	v, err := convert.FromAST(r.Bindings[0]["x"])
	return v, nil, err
}

// textLimit is how long a value may be, in runes, before it is shortened.
const textLimit = 160

func shorten(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > textLimit {
		return string(runes[:textLimit]) + "…"
	}
	return text
}
