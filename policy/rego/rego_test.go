package rego_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

var noon = rego.NewStamp(time.Date(2026, 11, 23, 12, 34, 56, 0, time.UTC))

func source(module, data string) rego.Source {
	return rego.Source{Modules: []rego.Module{{Path: "authz.rego", Source: []byte(module)}}, Data: []byte(data)}
}

func compile(t *testing.T, module, data string) *rego.Program {
	t.Helper()
	p, err := rego.Compile(t.Context(), source(module, data), rego.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func props(t *testing.T, m map[string]any) policy.Properties {
	t.Helper()
	p, err := policy.NewProperties(m)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func request(t *testing.T) policy.Request {
	return policy.Request{
		Namespace: "shop.cart",
		Subject:   policy.Entity{Type: "workload", ID: "spiffe://shop/frontend"},
		Action:    policy.Action{Name: "AddItem"},
		Resource:  policy.Entity{Type: "grpc", ID: "Cart", Properties: props(t, map[string]any{"n": 3, "list": []string{"a"}})},
	}
}

func TestOutcome(t *testing.T) {
	tests := []struct {
		name, module, data string
		want               rego.Outcome
	}{
		{"nothing is said", `default allow := false`, "", rego.Outcome{}},
		{"undefined is no", `allow if input.action.name == "Other"`, "", rego.Outcome{}},
		{"a rule allows", `allow if input.subject.id in data.callers[input.action.name]`, `{"callers":{"AddItem":["spiffe://shop/frontend"]}}`, rego.Outcome{Allow: true}},
		{"absent properties are an empty object", `allow if { input.subject.properties == {}; input.context == {} }`, "", rego.Outcome{Allow: true}},
		{"properties are read", `allow if { input.resource.properties.n == 3; "a" in input.resource.properties.list }`, "", rego.Outcome{Allow: true}},
		{"the time is UTC", `allow if input.time == {"unix": 1795437296, "hour": 12, "minute": 34, "date": "2026-11-23", "weekday": "monday"}`, "", rego.Outcome{Allow: true}},
		{"the namespace is no part of the input", `allow if not "namespace" in object.keys(input)`, "", rego.Outcome{Allow: true}},
		{"another package may have another input", "allow if data.old.ok with input as {\"user\": input.subject.id}", "", rego.Outcome{}},
		{"properties and context are open", `allow if { not input.subject.properties.name.first; not input.context.type }`, "", rego.Outcome{Allow: true}},
		{"denies and reasons are sorted", "allow := true\ndeny contains \"b\"\ndeny contains \"a\"\nreasons contains \"z\"\nreasons contains \"y\"", "",
			rego.Outcome{Allow: true, Deny: []string{"a", "b"}, Reasons: []string{"y", "z"}}},
		{"a set as a complete rule", "deny := {\"x\"}", "", rego.Outcome{Deny: []string{"x"}}},
		{"rego.v2 may be imported", "import rego.v2\nallow if true", "", rego.Outcome{Allow: true}},
		{"a time in UTC", `allow if time.weekday([input.time.unix * 1000000000, "UTC"]) == "Monday"`, "", rego.Outcome{Allow: true}},
		{"a text", `allow if sprintf("%d%% paid of %s", [5, "x"]) == "5% paid of x"`, "", rego.Outcome{Allow: true}},
		{"a date in UTC", `allow if time.add_date(input.time.unix * 1000000000, 0, 0, 1) > 1`, "", rego.Outcome{Allow: true}},
		{"nanoseconds by arithmetic", `allow if time.clock(input.time.unix * 1000000000)[0] == 12`, "", rego.Outcome{Allow: true}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := compile(t, "package authz\n"+test.module, test.data)
			r := request(t)
			got, err := p.Evaluate(t.Context(), rego.NewInput(&r, noon))
			if err != nil {
				t.Fatal(err)
			}
			if got.Allow != test.want.Allow || !slices.Equal(got.Deny, test.want.Deny) || !slices.Equal(got.Reasons, test.want.Reasons) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestObligationsKeepTheirValues(t *testing.T) {
	p := compile(t, "package authz\nallow := true\nobligations[\"mfa\"] := {\"max_age\": 300, \"how\": [\"otp\"]}\nobligations.log := 1.5", "")
	r := request(t)
	got, err := p.Evaluate(t.Context(), rego.NewInput(&r, noon))
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"log":1.5,"mfa":{"how":["otp"],"max_age":300}}`; got.Obligations.String() != want {
		t.Errorf("got %s, want %s", got.Obligations, want)
	}
}

func TestAGuardrailIsAskedForDenyAndObligationsAlone(t *testing.T) {
	p := compile(t, "package authz\nallow if to_number(input.subject.id) == 1\nreasons contains \"x\" if to_number(input.subject.id) == 1\ndeny contains \"no\"", "")
	r := request(t)
	got, err := p.EvaluateGuardrail(t.Context(), rego.NewInput(&r, noon))
	if err != nil || !slices.Equal(got.Deny, []string{"no"}) {
		t.Errorf("guardrail: %+v, %v", got, err)
	}
	if _, err := p.Evaluate(t.Context(), rego.NewInput(&r, noon)); policy.KindOf(err) != policy.Failed {
		t.Errorf("namespace: got %v, want a failed policy", err)
	}
}

// Whatever the order of rules, the index and early exit would skip: a built-in
// that fails makes the decision an error.
func TestAFailingBuiltInIsNeverSkipped(t *testing.T) {
	fails := `to_number(input.subject.id) == 1`
	tests := map[string]string{
		"after a rule that allows":            "allow if true\nallow if " + fails,
		"before a rule that allows":           "allow if " + fails + "\nallow if true",
		"in a rule that the index would hide": "allow if true\nallow if { " + fails + "; input.action.name == \"Nothing\" }",
		"behind a not":                        "allow if not helper\nhelper if " + fails,
		"in a deny":                           "allow if true\ndeny contains \"x\" if " + fails,
		"in a deny after another":             "allow if true\ndeny contains \"a\" if true\ndeny contains \"x\" if " + fails,
		"in a function's second clause":       "allow if f(1)\nf(x) if x == 1\nf(x) if { x == 1; " + fails + " }",
		"in the reasons":                      "allow if true\nreasons contains \"x\" if " + fails,
		"in the obligations":                  "allow if true\nobligations[\"x\"] := 1 if " + fails,
		"in a comprehension":                  "allow if count([1 | " + fails + "]) == 0",
		"division by zero":                    "allow if not 1 / 0 == 1",
		"two values for a complete rule":      "allow if h == 1\nh := 1 if true\nh := 2 if true",
		// OPA stops early in these, whatever its switches say.
		"behind an every that is lost":           "allow if every x in [0, input.subject.id] { to_number(x) == 1 }",
		"in a member that nobody looks up":       "allow if blocked.a\nblocked[\"a\"] if true\nblocked[input.subject.id] if " + fails,
		"in a part of an object nobody wants":    "allow if limits.a == 1\nlimits[k] := v if { some k, v in {\"a\": 1, \"b\": to_number(input.subject.id)} }",
		"among rules that an index finds":        manyRules(20, "input.action.name == \"rule-%d\"") + "allow if { " + fails + "; input.action.name == \"rule-99\" }\n",
		"in a loop that has found what it needs": `allow if { some x in ["1", input.subject.id]; to_number(x) == 1 }`,
		"in a world that with makes":             "allow if h with input.action.name as \"x\"\nh if true\nh if " + fails,
	}
	for name, module := range tests {
		t.Run(name, func(t *testing.T) {
			p := compile(t, "package authz\n"+module, "")
			r := request(t)
			got, err := p.Evaluate(t.Context(), rego.NewInput(&r, noon))
			if policy.KindOf(err) != policy.Failed {
				t.Errorf("got %+v and error %v, want kind failed", got, err)
			}
			if got.Allow {
				t.Error("allowed beside an error")
			}
		})
	}
}

// manyRules returns n rules that allow, each with its own body.
func manyRules(n int, body string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "allow if { "+body+" }\n", i)
	}
	return b.String()
}

// What cannot fail may be left out.
func TestARuleThatCannotFailHidesNothing(t *testing.T) {
	r := request(t)
	for module, want := range map[string]bool{
		"allow if true\nallow if input.subject.id == 1\nallow if { some x in input.resource.properties.list; x == 3 }": true,
		manyRules(50, "input.action.name == \"rule-%d\""):                                                              false,
		manyRules(50, "input.action.name == \"rule-%d\"") + "allow if input.subject.id":                                true,
		"allow if count([x | some x in [1, 2, 3]]) == 3":                                                               true,
		"default allow := true\nallow := false if input.subject.id == \"nobody\"":                                      true,
	} {
		p := compile(t, "package authz\n"+module, "")
		if got, err := p.Evaluate(t.Context(), rego.NewInput(&r, noon)); err != nil || got.Allow != want {
			t.Errorf("%s: %+v, %v", module, got, err)
		}
	}
}

func TestAnotherShapeIsAnErrorOfTheDecision(t *testing.T) {
	value := "\nvalue := input.resource.properties.n"
	for name, module := range map[string]string{
		"allow is a number":        "allow := value" + value,
		"deny is a number":         "deny := value" + value,
		"deny has a number in it":  "deny contains value" + value,
		"deny is an array":         "deny := input.resource.properties.list",
		"reasons has a number":     "allow := true\nreasons contains value" + value,
		"obligations is a number":  "allow := true\nobligations := value" + value,
		"a deny is no text":        `deny contains base64.decode("/w==")`,
		"a reason is no text":      "allow := true\n" + `reasons contains base64.decode("/w==")`,
		"an obligation is no text": "allow := true\n" + `obligations["x"] := base64.decode("/w==")`,
		"an obligation has one":    "allow := true\nobligations[\"f\"] := [{value: \"a\", \"3\": \"b\"}]" + value,
		"obligations has a number": "allow := true\nobligations[value] := 1" + value,
	} {
		t.Run(name, func(t *testing.T) {
			p := compile(t, "package authz\n"+strings.Replace(module, "deny", "allow := true\ndeny", 1), "")
			r := request(t)
			got, err := p.Evaluate(t.Context(), rego.NewInput(&r, noon))
			if policy.KindOf(err) != policy.Failed || got.Allow {
				t.Errorf("got %+v and error %v, want kind failed", got, err)
			}
		})
	}
}

func TestWhatDoesNotCompile(t *testing.T) {
	tests := []struct {
		name, module, data string
		line, column       int
		message, hint      string
	}{
		{"a typo for allow", "package authz\nalow if true", "", 0, 0, "neither `allow` nor `deny`", "allow if"},
		{"another package", "package cart\nallow if true", "", 0, 0, "neither `allow` nor `deny`", "package authz"},
		{"a set allow", "package authz\nallow contains \"x\"", "", 2, 1, "complete boolean rule", "allow if"},
		{"a text that allows", "package authz\nallow := \"yes\" if true", "", 2, 1, "true or false", "only `true`"},
		{"an allow with a path", "package authz\nallow.cart if true", "", 2, 1, "complete boolean rule", ""},
		{"a boolean deny", "package authz\ndeny if true", "", 2, 1, "set of strings", "deny contains"},
		{"a deny of numbers", "package authz\ndeny contains 1", "", 2, 1, "set of strings", ""},
		{"an old partial deny", "package authz\ndeny[x] := true if x := \"a\"", "", 2, 1, "set of strings", ""},
		{"an array of reasons", "package authz\nallow := true\nreasons := [\"x\"]", "", 3, 1, "set of strings", ""},
		{"a set of obligations", "package authz\nallow := true\nobligations contains \"x\"", "", 3, 1, "object", ""},
		{"a function allow", "package authz\nallow(x) if x", "", 2, 1, "function", ""},
		{"a package in deny's place", "package authz.deny\nallow if true", "", 1, 1, "takes the place", ""},
		{"data under authz", "package authz\nallow if true", `{"authz":{"deny":{}}}`, 0, 0, "under `authz`", "data.callers"},
		{"data under a helper's rule", "package lib.x\nhelp if true", `{"lib":{"x":{"help":true}}}`, 2, 1, "under the path of rule", ""},
		{"data in a package's place", "package lib.x\nhelp if true", `{"lib":1}`, 2, 1, "under the path of rule", ""},
		{"data that is no object", "package authz\nallow if true", `[]`, 1, 1, "not a JSON object", ""},
		{"the network", "package authz\nallow if http.send({}).ok", "", 2, 10, "undefined function http.send", "context"},
		{"the clock", "package authz\nallow if time.now_ns() > 1", "", 2, 10, "undefined function time.now_ns", "input.time"},
		{"tokens", "package authz\nallow if io.jwt.decode_verify(\"\", {})[0]", "", 2, 10, "io.jwt.decode_verify", "claims"},
		{"the environment", "package authz\nallow if opa.runtime().env.X == \"1\"", "", 2, 10, "opa.runtime", "data.json"},
		{"schemas", "package authz\nallow if json.match_schema({}, {})[0]", "", 2, 10, "json.match_schema", ""},
		{"certificates by the host's clock", "package authz\nallow if crypto.x509.parse_and_verify_certificates(\"\")[0]", "", 2, 10, "crypto.x509", "clock"},
		{"the host's zone", "package authz\nallow if time.clock([1, \"Local\"])[0] == 1", "", 2, 10, "time zones", "UTC"},
		{"a zone by name", "package authz\nallow if time.date([1, \"Europe/Berlin\"])[0] == 1", "", 2, 10, "time zones", "UTC"},
		{"a zone from the request", "package authz\nallow if time.date(input.context.when)[0] == 1", "", 2, 10, "time zones", "UTC"},
		{"a zone in the second time", "package authz\nallow if time.diff(1, [1, \"Local\"])[0] == 1", "", 2, 10, "time zones", "UTC"},
		{"a zone through a replaced function", "package authz\nallow if f(1) with f as time.clock\nf(x) := x", "", 2, 25, "as a value", "directly"},
		{"a zone abbreviation", "package authz\nallow if time.parse_ns(\"RFC1123\", input.context.when) > 1", "", 2, 10, "abbreviations", "RFC1123Z"},
		{"a layout from the request", "package authz\nallow if time.parse_ns(input.context.layout, \"\") > 1", "", 2, 10, "abbreviations", ""},
		{"a zone in a sum of dates", "package authz\nallow if time.add_date([1, \"Local\"], 0, 1, 0) == 1", "", 2, 10, "time zones", "UTC"},
		{"a date from the request", "package authz\nallow if time.add_date(input.context.t, 0, 1, 0) == 1", "", 2, 10, "time zones", "UTC"},
		{"a rule in a built-in's place", "package authz\nround(x) := [x, \"Local\"]\nallow if time.clock(round(1))[0] == 1", "", 3, 10, "time zones", "UTC"},
		{"an operator in a rule's place", "package authz\nmul(x, _) := [x, \"Local\"]\nallow if time.clock(1 * 1)[0] == 1", "", 3, 10, "time zones", "UTC"},
		{"an operator that is replaced", "package authz\nf(x, _) := [x, \"Local\"]\nallow if time.clock(1 * 1)[0] == 1 with mul as f", "", 3, 10, "time zones", "UTC"},
		{"a template", "package authz\nallow if strings.render_template(\"{{.}}\", {}) == \"x\"", "", 2, 10, "strings.render_template", "sprintf"},
		{"a private key", "package authz\nallow if crypto.x509.parse_rsa_private_key(data.key).D == 1", "", 2, 10, "crypto.x509.parse_rsa_private_key", "keep keys"},
		{"a patch", "package authz\nallow if json.patch({}, []) == {}", "", 2, 10, "json.patch", "object.union"},
		{"a typo in the input", "package authz\ndeny contains \"x\" if input.subjct.id != \"a\"", "", 2, 28, "input.subjct", "subject, action"},
		{"a typo below the subject", "package authz\ndeny contains \"x\" if input.subject.name != \"a\"", "", 2, 36, "input.subject.name", "type, id, properties"},
		{"a claim where no claim is", "package authz\nallow if input.subject[\"role\"] == \"a\"", "", 2, 24, "input.subject.role", "properties"},
		{"a second that is not there", "package authz\nallow if input.time.second == 1", "", 2, 21, "input.time.second", "minute"},
		{"Rego v0", "package authz\nallow { true }", "", 2, 1, "`if` keyword", "v0"},
		{"a syntax error", "package authz\nallow if {", "", 2, 10, "", ""},
		{"a variable without a value that OPA does not find", "package authz\nallow if {\n\tx := input.context.a\n\t[y | y := x[_]] > limit\n}", "", 4, 0, "without a value", "spelled"},
		{"a function for a document", "package authz\nf(x) := x\nallow if input.context.a with data.b as f", "", 3, 26, "is a function", ""},
		{"an undefined variable", "package authz\nallow if x == 1", "", 2, 10, "x is unsafe", ""},
		{"an empty file", "", "", 0, 0, "empty", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			module := test.module
			if strings.HasPrefix(module, "package lib") {
				module += "\n"
			}
			src := source(module, test.data)
			if strings.HasPrefix(module, "package lib") {
				src.Modules = append(src.Modules, rego.Module{Path: "z.rego", Source: []byte("package authz\nallow if true")})
			}
			_, err := rego.Compile(t.Context(), src, rego.Options{})
			var problems rego.Problems
			if !errors.As(err, &problems) {
				t.Fatalf("got %v, want problems", err)
			}
			if policy.KindOf(err) != policy.BadRequest {
				t.Errorf("kind is %v", policy.KindOf(err))
			}
			if !slices.ContainsFunc(problems, func(p rego.Problem) bool {
				return p.Line == test.line && p.Column == test.column && strings.Contains(p.Message, test.message) && strings.Contains(p.Hint, test.hint)
			}) {
				t.Errorf("got %v\nwant %d:%d %q (%q)", problems, test.line, test.column, test.message, test.hint)
			}
		})
	}
}

func TestAPolicyThatTakesTooLongToCompileIsRefused(t *testing.T) {
	rego.SetCompileTime(t, time.Nanosecond)
	_, err := rego.Compile(t.Context(), source("package authz\nallow if true", ""), rego.Options{})
	problems, ok := errors.AsType[rego.Problems](err)
	if !ok || !strings.Contains(problems.Error(), "takes over 1ns to compile") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := rego.Compile(ctx, source("package authz\nallow if true", ""), rego.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("after its caller has gone: %v", err)
	}
}

func TestEveryProblemIsReported(t *testing.T) {
	module := "package authz\nallow if http.send({})\n"
	for range 20 {
		module += "deny contains \"x\" if time.now_ns() == 1\n"
	}
	_, err := rego.Compile(t.Context(), source(module, ""), rego.Options{})
	var problems rego.Problems
	if !errors.As(err, &problems) || len(problems) != 21 {
		t.Errorf("got %d problems, want 21: %v", len(problems), err)
	}
}

func TestReadsTime(t *testing.T) {
	for module, want := range map[string]bool{
		"allow if input.subject.id == \"x\"":                                                                     false,
		"allow if input.time.hour == 1":                                                                          true,
		"allow if input[\"time\"].hour == 1":                                                                     true,
		"allow if input[data.key].hour == 1":                                                                     true,
		"allow if { some x in input; x.hour == 1 }":                                                              true,
		"allow if { i := input; i.time.hour == 1 }":                                                              true,
		"allow if f(input)\nf(x) if x.time.hour == 1":                                                            true,
		"allow if object.get(input, [\"time\"], 1) == 1":                                                         true,
		"allow if helper\nhelper if input.time.hour == 1":                                                        true,
		"import input.time as now\nallow if now.hour == 1":                                                       true,
		"allow if input.context.time == 1":                                                                       false,
		"allow if { walk(input, [p, v]); v == 1 }":                                                               true,
		"allow if count(input.context) == 1":                                                                     false,
		"allow if x with input as {}\nx if input.subject.id":                                                     false,
		"allow if { some k; input[k].hour == 1 }":                                                                true,
		"allow if json.marshal({\"a\": input}) == \"\"":                                                          true,
		"allow if { f := input.time; f.hour == 1 }":                                                              true,
		"allow if { [x, _] := [input, 1]; x.time.hour == 1 }":                                                    true,
		"allow if { x := {\"y\": input.time}; x.y.hour == 1 }":                                                   true,
		"allow if { every x in [input.time] { x.hour == 1 } }":                                                   true,
		"import input as req\nallow if { req.action.name == \"A\"; office(req) }\noffice(r) if r.time.hour >= 9": true,
		"import input as req\nallow if { req.action.name == \"A\"; x := req; x.time.hour == 9 }":                 true,
		"import input as req\nallow if { req.subject.id; object.get(req, [\"time\", \"hour\"], 0) == 9 }":        true,
		"import input as req\nallow if { req.subject.id; walk(req, [_, 9]) }":                                    true,
		"import input as req\nallow if { req.subject.id; req[req.action.name].hour == 9 }":                       true,
		"import input as req\nallow if { req.subject.id; req.time.hour == 9 }":                                   true,
		"import input as req\nallow if req.subject.id":                                                           false,
		"import input.subject as who\nallow if who.id":                                                           false,
		"allow if input.subject.properties[input.action.name]":                                                   false,
	} {
		reads := compile(t, "package authz\n"+module, "").Reads()
		if got := slices.ContainsFunc(reads, func(p policy.ReadPath) bool { return len(p) == 0 || p[0].Name == "time" }); got != want {
			t.Errorf("%q: got %v", module, got)
		}
	}
}

func TestAnEndlessPolicyIsStopped(t *testing.T) {
	module := "package authz\nallow if { some a in numbers.range(1, 3000); some b in numbers.range(1, 3000); some c in numbers.range(1, 3000); a + b + c == -1 }"
	r := request(t)
	t.Run("by its budget", func(t *testing.T) {
		p, err := rego.Compile(t.Context(), source(module, ""), rego.Options{Budget: 20 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Evaluate(t.Context(), rego.NewInput(&r, noon))
		if policy.KindOf(err) != policy.Failed || !strings.Contains(err.Error(), "budget") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("by the caller's deadline", func(t *testing.T) {
		p, err := rego.Compile(t.Context(), source(module, ""), rego.Options{Budget: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err = p.Evaluate(ctx, rego.NewInput(&r, noon)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestRunTests(t *testing.T) {
	src := source("package authz\nallow if input.action.name == \"A\"\nallow if {\n\tinput.action.name == \"B\"\n}", "")
	src.Tests = []rego.Module{{Path: "authz_test.rego", Source: []byte(`package authz_test
import data.authz
test_a if authz.allow with input.action.name as "A"
test_wrong if authz.allow with input.action.name as "C"
test_errs if to_number("x") == 1
test_prints if { print("hello"); true }
todo_test_later if false
`)}}
	report, err := rego.Test(t.Context(), src, rego.TestOptions{Coverage: true})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]rego.TestResult{}
	for _, r := range report.Results {
		got[r.Name] = r
	}
	if r := got["authz_test.test_a"]; r.Failure != "" || r.Line != 3 || r.File != "authz_test.rego" {
		t.Errorf("test_a: %+v", r)
	}
	if got["authz_test.test_wrong"].Failure == "" || got["authz_test.test_errs"].Failure == "" {
		t.Errorf("a failing test passed: %+v", got)
	}
	if !strings.Contains(got["authz_test.test_prints"].Output, "hello") {
		t.Errorf("test_prints: %+v", got["authz_test.test_prints"])
	}
	if !got["authz_test.todo_test_later"].Skipped {
		t.Errorf("todo: %+v", got["authz_test.todo_test_later"])
	}
	if len(report.Failed()) != 2 {
		t.Errorf("failed: %+v", report.Failed())
	}
	if report.Coverage <= 0 || report.Coverage >= 100 {
		t.Errorf("coverage is %v of %v", report.Coverage, report.NotCovered)
	}
}

func TestEveryCaseOfAParameterisedTestIsAResult(t *testing.T) {
	src := source("package authz\nallow if input.context.n < 3", "")
	src.Tests = []rego.Module{{Path: "authz_test.rego", Source: []byte(`package authz_test
import data.authz
test_table[name] if {
	some name, n in {"one": 1, "two [2]": 2, "four": 4}
	authz.allow with input.context.n as n
}
test_nested[a][b] if {
	some a, rows in {"x": {"y": 1, "z": 5}, "w": {"v": 1}}
	some b, n in rows
	authz.allow with input.context.n as n
}
test_numbers[n] if {
	some n in [1, 2]
	authz.allow with input.context.n as n
}
test_errs[name] if {
	some name, n in {"good": "1", "bad": "x"}
	print(name)
	to_number(n) == 1
}
todo_test_later[name] if {
	some name in ["a"]
	false
}
test_plain if true
`)}}
	report, err := rego.Test(t.Context(), src, rego.TestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	failed := map[string]bool{}
	var order []string
	for _, r := range report.Results {
		if _, ok := failed[r.Name]; ok {
			t.Errorf("%s is there twice", r.Name)
		}
		failed[r.Name] = r.Failure != ""
		order = append(order, r.Name)
		if r.File != "authz_test.rego" || r.Line == 0 {
			t.Errorf("%s is at %s:%d", r.Name, r.File, r.Line)
		}
		if strings.HasPrefix(r.Name, "authz_test.test_errs") && !strings.Contains(r.Output, "bad") {
			t.Errorf("%s wrote %q", r.Name, r.Output)
		}
		if r.Skipped != (r.Name == "authz_test.todo_test_later") {
			t.Errorf("%s: skipped is %v", r.Name, r.Skipped)
		}
	}
	want := map[string]bool{
		"authz_test.test_table[one]": false, "authz_test.test_table[two [2]]": false, "authz_test.test_table[four]": true,
		"authz_test.test_nested[x][y]": false, "authz_test.test_nested[x][z]": true, "authz_test.test_nested[w][v]": false,
		"authz_test.test_numbers[1]": false, "authz_test.test_numbers[2]": false,
		"authz_test.test_errs[good]": false, "authz_test.test_errs[bad]": true, "authz_test.test_errs": true,
		"authz_test.todo_test_later": false, "authz_test.test_plain": false,
	}
	if !maps.Equal(failed, want) {
		t.Errorf("got  %v\nwant %v", failed, want)
	}
	if order[0] != "authz_test.test_table[four]" || order[len(order)-1] != "authz_test.test_plain" {
		t.Errorf("order is %q", order)
	}
}
