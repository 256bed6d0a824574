package rego_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cedar-policy/cedar-go"
	"github.com/open-policy-agent/opa/v1/ast"
	opa "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// answer is what all four rules say.
type answer struct {
	allow         bool
	deny, reasons []string
	obligations   string // as JSON in one spelling
}

func (a answer) equal(other answer) bool {
	return a.allow == other.allow && slices.Equal(a.deny, other.deny) && slices.Equal(a.reasons, other.reasons) && a.obligations == other.obligations
}

// asked is an engine that has a shape's policy and data, and its questions as
// its callers hold them.
type asked interface {
	// allows answers the question of that number for a caller that wants to
	// know whether to go on: the decision and what it takes to ask for it, and
	// nothing else.
	allows(ctx context.Context, question int) (bool, error)
	// answer gives the whole answer.
	answer(ctx context.Context, question int) (answer, error)
}

// engine is one way to answer the questions of a shape.
type engine struct {
	name string
	// prepare returns nil if the question cannot be put to the engine.
	prepare func(testing.TB, *shape) asked
}

var engines = []engine{
	{"microwall", prepareMicrowall},
	{"opa-input", prepareOPAInput},
	{"opa-parsed", prepareOPAParsed},
	{"cedar", prepareCedar},
}

// microwallEngine asks as the doors do: the request is there, the input is made
// of it for each decision.
type microwallEngine struct {
	program  *rego.Program
	requests []policy.Request
}

func prepareMicrowall(tb testing.TB, s *shape) asked {
	tb.Helper()
	e := &microwallEngine{program: activate(tb, s.module, s.json(tb))}
	for _, q := range s.questions {
		e.requests = append(e.requests, q.request(tb))
	}
	return e
}

func activate(tb testing.TB, module string, data []byte) *rego.Program {
	tb.Helper()
	p, err := rego.Compile(tb.Context(), rego.Source{Modules: []rego.Module{{Path: "authz.rego", Source: []byte(module)}}, Data: data}, rego.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func (e *microwallEngine) allows(ctx context.Context, question int) (bool, error) {
	out, err := e.program.Evaluate(ctx, rego.NewInput(&e.requests[question], noon))
	return out.Allow && len(out.Deny) == 0, err
}

func (e *microwallEngine) answer(ctx context.Context, question int) (answer, error) {
	out, err := e.program.Evaluate(ctx, rego.NewInput(&e.requests[question], noon))
	return answer{out.Allow, out.Deny, out.Reasons, out.Obligations.String()}, err
}

// opaEngine asks OPA with its defaults: rule index and early exit on, errors of
// built-ins undefined.
type opaEngine struct {
	query  opa.PreparedEvalQuery
	inputs []opa.EvalOption
}

// opaQuery is all four rules in one query. It is the quickest of those tried:
// see BENCHMARKS.md.
const opaQuery = "data.authz"

// prepareOPA returns the query over a store that keeps OPA's own values, the
// quickest that OPA has to offer.
func prepareOPA(tb testing.TB, module string, data map[string]any) opa.PreparedEvalQuery {
	tb.Helper()
	store := inmem.NewFromObjectWithOpts(data, inmem.OptRoundTripOnWrite(false), inmem.OptReturnASTValuesOnRead(true))
	query, err := opa.New(opa.Query(opaQuery), opa.Module("authz.rego", module), opa.Store(store), opa.SetRegoVersion(ast.RegoV1)).PrepareForEval(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return query
}

// prepareOPAInput hands OPA each request as a Go map.
func prepareOPAInput(tb testing.TB, s *shape) asked {
	tb.Helper()
	e := &opaEngine{query: prepareOPA(tb, s.module, s.object(tb))}
	for _, q := range s.questions {
		e.inputs = append(e.inputs, opa.EvalInput(q.input()))
	}
	return e
}

// prepareOPAParsed hands OPA each request as OPA's own value, made before.
func prepareOPAParsed(tb testing.TB, s *shape) asked {
	tb.Helper()
	e := &opaEngine{query: prepareOPA(tb, s.module, s.object(tb))}
	for _, q := range s.questions {
		v, err := ast.InterfaceToValue(q.input())
		if err != nil {
			tb.Fatal(err)
		}
		e.inputs = append(e.inputs, opa.EvalParsedInput(v))
	}
	return e
}

func (e *opaEngine) rules(ctx context.Context, question int) (map[string]any, error) {
	results, err := e.query.Eval(ctx, e.inputs[question])
	if err != nil {
		return nil, err
	}
	if len(results) != 1 {
		return nil, fmt.Errorf("OPA gave %d results", len(results))
	}
	rules, ok := results[0].Expressions[0].Value.(map[string]any)
	if !ok {
		return nil, errors.New("OPA gave no object")
	}
	return rules, nil
}

func (e *opaEngine) allows(ctx context.Context, question int) (bool, error) {
	rules, err := e.rules(ctx, question)
	allow, _ := rules["allow"].(bool)
	deny, _ := rules["deny"].([]any)
	return allow && len(deny) == 0, err
}

func (e *opaEngine) answer(ctx context.Context, question int) (answer, error) {
	rules, err := e.rules(ctx, question)
	if err != nil {
		return answer{}, err
	}
	texts := func(rule string) (texts []string) {
		set, _ := rules[rule].([]any)
		for _, member := range set {
			texts = append(texts, fmt.Sprint(member))
		}
		slices.Sort(texts)
		return texts
	}
	allow, _ := rules["allow"].(bool)
	obligations, _ := rules["obligations"].(map[string]any)
	properties, err := policy.NewProperties(obligations)
	return answer{allow, texts("deny"), texts("reasons"), properties.String()}, err
}

// cedarEngine asks cedar-go. Its entities and requests are made before.
type cedarEngine struct {
	policies *cedar.PolicySet
	entities cedar.EntityMap
	requests []cedar.Request
}

func prepareCedar(tb testing.TB, s *shape) asked {
	tb.Helper()
	if s.cedar == nil {
		return nil
	}
	policies, err := cedar.NewPolicySetFromBytes("authz.cedar", []byte(s.cedar.policies))
	if err != nil {
		tb.Fatal(err)
	}
	e := &cedarEngine{policies: policies, entities: s.cedar.entities}
	for _, q := range s.questions {
		e.requests = append(e.requests, s.cedar.request(q))
	}
	return e
}

func (e *cedarEngine) allows(_ context.Context, question int) (bool, error) {
	decision, diagnostic := cedar.Authorize(e.policies, e.entities, e.requests[question])
	if len(diagnostic.Errors) > 0 {
		return false, errors.New(diagnostic.Errors[0].Message)
	}
	return bool(decision), nil
}

// answer has no reasons but what allowed and what denied: Cedar has none of the
// policy's own words.
func (e *cedarEngine) answer(ctx context.Context, question int) (answer, error) {
	allow, err := e.allows(ctx, question)
	return answer{allow: allow, obligations: "{}"}, err
}
