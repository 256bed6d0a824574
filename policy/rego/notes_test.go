package rego_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// What compiles, and is most likely a mistake.
func TestWhatCheckNotes(t *testing.T) {
	const (
		asked  = " is used by nothing; only allow, deny, reasons and obligations of package authz are asked"
		always = "; it is always undefined"
		data   = `{"roles": {"admin": ["ann"], "a b": []}, "blocked": ["eve"], "limit": 5, "01": {}}`
	)
	for name, test := range map[string]struct {
		module string // of package authz, with an allow
		others []string
		tests  string
		want   []string
	}{
		"nothing": {module: `deny contains "x" if input.subject.id in data.blocked`},

		"a deny that nobody asks for": {module: `denies contains "x" if input.subject.id == "eve"`,
			want: []string{"authz.rego:3:1: authz.denies" + asked + " (did you mean deny?)"}},
		"two rules of it": {module: "default denied := false\ndenied if input.subject.id == \"a\"\ndenied if input.subject.id == \"b\"",
			want: []string{"authz.rego:3:1: authz.denied" + asked + " (did you mean deny?)"}},
		"in another case":          {module: `Deny contains "x"`, want: []string{"authz.rego:3:1: authz.Deny" + asked + " (did you mean deny?)"}},
		"with a key":               {module: `obligation["mfa"] := true`, want: []string{"authz.rego:3:1: authz.obligation" + asked + " (did you mean obligations?)"}},
		"with a path":              {module: `limits.max := 3`, want: []string{"authz.rego:3:1: authz.limits" + asked}},
		"a function":               {module: `is_admin(x) if x == "ann"`, want: []string{"authz.rego:3:1: authz.is_admin" + asked}},
		"a name of three letters":  {module: `any if true`, want: []string{"authz.rego:3:1: authz.any" + asked}},
		"a helper of what is none": {module: "denies contains \"x\" if banned\nbanned if input.subject.id == \"eve\"", want: []string{"authz.rego:3:1: authz.denies" + asked + " (did you mean deny?)"}},
		"one that only a test asks for": {module: `denies contains "x" if input.subject.id == "eve"`,
			tests: "package authz\ntest_x if \"x\" in denies with input.subject.id as \"eve\"",
			want:  []string{"authz.rego:3:1: authz.denies" + asked + " (did you mean deny?)"}},
		"one that only a test beside it asks for": {module: "denies contains \"x\"\ntest_x if \"x\" in denies", want: []string{"authz.rego:3:1: authz.denies" + asked + " (did you mean deny?)"}},
		"a deny of another package": {others: []string{"package authz.cart\ndeny contains \"x\""},
			want: []string{"other0.rego:2:1: authz.cart.deny" + asked + " (put it into package authz, or refer to it from there)"}},

		"helpers":                         {module: "deny contains \"x\" if banned\nbanned if f(input.subject.id)\nf(x) if x == limits.name\nlimits.name := \"eve\""},
		"a helper in an else":             {module: "deny contains \"x\" if b\nb := false if input.subject.id == \"a\"\nelse := h\nh := true"},
		"a helper in a head":              {module: "deny contains why\nwhy := \"x\""},
		"a helper in place of a function": {module: "deny contains \"x\" if count([]) == 1 with count as one\none(_) := 1"},
		"a helper for another package":    {module: "deny contains \"x\" if data.lib.f\nh := true", others: []string{"package lib\nimport data.authz.h\nf if h"}},
		"a helper by its name":            {module: `deny contains "x" if data.lib[input.action.name]`, others: []string{"package lib\nf if data.authz.parts.x", "package authz.parts\nx := true"}},
		"tests and libraries":             {module: "test_a if true\ntodo_test_b if true", others: []string{"package lib\nunused := 1", "package authz.lib"}},
		"an allow that is asked for":      {module: `deny contains "x" if not data.lib.allow`, others: []string{"package lib\nallow if input.subject.id == \"a\""}},

		"the whole input": {module: "deny contains x if some x in input",
			want: []string{"authz.rego:3:20: the whole input is iterated, so that no decision is remembered for longer than a second, nor for another request that differs in anything (read the parts that it depends on)"}},
		"the whole time": {module: "deny contains \"x\" if count(input.time) == 1",
			want: []string{"authz.rego:3:22: input.time is an argument of count as a whole, so that no decision is remembered for longer than a second (read the parts that it depends on, such as input.time.hour)"}},
		"the whole context": {module: "deny contains \"x\" if \"y\" in object.keys(input.context)",
			want: []string{"authz.rego:3:29: input.context is an argument of object.keys as a whole, so that no decision is remembered for another request whose context differs in anything, such as a trace ID (read the parts that it depends on)"}},
		"parts of the context": {module: "deny contains \"x\" if { object.get(input.context, \"a\", 1) == 2; input.context.b.c == 3 }"},
		"parts of the time":    {module: `deny contains "x" if input.time.hour < 8`},

		"data that is not there": {module: `deny contains "x" if input.subject.id in data.blokced`,
			want: []string{"authz.rego:3:47: the bundle has no data.blokced" + always + " (did you mean data.blocked?)"}},
		"every place of it": {module: "deny contains \"x\" if data.blokced.a\ndeny contains \"y\" if data.blokced.b", want: []string{"authz.rego:3:27: the bundle has no data.blokced" + always + " (did you mean data.blocked?)"}},
		"below data that is there": {module: `deny contains "x" if input.subject.id in data.roles.admins`,
			want: []string{"authz.rego:3:53: the bundle has no data.roles.admins" + always + " (did you mean data.roles.admin?)"}},
		"a name with a space": {module: `deny contains "x" if data.roles["a-b"][_] == "x"`, want: []string{"authz.rego:3:33: the bundle has no data.roles[\"a-b\"]" + always + " (did you mean data.roles[\"a b\"]?)"}},
		"below an array":      {module: `deny contains "x" if data.blocked.eve`, want: []string{"authz.rego:3:35: the bundle has no data.blocked.eve" + always}},
		"beyond an array":     {module: `deny contains "x" if data.blocked[1]`, want: []string{"authz.rego:3:35: the bundle has no data.blocked[1]" + always}},
		"below a number":      {module: `deny contains "x" if data.limit.max`, want: []string{"authz.rego:3:33: the bundle has no data.limit.max" + always}},
		"far from every name": {module: `deny contains "x" if data.callers.x`, want: []string{"authz.rego:3:27: the bundle has no data.callers" + always}},
		"by an import":        {module: "import data.role\ndeny contains \"x\" if role.admin", want: []string{"authz.rego:5:22: the bundle has no data.role" + always + " (did you mean data.roles?)"}},
		"in a comprehension":  {module: `deny contains "x" if count([r | some r in data.role]) > 1`, want: []string{"authz.rego:3:48: the bundle has no data.role" + always + " (did you mean data.roles?)"}},
		"behind a not":        {module: `deny contains "x" if not data.role[input.subject.id]`, want: []string{"authz.rego:3:31: the bundle has no data.role" + always + " (did you mean data.roles?)"}},
		"a rule that is not there": {module: `deny contains "x" if data.lib.bannd`, others: []string{"package lib\nbanned := true"},
			want: []string{"authz.rego:3:31: the bundle has no data.lib.bannd" + always + " (did you mean data.lib.banned?)"}},
		"a test's data": {module: `deny contains "x" if data.blokced.a`, tests: "package authz_test\ntest_x if data.authz.deny[_] with data.blokced as {\"a\": true}",
			want: []string{"authz.rego:3:27: the bundle has no data.blokced" + always + " (did you mean data.blocked?)"}},

		"data that may be there":      {module: `deny contains "x" if { data.roles[input.action.name]; data.blocked[0]; data.roles.admin[_] == "x"; data["01"] }`},
		"below a rule":                {module: `deny contains "x" if data.lib.rules.a.b`, others: []string{"package lib\nrules[x] := y if some x, y in data.roles"}},
		"below a rule with a path":    {module: `deny contains "x" if { data.lib.a.b.c; data.lib.a[input.action.name] }`, others: []string{"package lib\na.b[x] := y if some x, y in data.roles"}},
		"packages":                    {module: `deny contains "x" if { data.lib; data.lib.empty; data.lib.f(1) }`, others: []string{"package lib.empty", "package lib\nf(x) := x"}},
		"data beside a package":       {module: `deny contains "x" if { data.roles.admin; data.roles.more }`, others: []string{"package roles\nmore := 1"}},
		"data that a policy puts":     {module: "deny contains \"x\" if h with data.own.user as input.subject.id\nh if { data.own.user == \"x\"; data.own.user.name == \"y\" }"},
		"data of which a policy puts": {module: "deny contains \"x\" if h with data.own.user as input.subject.id\nh if count(data.own) == 1"},

		"patterns":                         {module: "deny contains \"x\" if { regex.match(`a+`, input.subject.id); glob.match(`a*`, [], input.subject.id); net.cidr_contains(`10.0.0.0/8`, input.subject.id) }"},
		"a large pattern that is prepared": {module: "deny contains \"x\" if regex.match(`(" + strings.Repeat("a", 64) + "){1000}`, input.subject.id)"},
		"a pattern that depends":           {module: `deny contains "x" if regex.match(input.context.a, "(")`},
		"a function in place":              {module: "deny contains \"x\" if h with regex.match as f\nh if regex.match(`(`, \"a\")\nf(_, _) := true"},
	} {
		t.Run(name, func(t *testing.T) {
			module := "package authz\nallow if input.action.name == \"Get\"\n" + test.module
			if imports, rest, ok := strings.Cut(test.module, "\n"); ok && strings.HasPrefix(imports, "import ") {
				module = "package authz\n\n" + imports + "\nallow if input.action.name == \"Get\"\n" + rest
			}
			src := source(module, data)
			for i, other := range test.others {
				src.Modules = append(src.Modules, rego.Module{Path: "other" + string(rune('0'+i)) + ".rego", Source: []byte(other)})
			}
			if test.tests != "" {
				src.Tests = []rego.Module{{Path: "authz_test.rego", Source: []byte(test.tests)}}
			}
			report, err := rego.Check(t.Context(), src)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, n := range report.Notes {
				got = append(got, n.String())
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

// A call that its constants let fail is noted, and fails.
func TestCheckNotesCallsThatMustFail(t *testing.T) {
	const (
		wrong  = "; every decision that reaches this call is an error"
		costly = " would take too much here; every decision that reaches this call goes over its budget"
	)
	large := "(" + strings.Repeat("a", 640) + "){1000}"
	for call, want := range map[string]string{
		"regex.match(`(a`, input.subject.id)":                                 "regex.match: error parsing regexp: missing closing ): `(a`" + wrong,
		"count([x | x := regex.find_n(`*`, input.subject.id, -1)]) > 0":       "regex.find_n: error parsing regexp: missing argument to repetition operator: `*`" + wrong,
		"regex.split(`[`, input.subject.id) == []":                            "regex.split: error parsing regexp: missing closing ]: `[`" + wrong,
		"regex.replace(input.subject.id, `(`, ``) == ``":                      "regex.replace: error parsing regexp: missing closing ): `(`" + wrong,
		"regex.find_all_string_submatch_n(`(`, input.subject.id, 1) == []":    "regex.find_all_string_submatch_n: error parsing regexp: missing closing ): `(`" + wrong,
		"regex.template_match(`a{b`, input.subject.id, `{`, `}`)":             `regex.template_match: unbalanced braces in "a{b"` + wrong,
		"glob.match(`[a`, [], input.subject.id)":                              "glob.match: ",
		"net.cidr_contains(`10.0.0/8`, input.subject.id)":                     "net.cidr_contains: invalid CIDR address: 10.0.0/8" + wrong,
		"not regex.match(`(a`, input.subject.id)":                             "regex.match: ",
		"every x in [input.subject.id] { regex.match(`(a`, x) }":              "regex.match: ",
		"regex.match(`" + large + "`, input.subject.id)":                      "regex.match" + costly,
		"regex.template_match(`{" + large + "}`, input.subject.id, `{`, `}`)": "regex.template_match" + costly,
	} {
		name, _, _ := strings.Cut(call, "aaa")
		t.Run(name, func(t *testing.T) {
			src := source("package authz\nallow := true\n\ndeny contains \"x\" if {\n\t"+call+"\n}", "")
			report, err := rego.Check(t.Context(), src)
			if err != nil {
				t.Fatal(err)
			}
			if len(report.Notes) != 1 || report.Notes[0].Line != 5 || !strings.HasPrefix(report.Notes[0].Message, want) {
				t.Errorf("got %.2000v, want %q", report.Notes, want)
			}
			p, err := rego.Compile(t.Context(), src, rego.Options{})
			if err != nil {
				t.Fatal(err)
			}
			r := request(t)
			if got, err := p.Evaluate(t.Context(), rego.NewInput(&r, noon)); policy.KindOf(err) != policy.Failed {
				t.Errorf("got %+v and error %v, want kind failed", got, err)
			}
		})
	}
}
