package exactness_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/microwall/microwall/policy"
)

// source is what authors wrote, for OPA to evaluate.
type source struct {
	text         string
	tellsTime    bool
	whole, binds func(input ast.Value) (rego.ResultSet, error) // all rules, or those that bind others
}

// newSource has OPA compile what an author wrote, who writes nothing that does not
// compile.
func newSource(ctx context.Context, text string, data map[string]any) *source {
	prepare := func(rules string) func(ast.Value) (rego.ResultSet, error) {
		query, err := rego.New(
			rego.Query(fmt.Sprintf(`x := {k: v | some k in %s; v := data.authz[k]}`, rules)),
			rego.Module("authz.rego", text), rego.Store(inmem.NewFromObject(data)), rego.StrictBuiltinErrors(true),
		).PrepareForEval(ctx)
		if err != nil {
			panic(fmt.Sprintf("%v\n%s", err, text))
		}
		return func(input ast.Value) (rego.ResultSet, error) {
			return query.Eval(ctx, rego.EvalParsedInput(input), rego.EvalRuleIndexing(false), rego.EvalEarlyExit(false))
		}
	}
	return &source{text, tellsTime(text), prepare(`["allow", "deny", "reasons", "obligations"]`), prepare(`["deny", "obligations"]`)}
}

// outcome is what the rules of one source say.
type outcome struct {
	allow         bool
	deny, reasons []string
	obligations   map[string]any
}

// evaluate has OPA evaluate all rules, or those that bind others.
func (s *source) evaluate(input ast.Value, binding bool) (o outcome, err error) {
	query := s.whole
	if binding {
		query = s.binds
	}
	results, err := query(input)
	if err != nil {
		return o, err
	}
	all := results[0].Bindings["x"].(map[string]any)
	if v, ok := all["allow"]; ok {
		if o.allow, ok = v.(bool); !ok {
			return o, fmt.Errorf("allow is %v", v)
		}
	}
	if o.deny, err = texts(all["deny"]); err != nil {
		return o, err
	}
	if o.reasons, err = texts(all["reasons"]); err != nil {
		return o, err
	}
	o.obligations, _ = all["obligations"].(map[string]any)
	return o, nil
}

func texts(v any) (all []string, err error) {
	members, _ := v.([]any)
	for _, m := range members {
		text, ok := m.(string)
		if !ok {
			return nil, fmt.Errorf("%v is no string", m)
		}
		all = append(all, text)
	}
	slices.Sort(all)
	return all, nil
}

// said is what a decision says, in one spelling; "" is that there is none.
type said string

func saying(d *policy.Decision) said {
	return spelled(d.Allowed, d.Reasons, d.Obligations)
}

func spelled(allowed bool, reasons []policy.Reason, obligations policy.Properties) said {
	var b strings.Builder
	fmt.Fprintf(&b, "%v %s", allowed, obligations)
	for _, r := range reasons {
		fmt.Fprintf(&b, " %q", r)
	}
	return said(b.String())
}

// judge is the reference: it says what versions say to a request at a time.
type judge struct {
	mu       sync.RWMutex
	releases map[policy.Digest]*release
	memory   map[remembered]said
}

// release is what was signed.
type release struct {
	policy.Version
	*source
}

// remembered is a question that was answered: all of it.
type remembered struct {
	request  string
	versions [4]policy.Digest
	at       int64
}

// memorySize bounds what is remembered.
const memorySize = 100_000

func newJudge() *judge {
	return &judge{releases: map[policy.Digest]*release{}, memory: map[remembered]said{}}
}

func (j *judge) signed(v policy.Version, s *source) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.releases[v.Digest] = &release{v, s}
}

// of returns the releases that versions name, nil if one of them was never signed.
func (j *judge) of(versions []policy.Version) (all []*release) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	for _, v := range versions {
		r := j.releases[v.Digest]
		if r == nil || r.Version != v {
			return nil
		}
		all = append(all, r)
	}
	return all
}

// from returns the releases of a namespace from a version on, the oldest first.
func (j *judge) from(v policy.Version, n policy.Namespace) (all []*release) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	for _, r := range j.releases {
		if r.Namespace == n && r.Compare(v) >= 0 {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b *release) int { return a.Compare(b.Version) })
	return all
}

// says returns what releases say to a request at a time, in seconds since 1970: the
// guardrails from the outermost in, then the namespace. "" is that they fail.
func (j *judge) says(a *asking, path []*release, at int64) said {
	q := remembered{request: a.text}
	for i, r := range path {
		q.versions[i] = r.Digest
		if r.tellsTime {
			q.at = at
		}
	}
	if !a.unique {
		j.mu.RLock()
		s, ok := j.memory[q]
		j.mu.RUnlock()
		if ok {
			return s
		}
	}
	s := decide(a, path, at)
	if !a.unique {
		j.mu.Lock()
		if len(j.memory) >= memorySize {
			clear(j.memory)
		}
		j.memory[q] = s
		j.mu.Unlock()
	}
	return s
}

// decide puts what OPA says together as the documentation has it.
func decide(a *asking, path []*release, at int64) said {
	input := inputOf(a, at)
	var reasons []policy.Reason
	obligations := map[string]any{}
	spelling := map[string]string{}
	var own outcome
	for i, r := range path {
		o, err := r.evaluate(input, i < len(path)-1)
		if err != nil {
			return ""
		}
		for _, text := range o.deny {
			reasons = append(reasons, policy.Reason{Namespace: r.Namespace, Text: text})
		}
		for name, v := range o.obligations {
			text, err := json.Marshal(v)
			if err != nil {
				panic(err) // it came from OPA, as JSON
			}
			if last, ok := spelling[name]; ok && last != string(text) {
				spelling[""] = "conflict" // matters only if it is allowed
			}
			obligations[name], spelling[name] = v, string(text)
		}
		own = o
	}
	if !own.allow || len(reasons) > 0 {
		return spelled(false, reasons, policy.Properties{})
	}
	if spelling[""] != "" {
		return ""
	}
	p, err := policy.NewProperties(obligations)
	if err != nil {
		return ""
	}
	for _, text := range own.reasons {
		reasons = append(reasons, policy.Reason{Namespace: path[len(path)-1].Namespace, Text: text})
	}
	return spelled(true, reasons, p)
}

// inputOf returns what policies see.
func inputOf(a *asking, at int64) ast.Value {
	t := time.Unix(at, 0).UTC()
	text := fmt.Appendf(nil, `%s,"time":{"unix":%d,"hour":%d,"minute":%d,"date":%q,"weekday":%q}}`,
		strings.TrimSuffix(a.text, "}"), at, t.Hour(), t.Minute(), t.Format(time.DateOnly), strings.ToLower(t.Weekday().String()))
	v, err := ast.ValueFromReader(bytes.NewReader(text))
	if err != nil {
		panic(err) // a table of values is wrong
	}
	return v
}
