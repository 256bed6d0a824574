package rego_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
	"github.com/microwall/microwall/policy/rego/internal/differential"
)

// told is an explanation as indented lines: what held, with the operands behind.
func told(x *rego.Explanation) string {
	var b strings.Builder
	var attempts func([]rego.Attempt, string)
	var steps func([]rego.Step, string)
	attempts = func(all []rego.Attempt, indent string) {
		for _, a := range all {
			fmt.Fprintf(&b, "%s%d %s held=%t %q", indent, a.Line, a.Rule, a.Held, a.Values)
			if a.Default {
				b.WriteString(" default")
			}
			if a.Times > 0 {
				fmt.Fprintf(&b, " x%d", a.Times)
			}
			b.WriteString("\n")
			steps(a.Steps, indent+"  ")
		}
	}
	steps = func(all []rego.Step, indent string) {
		for _, s := range all {
			fmt.Fprintf(&b, "%s%d %t %s", indent, s.Line, s.Held, s.Text)
			for _, o := range s.Operands {
				fmt.Fprintf(&b, " | %s: %s", o.Text, o.Value)
			}
			if s.Error != "" {
				fmt.Fprintf(&b, " ! %s", s.Error)
			}
			b.WriteString("\n")
			attempts(s.Attempts, indent+"  ")
			steps(s.Steps, indent+"  ")
		}
	}
	for _, a := range x.Answers {
		if len(a.Attempts) > 0 {
			fmt.Fprintf(&b, "%s = %s\n", a.Rule, a.Value)
			attempts(a.Attempts, "  ")
		}
	}
	return b.String()
}

