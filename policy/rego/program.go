package rego

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"unicode/utf8"

	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/exec"
	"github.com/microwall/microwall/policy/rego/internal/reads"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// Program is the compiled policy of one bundle. It is immutable and safe for
// concurrent use.
type Program struct {
	exec   *exec.Program
	reads  *reads.Set
	limits budget.Limits
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

// Evaluate computes all four rules: the outcome of the namespace that a request
// is about.
//
// An error is never an outcome. It is of kind policy.Failed if the policy
// failed, has a rule of another shape than it must have, or went over its
// budget; it is ctx's error if ctx ended first.
func (p *Program) Evaluate(ctx context.Context, in *Input) (Outcome, error) {
	return p.run(ctx, in, 1<<allow|1<<deny|1<<reasons|1<<obligations)
}

// EvaluateGuardrail computes deny and obligations alone: the outcome of an
// ancestor that binds the namespace below it. Errors are as with
// [Program.Evaluate].
func (p *Program) EvaluateGuardrail(ctx context.Context, in *Input) (Outcome, error) {
	return p.run(ctx, in, 1<<deny|1<<obligations)
}

// The rules that answer, by their place in answers.
const (
	allow = iota
	deny
	reasons
	obligations
)

var answers = []string{allow: ruleAllow, deny: ruleDeny, reasons: ruleReasons, obligations: ruleObligations}

func (p *Program) run(ctx context.Context, in *Input, rules uint) (out Outcome, err error) {
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
	err = p.exec.Answer(ctx, &in.read, rules, p.limits, func(c *builtin.Call, rule int, v value.Value) error {
		return out.set(c, rule, v)
	})
	if err != nil {
		return Outcome{}, p.failure(ctx, err)
	}
	return out, nil
}

func (p *Program) failure(ctx context.Context, err error) error {
	switch {
	case policy.KindOf(err) == policy.Failed:
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("decision was not finished: %w", context.Cause(ctx))
	case errors.Is(err, budget.ErrTime):
		return over(p.limits.Time.String(), "--decision-budget")
	case errors.Is(err, budget.ErrSteps):
		return over(fmt.Sprintf("%d steps", p.limits.Steps), "--decision-steps")
	case errors.Is(err, budget.ErrBytes):
		return over(fmt.Sprintf("%d bytes", p.limits.Bytes), "--decision-bytes")
	}
	return policy.Errorf(policy.Failed, "policy failed: %w", err)
}

func over(limit, flag string) error {
	return policy.Errorf(policy.Failed, "policy went over its budget of %s: make it do less for one request, or raise the server's %s", limit, flag)
}

// set takes over what a rule is.
func (o *Outcome) set(c *builtin.Call, rule int, v value.Value) (err error) {
	switch rule {
	case allow:
		if v.Kind() != value.Bool {
			return wrongShape(ruleAllow, "true or false", v)
		}
		o.Allow = v.IsTrue()
	case deny:
		o.Deny, err = stringSet(c, ruleDeny, v)
	case reasons:
		o.Reasons, err = stringSet(c, ruleReasons, v)
	case obligations:
		o.Obligations, err = properties(c, v)
	}
	return err
}

func stringSet(c *builtin.Call, rule string, v value.Value) ([]string, error) {
	if v.Kind() != value.Set {
		return nil, wrongShape(rule, "a set of strings", v)
	}
	if v.Len() == 0 {
		return nil, nil
	}
	members, err := c.Scan(v)
	if err != nil {
		return nil, err
	}
	texts := make([]string, 0, v.Len())
	for member := range members.All() {
		if member.Kind() != value.String {
			return nil, wrongShape(rule, "a set of strings; a member", member)
		}
		text := member.Text()
		if err := c.Work(1+int64(len(text)/64), goBytes); err != nil {
			return nil, err
		}
		if !utf8.ValidString(text) {
			return nil, policy.Errorf(policy.Failed, "policy failed: %s has the member %q, which is not valid UTF-8", rule, text)
		}
		texts = append(texts, text)
	}
	return texts, nil // sorted, as the members of a set are
}

func properties(c *builtin.Call, v value.Value) (policy.Properties, error) {
	if v.Kind() != value.Object {
		return policy.Properties{}, wrongShape(ruleObligations, "an object", v)
	}
	if v.Len() == 0 {
		return policy.Properties{}, nil
	}
	plain, err := goValue(c, v)
	if err != nil {
		return policy.Properties{}, err
	}
	p, err := policy.NewProperties(plain.(map[string]any))
	if err != nil {
		return policy.Properties{}, policy.Errorf(policy.Failed, "obligations cannot be handed over at every door: %w", err)
	}
	return p, nil
}

// goBytes is what one value takes in Go, with its name in a map.
const goBytes = 96

// goValue copies a value, so that it can leave the evaluation that it belongs to.
// A name that is no string is refused: as JSON, it could take the place of another.
// What stands in a value more than once is copied each time, and is charged for.
func goValue(c *builtin.Call, v value.Value) (any, error) {
	if err := c.Work(4, goBytes); err != nil {
		return nil, err
	}
	switch v.Kind() {
	case value.Bool:
		return v.IsTrue(), nil
	case value.Number:
		return json.Number(v.Numeral()), nil
	case value.String:
		return v.Text(), nil
	case value.Array, value.Set:
		members, err := c.Scan(v)
		if err != nil {
			return nil, err
		}
		list := make([]any, 0, v.Len())
		for _, e := range members.All() {
			plain, err := goValue(c, e)
			if err != nil {
				return nil, err
			}
			list = append(list, plain)
		}
		return list, nil
	case value.Object:
		members, err := c.Scan(v)
		if err != nil {
			return nil, err
		}
		m := make(map[string]any, v.Len())
		for name, e := range members.All() {
			if name.Kind() != value.String {
				return nil, wrongShape(ruleObligations, "an object with names that are strings, at every depth; a name", name)
			}
			plain, err := goValue(c, e)
			if err != nil {
				return nil, err
			}
			m[name.Text()] = plain
		}
		return m, nil
	}
	return nil, nil
}

func wrongShape(rule, want string, got value.Value) error {
	return policy.Errorf(policy.Failed, "policy failed: %s must be %s, but is %s", rule, want, got.Kind())
}
