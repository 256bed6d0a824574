package reads_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/microwall/microwall/policy/rego/internal/reads"
)

func name(s string) reads.Key { return reads.Key{Kind: reads.String, Text: s} }

func index(s string) reads.Key { return reads.Key{Kind: reads.Number, Text: s} }

func TestAuthorSeesTheLineThatReads(t *testing.T) {
	for _, tc := range []struct{ name, rego, want string }{
		{"a comparison", "allow if {\n\tinput.action.name == \"x\"\n}", "m0.rego:3: input.action.name is compared"},
		{"an iteration", "allow if {\n\tinput.user\n\tsome r in input.roles\n\tr == \"x\"\n}",
			"m0.rego:4: input.roles is iterated\nm0.rego:3: input.user is compared"},
		{"the first of two lines", "allow if {\n\tinput.list[_] == 1\n\tcount(input.list) == 1\n}", "m0.rego:3: input.list is iterated"},
		{"the line that widens", "allow if {\n\tinput.user.name == \"x\"\n\tinput.user.id == 1\n\tcount(input.user) == 2\n}",
			"m0.rego:5: input.user is an argument of count"},
		{"the line that widens to the whole input", "allow if input.user.id == 1\n\nallow if {\n\tcontains(json.marshal(input), \"x\")\n}",
			"m0.rego:5: input is an argument of json.marshal"},
		{"the line in a function", "allow if f(input.user)\n\nf(x) if {\n\tcount(x) == 1\n}", "m0.rego:5: input.user is an argument of count"},
		{"an answer", "x := 1\n\nallow := u if x\n\nu := input.user", "m0.rego:4: input.user is part of the answer"},
		{"an answer with an element", "allow contains input.user", "m0.rego:2: input.user is put into a set"},
		{"a dynamic key", "allow if {\n\tk := data.k\n\tinput.user[k] == 1\n}",
			"m0.rego:4: input.user is looked into with a key that is not constant"},
		{"a lookup that only has to succeed", "allow if {\n\tx := input.user\n\tdata.x\n}", "m0.rego:3: input.user is looked up"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var lines []string
			for _, r := range setOf(t, ask(t, "data.authz.allow", "package authz\n"+tc.rego)).Reads() {
				lines = append(lines, r.String())
			}
			if got := strings.Join(lines, "\n"); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
}

func TestSetKnowsWhatIsInIt(t *testing.T) {
	set := setOf(t, ask(t, "data.authz.allow", `package authz
allow if { input.time.hour > 8; input.path[2] == "x"; input.path["10"] == 1; input.path[10] == 1; input["time"].minute; input.a == {} }`))
	if want := `input.a, input.path[2], input.path[10], input.path["10"], input.time.hour, input.time.minute`; set.String() != want {
		t.Fatalf("reads %v, want %s", set, want)
	}
	for _, tc := range []struct {
		path               reads.Path
		contains, overlaps bool
	}{
		{nil, false, true},
		{reads.Path{name("time")}, false, true},
		{reads.Path{name("time"), name("hour")}, true, true},
		{reads.Path{name("time"), name("hour"), name("x")}, true, true},
		{reads.Path{name("time"), name("date")}, false, false},
		{reads.Path{name("time"), name("i")}, false, false},
		{reads.Path{name("path"), index("2")}, true, true},
		{reads.Path{name("path"), name("2")}, false, false},
		{reads.Path{name("path"), name("10")}, true, true},
		{reads.Path{name("path"), index("9")}, false, false},
		{reads.Path{name("a"), name("b"), index("0")}, true, true},
		{reads.Path{name("b")}, false, false},
		{reads.Path{name("z")}, false, false},
	} {
		if set.Contains(tc.path) != tc.contains || set.Overlaps(tc.path) != tc.overlaps {
			t.Errorf("%v: contains %v, overlaps %v", tc.path, set.Contains(tc.path), set.Overlaps(tc.path))
		}
	}
	paths := set.Paths()
	slices.Reverse(paths)
	if slices.Equal(set.Paths()[0], paths[0]) {
		t.Error("the set changes with what it handed out")
	}
}

func TestWholeSetIsTheInput(t *testing.T) {
	set := setOf(t, ask(t, "data.authz.allow", "package authz\nallow := input"))
	if !set.Whole() || len(set.Paths()) != 1 || len(set.Paths()[0]) != 0 || !set.Contains(reads.Path{name("a")}) || !set.Overlaps(nil) {
		t.Errorf("reads %v", set)
	}
}

func TestNoSetIsEmpty(t *testing.T) {
	var set *reads.Set
	if set.Whole() || set.Overlaps(nil) || set.Paths() != nil || set.Reads() != nil || set.String() != "nothing" {
		t.Errorf("reads %v", set)
	}
}

func TestKeyKnowsItsIndex(t *testing.T) {
	if n, ok := index("12").Index(); !ok || n != 12 {
		t.Error(n, ok)
	}
	if _, ok := name("12").Index(); ok {
		t.Error("a name is an index")
	}
}
