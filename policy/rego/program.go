package rego

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/microwall/microwall/policy"
)

// Program is the compiled policy of one bundle. It is immutable and safe for
// concurrent use.
type Program struct {
	all, guardrail rego.PreparedEvalQuery
	readsTime      bool
	budget         time.Duration
}

// Outcome is what the rules of one bundle say about one input.
type Outcome struct {
	// Allow is true only if the rule is defined and true. A guardrail is not
	// asked for it.
	Allow bool
	// Deny and Reasons are sorted. A guardrail is not asked for reasons.
	Deny, Reasons []string
	// Obligations by name.
	Obligations policy.Properties
}

// ReadsTime reports whether the policy may read input.time, so that the same
// request can have another outcome a moment later.
func (p *Program) ReadsTime() bool { return p.readsTime }

// Evaluate computes all four rules: the outcome of the namespace that a request
// is about.
//
// An error is never an outcome. It is of kind policy.Failed if the policy
// failed, has a rule of another shape than it must have, or went over its
// budget; it is ctx's error if ctx ended first.
func (p *Program) Evaluate(ctx context.Context, in *Input) (Outcome, error) {
	return p.run(ctx, p.all, in)
}

// EvaluateGuardrail computes deny and obligations alone: the outcome of an
// ancestor that binds the namespace below it. Errors are as with
// [Program.Evaluate].
func (p *Program) EvaluateGuardrail(ctx context.Context, in *Input) (Outcome, error) {
	return p.run(ctx, p.guardrail, in)
}

func (p *Program) run(ctx context.Context, q rego.PreparedEvalQuery, in *Input) (out Outcome, err error) {
	// A policy must not be able to end the process that it protects.
	defer func() {
		if r := recover(); r != nil {
			out, err = Outcome{}, &policy.Error{
				Kind:    policy.Failed,
				Message: fmt.Sprintf("policy crashed the evaluator: %v", r),
				Err:     fmt.Errorf("panic: %v\n%s", r, debug.Stack()), // not for those who ask
			}
		}
	}()
	bounded, cancel := context.WithTimeout(ctx, p.budget)
	defer cancel()
	results, err := q.Eval(bounded,
		rego.EvalParsedInput(in.value()),
		rego.EvalRuleIndexing(false),
		rego.EvalEarlyExit(false),
		rego.EvalGenerateJSON(asTerm),
	)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return Outcome{}, fmt.Errorf("decision was not finished: %w", context.Cause(ctx))
	case bounded.Err() != nil:
		return Outcome{}, policy.Errorf(policy.Failed, "policy went over its budget of %s: make it do less for one request", p.budget)
	default:
		return Outcome{}, policy.Errorf(policy.Failed, "policy failed: %w", err)
	}
	if len(results) != 1 {
		return Outcome{}, policy.Errorf(policy.Failed, "policy gave %d results instead of one", len(results))
	}
	return outcome(results[0].Bindings)
}

// asTerm keeps a result as OPA's value, in which sets can be told from arrays.
func asTerm(t *ast.Term, _ *rego.EvalContext) (any, error) { return t, nil }

func outcome(bindings rego.Vars) (out Outcome, err error) {
	if v, ok, err := answer(bindings, ruleAllow); err != nil {
		return Outcome{}, err
	} else if ok {
		b, ok := v.(ast.Boolean)
		if !ok {
			return Outcome{}, wrongShape(ruleAllow, "true or false", v)
		}
		out.Allow = bool(b)
	}
	if out.Deny, err = stringSet(bindings, ruleDeny); err != nil {
		return Outcome{}, err
	}
	if out.Reasons, err = stringSet(bindings, ruleReasons); err != nil {
		return Outcome{}, err
	}
	if out.Obligations, err = obligations(bindings); err != nil {
		return Outcome{}, err
	}
	return out, nil
}

// answer returns what a rule is, and whether it was asked for and is defined.
func answer(bindings rego.Vars, rule string) (ast.Value, bool, error) {
	binding, asked := bindings[rule]
	if !asked {
		return nil, false, nil
	}
	t, ok := binding.(*ast.Term)
	if !ok {
		return nil, false, policy.Errorf(policy.Failed, "%s came back as %T", rule, binding)
	}
	list, ok := t.Value.(*ast.Array)
	if !ok || list.Len() > 1 {
		return nil, false, policy.Errorf(policy.Failed, "%s came back as %s", rule, t)
	}
	if list.Len() == 0 {
		return nil, false, nil
	}
	return list.Elem(0).Value, true, nil
}

func stringSet(bindings rego.Vars, rule string) ([]string, error) {
	v, ok, err := answer(bindings, rule)
	if !ok {
		return nil, err
	}
	set, ok := v.(ast.Set)
	if !ok {
		return nil, wrongShape(rule, "a set of strings", v)
	}
	texts := make([]string, 0, set.Len())
	for _, member := range set.Slice() {
		text, ok := member.Value.(ast.String)
		if !ok {
			return nil, wrongShape(rule, "a set of strings; a member", member.Value)
		}
		if !utf8.ValidString(string(text)) {
			return nil, policy.Errorf(policy.Failed, "policy failed: %s has the member %q, which is not valid UTF-8", rule, text)
		}
		texts = append(texts, string(text))
	}
	slices.Sort(texts)
	return texts, nil
}

func obligations(bindings rego.Vars) (policy.Properties, error) {
	v, ok, err := answer(bindings, ruleObligations)
	if !ok {
		return policy.Properties{}, err
	}
	object, ok := v.(ast.Object)
	if !ok {
		return policy.Properties{}, wrongShape(ruleObligations, "an object", v)
	}
	if name := oddName(object); name != nil {
		return policy.Properties{}, wrongShape(ruleObligations, "an object with names that are strings, at every depth; a name", name)
	}
	plain, err := ast.JSON(object)
	if err != nil {
		return policy.Properties{}, policy.Errorf(policy.Failed, "obligations are no JSON: %w", err)
	}
	p, err := policy.NewProperties(plain.(map[string]any))
	if err != nil {
		return policy.Properties{}, policy.Errorf(policy.Failed, "obligations cannot be handed over at every door: %w", err)
	}
	return p, nil
}

// oddName returns a name in v that is no string, nil if there is none: as JSON,
// such a name could take the place of another.
func oddName(v ast.Value) ast.Value {
	var odd ast.Value
	ast.WalkTerms(ast.NewTerm(v), func(t *ast.Term) bool {
		if object, ok := t.Value.(ast.Object); ok {
			object.Foreach(func(name, _ *ast.Term) {
				if _, ok := name.Value.(ast.String); !ok {
					odd = name.Value
				}
			})
		}
		return odd != nil
	})
	return odd
}

func wrongShape(rule, want string, got ast.Value) error {
	return policy.Errorf(policy.Failed, "policy failed: %s must be %s, but is %s", rule, want, ast.ValueName(got))
}