func TestAnExplanationTellsWhatHeldAndWhatDidNot(t *testing.T) {
	const data = `{
		"roles": {"ann": ["writer", "Reader"], "eve": ["reader"]}, "levels": [3, 1, 4],
		"users": {"ann": {"role": "dev"}}, "blocked": ["eve"]
	}`
	for name, test := range map[string]struct{ policy, want string }{
		"a comparison": {`
allow if input.subject.id == "bob"`, `
allow = 
  3 authz.allow held=false []
    3 false input.subject.id == "bob" | input.subject.id: "ann"
`},
		"a default": {`
default allow := false
allow if { input.action.name == "read"; input.context.n > 3 }`, `
allow = false
  4 authz.allow held=false []
    4 true input.action.name == "read" | input.action.name: "read"
    4 false input.context.n > 3 | input.context.n: 
  3 authz.allow held=true ["false"] default
`},
		"a function and its argument": {`
allow if role(input.subject.id) == "admin"
role(id) := data.users[id].role`, `
allow = 
  3 authz.allow held=false []
    3 false role(input.subject.id) == "admin" | input.subject.id: "ann" | role(input.subject.id): "dev"
      4 authz.role("ann") held=true ["\"dev\""]
        4 true data.users[id].role | id: "ann"
`},
		"an iteration that gets furthest with its second element": {`
allow if {
	some r in data.roles[input.subject.id]
	startswith(r, "Re")
	r == "admin"
}`, `
allow = 
  3 authz.allow held=false []
    4 true some r in data.roles[input.subject.id] | input.subject.id: "ann" | r: "Reader"
    5 true startswith(r, "Re") | r: "Reader"
    6 false r == "admin" | r: "Reader"
`},
		"a negation of a rule": {`
allow if not blocked
blocked if input.subject.id in data.blocked`, `
allow = true
  3 authz.allow held=true ["true"]
    3 true not blocked | blocked: 
      4 authz.blocked held=false []
        4 false input.subject.id in data.blocked | input.subject.id: "ann" | data.blocked: ["eve"]
`},
		"every, and the element that does not hold": {`
allow if every x in data.levels { x > 1 }`, `
allow = 
  3 authz.allow held=false []
    3 false every x in data.levels { x > 1 } | data.levels: [3, 1, 4]
      3 false x > 1 | x: 1
`},
		"every with more elements than are kept": {`
allow if every x in numbers.range(1, 20) { x < 20 }`, `
allow = 
  3 authz.allow held=false []
    3 false every x in numbers.range(1, 20) { x < 20 } | numbers.range(1, 20): [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]
      3 false x < 20 | x: 20
`},
		"members, and what they came from": {`
deny contains sprintf("no %v", [x]) if { some x in data.levels; x > 2 }`, `
deny = {"no 3", "no 4"}
  3 authz.deny held=true ["\"no 3\"" "\"no 4\""]
    3 true some x in data.levels | x: 3
    3 true x > 2 | x: 3
    3 true sprintf("no %v", [x]) | x: 3
`},
		"a rule that is known already": {`
allow if known
deny contains "no" if { known; not known }
known if input.subject.type == "user"`, `
allow = true
  3 authz.allow held=true ["true"]
    3 true known | known: true
      5 authz.known held=true ["true"]
        5 true input.subject.type == "user" | input.subject.type: "user"
deny = set()
  4 authz.deny held=false []
    4 true known | known: true
      5 authz.known held=true ["true"]
        5 true input.subject.type == "user" | input.subject.type: "user"
    4 false not known | known: true
`},
		"a rule that is tried for each element": {`
allow if { some id in ["x", "y", "z", "v", "w", "u", "ann"]; own(id) }
own(id) if id == input.subject.id`, `
allow = true
  3 authz.allow held=true ["true"]
    3 true some id in ["x", "y", "z", "v", "w", "u", "ann"] | id: "ann"
    3 true own(id) | id: "ann"
      4 authz.own("ann") held=true ["true"] x7
        4 true id == input.subject.id | id: "ann" | input.subject.id: "ann"
`},
		"a call that fails": {`
allow if true
deny contains "no" if to_number(input.subject.id) > 3`, `
allow = true
  3 authz.allow held=true ["true"]
deny = 
  4 authz.deny held=false []
    4 false to_number(input.subject.id) > 3 | input.subject.id: "ann" ! eval_builtin_error: to_number: strconv.ParseFloat: parsing "ann": invalid syntax
`},
		"with, under which other values hold": {`
allow if input.action.name == "write" with input.action.name as "write"
deny contains "no" if count(data.levels) == 1 with data.levels as [input.subject.id]`, `
allow = true
  3 authz.allow held=true ["true"]
    3 true input.action.name == "write" with input.action.name as "write"
deny = {"no"}
  4 authz.deny held=true ["\"no\""]
    4 true count(data.levels) == 1 with data.levels as [input.subject.id] | input.subject.id: "ann" | [input.subject.id]: ["ann"] | data.levels: ["ann"] | count(data.levels): 1
`},
		"an else": {`
allow := input.context.a if { input.context.b } else := false if { input.action.name == "read" }`, `
allow = false
  3 authz.allow held=false []
    3 false input.context.b | input.context.b: 
  3 authz.allow held=true ["false"]
    3 true input.action.name == "read" | input.action.name: "read"
`},
		"and, or and a negated body": {`
import rego.v2
allow if { input.subject.id == "bob" } or { input.context.a }
deny contains "no" if not { some x in data.levels; x == 3 }`, `
allow = 
  4 authz.allow held=false []
    4 false { input.subject.id == "bob" } or { input.context.a }
      4 false input.subject.id == "bob" | input.subject.id: "ann"
      4 false input.context.a | input.context.a: 
deny = set()
  5 authz.deny held=false []
    5 false not { some x in data.levels; x == 3 }
      5 true some x in data.levels | x: 3
      5 true x == 3 | x: 3
`},
		"a template string, of which OPA knows no place": {`
allow if {
	$"{input.subject.id}!" == "bob!"
}`, `
allow = 
  3 authz.allow held=false []
    4 false $"{input.subject.id}!" == "bob!" | $"{input.subject.id}!": "ann!"
`},
		"obligations and reasons": {`
allow if true
reasons contains "because" if data.users[input.subject.id].role == "dev"
obligations["mfa"] := {"max_age": 300} if input.subject.type == "user"`, `
allow = true
  3 authz.allow held=true ["true"]
reasons = {"because"}
  4 authz.reasons held=true ["\"because\""]
    4 true data.users[input.subject.id].role == "dev" | input.subject.id: "ann" | data.users.ann.role: "dev"
obligations = {"mfa": {"max_age": 300}}
  5 authz.obligations.mfa held=true ["{\"max_age\": 300}"]
    5 true input.subject.type == "user" | input.subject.type: "user"
`},
	} {
		t.Run(name, func(t *testing.T) {
			x := explainPolicy(t, "package authz\n"+test.policy, data)
			if got := told(x); got != strings.TrimPrefix(test.want, "\n") {
				t.Errorf("got\n%swant%s", got, test.want)
			}
		})
	}
}

func explainPolicy(t *testing.T, module, data string) *rego.Explanation {
	t.Helper()
	src := rego.Source{Modules: []rego.Module{{Path: "authz.rego", Source: []byte(module)}}, Data: []byte(data)}
	r := policy.Request{
		Namespace: "test", Subject: policy.Entity{Type: "user", ID: "ann"},
		Action: policy.Action{Name: "read"}, Resource: policy.Entity{Type: "doc", ID: "1"},
	}
	x, err := rego.Explain(t.Context(), src, rego.NewInput(&r, rego.NewStamp(time.Unix(0, 0))))
	if err != nil {
		t.Fatal(err)
	}
	if x.Disagreement != "" {
		t.Error(x.Disagreement)
	}
	return x
}

func TestAnExplanationHasTheOutcome(t *testing.T) {
	x := explainPolicy(t, `package authz
allow if true
reasons contains "r" if true
deny contains "d" if input.subject.id == "bob"
obligations["o"] := 1 if true`, "")
	if x.Err != nil || !x.Outcome.Allow || len(x.Outcome.Deny) > 0 || !slices.Equal(x.Outcome.Reasons, []string{"r"}) || x.Outcome.Obligations.Len() != 1 {
		t.Errorf("%v, %v", x.Outcome, x.Err)
	}
	x = explainPolicy(t, "package authz\nallow if true\ndeny contains \"x\" if to_number(input.subject.id)", "")
	if policy.KindOf(x.Err) != policy.Failed || x.Outcome.Allow {
		t.Errorf("%v, %v", x.Outcome, x.Err)
	}
	x = explainPolicy(t, "package authz\nallow if true\ndeny contains x if x := input.time.hour", "")
	if policy.KindOf(x.Err) != policy.Failed || !strings.Contains(x.Err.Error(), "deny must be a set of strings") {
		t.Errorf("%v, %v", x.Outcome, x.Err)
	}
}

// What OPA's evaluator skips, ours reports: it is not taken for a bug.
func TestAnErrorThatOPASkipsIsNoDisagreement(t *testing.T) {
	x := explainPolicy(t, `package authz
allow if every x in [2, input.subject.id] { x + 1 == 2 }`, "")
	if policy.KindOf(x.Err) != policy.Failed {
		t.Errorf("%v, %v", x.Outcome, x.Err)
	}
}

// OPA's evaluator would square numbers, or loop, until memory or patience ends.
func TestWhatGoesOverALimitIsNotTraced(t *testing.T) {
	var squares strings.Builder
	for i := range 60 {
		fmt.Fprintf(&squares, "n%d := n%d * n%d\n", i+1, i, i)
	}
	for name, test := range map[string]struct {
		policy, err, untraced string
		goesOn                bool
	}{
		"steps":   {"allow if { some x in numbers.range(1, 5000); some y in numbers.range(1, 5000); x + y == -1 }", "over its budget of", "over its budget is not traced", false},
		"numbers": {"allow if n60 > 1\nn0 := data.n + 10\n" + squares.String(), "a number of more than", "too long a number is not traced", true},
	} {
		t.Run(name, func(t *testing.T) {
			x := explainPolicy(t, "package authz\n"+test.policy, `{"n": 1}`)
			if x.Err == nil || !strings.Contains(x.Err.Error(), test.err) || x.Outcome.Allow {
				t.Errorf("%v, %v", x.Outcome, x.Err)
			}
			if !strings.Contains(x.Untraced, test.untraced) || len(x.Answers) > 0 || x.OPAGoesOn != test.goesOn {
				t.Errorf("untraced %q, %d answers, OPA goes on %t", x.Untraced, len(x.Answers), x.OPAGoesOn)
			}
		})
	}
}

func TestADocumentedDifferenceIsNoDisagreement(t *testing.T) {
	x := explainPolicy(t, `package authz
allow if sprintf("%p", [data.n * 100000000000000000000]) != ""`, `{"n": 7}`)
	if x.Err == nil || !strings.Contains(x.Err.Error(), "%p would show") || !x.OPAGoesOn || x.Untraced != "" || len(x.Answers) == 0 {
		t.Errorf("%v, OPA goes on %t, untraced %q", x.Err, x.OPAGoesOn, x.Untraced)
	}
	x = explainPolicy(t, "package authz\nallow if true", "")
	if x.OPAGoesOn || x.Untraced != "" {
		t.Errorf("OPA goes on %t, untraced %q", x.OPAGoesOn, x.Untraced)
	}
}

func TestALongEvaluationIsToldInShort(t *testing.T) {
	if race {
		t.Skip("it is about the size of a trace, for which the race detector takes long: run it without")
	}
	x := explainPolicy(t, `package authz
allow if { some x in numbers.range(1, 21000); check(x) }
check(x) if { y := x + 1; even(y); y < 0 }
even(y) if y % 2 == 0`, "")
	if x.Truncated {
		t.Error("what is not kept counts")
	}
	if want := `
allow = 
  2 authz.allow held=false []
    2 true some x in numbers.range(1, 21000) | numbers.range(1, 21000): [1, 2, 3, 4, 5, 6, `; !strings.HasPrefix(told(x), want[1:]) || !strings.Contains(told(x), "held=false [] x21000") {
		t.Errorf("%s", told(x))
	}
	// Every rule is asked by five elements in twelve places, at two levels.
	wide := func(call string) string {
		var b strings.Builder
		for i := range 12 {
			fmt.Fprintf(&b, "\tcount([1 | some x in numbers.range(1, 5); %s]) >= 0\n", fmt.Sprintf(call, i))
		}
		return "{\n" + b.String() + "}\n"
	}
	x = explainPolicy(t, "package authz\nallow if "+wide("f(x, %d)")+"f(a, i) if "+wide("g(a, i, x, %d)")+
		"g(a, i, b, j) if count([1 | some x in numbers.range(1, 5); h(a, i, b, j, x)]) >= 0\nh(a, i, b, j, c) if a + b + c + i + j == 0", "")
	if !x.Truncated {
		t.Error("all of it was kept")
	}
}

func TestOfAGuardrailDenyAndObligationsAreExplained(t *testing.T) {
	src := rego.Source{Modules: []rego.Module{{Path: "authz.rego", Source: []byte("package authz\nallow if to_number(input.subject.id)\ndeny contains \"no\" if true")}}}
	r := policy.Request{Namespace: "test", Subject: policy.Entity{Type: "user", ID: "ann"}, Action: policy.Action{Name: "read"}, Resource: policy.Entity{Type: "doc", ID: "1"}}
	x, err := rego.ExplainGuardrail(t.Context(), src, rego.NewInput(&r, rego.NewStamp(time.Unix(0, 0))))
	if err != nil || x.Err != nil || x.Disagreement != "" || len(x.Answers) != 2 || !slices.Equal(x.Outcome.Deny, []string{"no"}) {
		t.Errorf("%+v, %v", x, err)
	}
}

func TestAnExplanationEndsWithItsContext(t *testing.T) {
	// Within Microwall's budget, and a long time for OPA.
	src := rego.Source{Modules: []rego.Module{{Path: "authz.rego", Source: []byte(`package authz
allow if { some x in numbers.range(1, 100); some y in numbers.range(1, 100); some z in numbers.range(1, 100); x + y + z == 0 }`)}}}
	r := policy.Request{Namespace: "test", Subject: policy.Entity{Type: "user", ID: "ann"}, Action: policy.Action{Name: "read"}, Resource: policy.Entity{Type: "doc", ID: "1"}}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := rego.Explain(ctx, src, rego.NewInput(&r, rego.NewStamp(time.Unix(0, 0)))); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// Both evaluators answer generated policies in the same way, through the same
// door as decisions.
func TestExplanationsOfGeneratedPoliciesDoNotDisagree(t *testing.T) {
	explained := 0
	for seed := range uint64(60) {
		c := differential.Generate(seed)
		src := rego.Source{Data: []byte(c.Data)}
		for _, m := range c.Modules {
			src.Modules = append(src.Modules, rego.Module{Path: m.Path, Source: []byte(m.Source)})
		}
		properties, err := policy.NewProperties(map[string]any{"n": 1, "s": "a", "roles": []string{"admin", "a"}, "m": map[string]any{"a": []any{1.5, nil}}})
		if err != nil {
			t.Fatal(err)
		}
		r := policy.Request{
			Namespace: "test", Subject: policy.Entity{Type: "ann", ID: "spiffe://example/ns/a/sa/b", Properties: properties},
			Action: policy.Action{Name: "a"}, Resource: policy.Entity{Type: "admin", ID: "b", Properties: properties}, Context: properties,
		}
		x, err := rego.Explain(t.Context(), src, rego.NewInput(&r, rego.NewStamp(time.Unix(1767614400, 0))))
		if err != nil {
			continue // not in the language that bundles have
		}
		explained++
		if x.Disagreement != "" {
			t.Errorf("seed %d: %s\n%s", seed, x.Disagreement, c)
		}
	}
	if explained < 20 {
		t.Errorf("%d policies were explained", explained)
	}
}
