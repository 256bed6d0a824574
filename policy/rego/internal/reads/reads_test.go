package reads_test

import "testing"

// A ruleRead names, for a construct of the language, the paths that allow reads
// through it.
type ruleRead struct{ name, rego, want string }

func (r ruleRead) question(t testing.TB) *question {
	t.Helper()
	return ask(t, "data.authz.allow", "package authz\n"+r.rego, "package rules\np if input.p == 1\nq if input.q.r == 1")
}

func TestWhatARuleReads(t *testing.T) {
	for _, r := range ruleReads {
		t.Run(r.name, func(t *testing.T) {
			if got := setOf(t, r.question(t)).String(); got != r.want {
				t.Errorf("got  %s\nwant %s", got, r.want)
			}
		})
	}
}

var ruleReads = []ruleRead{
	{"a rule without input", `allow if data.open`, `nothing`},
	{"a lookup reads the one path", `allow if input.a.b == "x"`, `input.a.b`},
	{"lookups in two places", `allow if { input.a.b == "x"; input.a.c == "y" }`, `input.a.b, input.a.c`},
	{"what is above covers what is below", `allow if { input.a.b == "x"; input.a == {} }`, `input.a`},
	{"a lookup that only has to succeed", `allow if { x := input.a.b; true }`, `input.a.b`},
	{"names that are no identifiers", `allow if input["a b"]["c.d"]`, `input["a b"]["c.d"]`},
	{"the element of an array is not the member of that name", `allow if { input.a[0] == 1; input.b["0"] == 1 }`, `input.a[0], input.b["0"]`},
	{"both in the same place", `allow if { input.a[0] == 1; input.a["0"] == 1 }`, `input.a[0], input.a["0"]`},
	{"an odd spelling of an index", `allow if input.a[1.0] == 1`, `input.a`},
	{"keys that JSON does not have", `allow if { input.a[true] == 1; input.b[null] == 1 }`, `input.a[true], input.b[null]`},
	{"a composite key", `allow if input.a[[1]] == 1`, `input.a`},

	{"a variable", `allow if { u := input.user; u.id == "x"; u.name == "y" }`, `input.user.id, input.user.name`},
	{"a variable for a key", `allow if { k := "id"; input.user[k] == "x" }`, `input.user.id`},
	{"a variable for an index", `allow if { i := 2; input.list[i] == "x" }`, `input.list[2]`},
	{"a variable that is not used any more", `allow if { u := input.user; not u.blocked }`, `input.user.blocked`},
	{"a name for the input", `allow if { i := input; i.a == 1 }`, `input.a`},
	{"the input by itself", `allow if input`, `input`},
	{"not", `allow if not input.a.b`, `input.a.b`},
	{"a key from data", `allow if input.a[data.key] == 1`, `input.a`},
	{"a key from the input", `allow if data.a[input.k.l] == 1`, `input.k.l`},
	{"a key from the input, into the input", `allow if input.a[input.k] == 1`, `input.a, input.k`},

	{"iteration by some in", `allow if { some x in input.list; x.id == 1 }`, `input.list`},
	{"iteration by a variable", `allow if input.list[_].id == 1`, `input.list`},
	{"iteration over data with a key from the input", `allow if { some i; data.list[i] == input.a[i] }`, `input.a`},
	{"every", `allow if every x in input.list { x > 1 }`, `input.list`},
	{"every over data", `allow if every x in data.list { x > input.min }`, `input.min`},
	{"membership", `allow if input.user.role in {"a", "b"}`, `input.user.role`},
	{"an array comprehension", `allow if count([x | x := data.list[_]; x == input.a.b]) > 0`, `input.a.b`},
	{"a set comprehension of a value of the input", `allow if {x | data.list[_]; x := input.a.b} == {1}`, `input.a.b`},
	{"an object comprehension of values of the input", `allow if {k: v | data.list[_]; k := input.k.x; v := input.v.x} == {}`, `input.k.x, input.v.x`},
	{"an array of values of the input", `allow if data.x == [input.a.b, input.c]`, `input.a.b, input.c`},
	{"a set of values of the input", `allow if data.x == {input.a.b}`, `input.a.b`},
	{"an object of values of the input", `allow if data.x == {"k": input.a.b, input.k: 1}`, `input.a.b, input.k`},
	{"unification with an array", `allow if { [x, "y"] = input.list; x == 1 }`, `input.list`},
	{"unification with an object", `allow if { {"k": x} = input.object; x == 1 }`, `input.object`},

	{"a comparison", `allow if input.a < input.b.c`, `input.a, input.b.c`},
	{"a built-in", `allow if startswith(input.a.b, "x")`, `input.a.b`},
	{"a built-in over a whole value", `allow if count(input.a) > 0`, `input.a`},
	{"a relation", `allow if { walk(input.a, [p, v]); v == 1 }`, `input.a`},
	{"a template", `allow if $"<{input.a.b}>" == "x"`, `input.a.b`},

	{"object.get with a key", `allow if object.get(input.a, "b", 0) == 1`, `input.a.b`},
	{"object.get with a path", `allow if object.get(input, ["a", "b", 0], false)`, `input.a.b[0]`},
	{"object.get with a path in a variable", `allow if { p := ["a", "b"]; object.get(input.x, p, 0) == 1 }`, `input.x.a.b`},
	{"object.get goes on", `allow if object.get(input, "a", {}).b == 1`, `input.a.b`},
	{"object.get with a default of the input", `allow if object.get(input.a, "b", input.c).d == 1`, `input.a.b.d, input.c.d`},
	{"object.get with a key of the input", `allow if object.get(input.a, input.k, 0) == 1`, `input.a, input.k`},
	{"object.get with a path that is partly of the input", `allow if object.get(input.a, ["b", input.k], 0) == 1`, `input.a, input.k`},
	{"object.get with the empty path", `allow if object.get(input.a, [], 0).b == 1`, `input.a`},
	{"object.get on data", `allow if object.get(data.a, input.k, 0) == 1`, `input.k`},

	{"another rule", "allow if admin\nadmin if input.role == \"admin\"", `input.role`},
	{"a rule that names a part of the input", "allow if user.id == 1\nuser := input.subject.properties", `input.subject.properties.id`},
	{"a rule that names it in two ways", "allow if user.id == 1\nuser := input.a if data.x\nuser := input.b if not data.x", `input.a, input.b`},
	{"a rule with a default", "allow if user.id == 1\ndefault user := {}\nuser := input.a if data.x", `input.a.id`},
	{"a rule with else", "allow if user.id == 1\nuser := input.a if data.x\nelse := input.b if data.y\nelse := {}", `input.a.id, input.b.id`},
	{"a rule that names a key", "allow if input.user[attribute] == 1\nattribute := \"level\"", `input.user.level`},
	{"a rule that names one of two keys", "allow if input.user[attribute] == 1\nattribute := \"b\" if data.x\nelse := \"c\"", `input.user.b, input.user.c`},
	{"a function", "allow if f(input.a)\nf(x) if x.b == 1", `input.a.b`},
	{"a function of the input", "allow if f(input)\nf(x) if x.b == 1", `input.b`},
	{"a function in two ways", "allow if { f(input.a); f(input.b) }\nf(x) if x.c == 1", `input.a.c, input.b.c`},
	{"a function that returns a part", "allow if f(input.a).c == 1\nf(x) := x.b", `input.a.b.c`},
	{"a function of a key", "allow if { f(\"a\"); f(\"b\") }\nf(k) if input.x[k] == 1", `input.x.a, input.x.b`},
	{"a function that compares", "allow if f(input.a, input.b.c)\nf(x, y) if x == y", `input.a, input.b.c`},
	{"a function that takes a value apart", "allow if f(input.a)\nf({\"k\": 1})", `input.a`},
	{"a function that tells constants apart", "allow if f(\"x\", input.a)\nf(\"x\", v) if v.b == 1\nf(\"y\", v) if v.c == 1", `input.a.b, input.a.c`},
	{"a function through another", "allow if f(input.a)\nf(x) if g(x.b)\ng(y) if y.c == 1", `input.a.b.c`},
	{"a partial set", "allow if \"x\" in names\nnames contains input.a.b", `input.a.b`},
	{"a partial object", "allow if table.k == 1\ntable[input.k.x] := input.v.x", `input.k.x, input.v.x`},
	{"a rule chosen at run time", "allow if data.rules[input.name.x]", `input.name.x, input.p, input.q.r`},
	{"all rules of a package", "allow if data.rules.p\nx := data.rules", `input.p`},
	{"a package as a value", "allow if data.rules == {}", `input.p, input.q.r`},

	{"with on the input", `allow if data.rules.p with input as {}`, `nothing`},
	{"with on the input, of a part of it", `allow if data.rules.p with input as input.inner`, `input.inner.p`},
	{"with on the input, of a value made of parts", `allow if data.rules.p with input as {"p": input.a.b}`, `input.a.b`},
	{"with and without", `allow if { data.rules.p; data.rules.p with input as input.inner }`, `input.inner.p, input.p`},
	{"with and without, chosen at run time", `allow if { data.rules[data.rule]; data.rules[data.rule] with input as input.inner }`,
		`input.inner.p, input.inner.q.r, input.p, input.q.r`},
	{"with and without, on data", "allow if { not r; r with data.d as input.a; input.a.b }\nr if data.d.c == 2", `input.a.b, input.a.c`},
	{"with on a part of the input", `allow if { data.rules.p with input.p as 1; data.rules.q with input.p as 1 }`, `input.q.r`},
	{"with on a part, of another part", `allow if data.rules.q with input.q as input.other`, `input.other.r`},
	{"with below what is read", `allow if data.rules.q with input.q.r as 1`, `nothing`},
	{"with beside what is read", `allow if data.rules.q with input.q.s as 1`, `input.q.r`},
	{"with below what is read whole", "allow if whole with input.q.s as input.a.b\nwhole if input.q == {}", `input.a.b, input.q`},
	{"with on a part, twice", `allow if data.rules.q with input.q as {} with input.q.r as input.z`, `input.z`},
	{"after with, the input is back", `allow if { data.rules.p with input as {}; input.q == 1 }`, `input.q`},
	{"after with of a part, the input is back", `allow if { data.rules.p with input as input.inner; input.q == 1 }`, `input.inner.p, input.q`},
	{"with on what object.get reads", "allow if { part == 1 with input.x as {}; part == 1 with input.q as input.z }\npart := object.get(input, [\"q\", \"r\"], input.x)",
		`input.q.r, input.x, input.z.r`},
	{"with in a loop", `allow if { some i in data.list; data.rules.q with input.q.s as i }`, `input.q.r`},
	{"with on data", `allow if data.conf.x.k == 1 with data.conf.x as input.a.b`, `input.a.b.k`},
	{"with on data that is iterated", `allow if data.conf.x[_] == 1 with data.conf.x as input.a.b`, `input.a.b`},
	{"with on a function", "allow if f(1) with f as input.a.b\nf(x) := x", `input.a.b`},
	{"with one function for another", "allow if f(input.a) with f as g\nf(x) if x.b\ng(x) if x.c", `input.a.c`},
	{"with a function for a built-in", "allow if count(input.a) == 1 with count as g\ng(x) := x.c", `input.a.c`},
	{"with a built-in for a function", "allow if f(input.a) == 1 with f as count\nf(x) := x.c", `input.a`},
	{"with on data, in a function under with", "allow if f(1) with f as g with data.conf.x as input.a\nf(x) := x\ng(x) if data.conf.x.y == x", `input.a.y`},

	{"a rule that is one of two parts, by turns",
		"allow if u.b == 1\nu := part(i) if some i in data.list\npart(i) := input.a if i == 1\nelse := input.c",
		`input.a, input.c`},
	{"a rule that is the input with one of two parts, by turns",
		"allow if u.k.b == 1\nu := i if { some n in data.list; i := whole with input.k as part(n) }\nwhole := input\npart(n) := input.a if n == 1\nelse := input.c",
		`input`},
	{"a rule that is the same part at every turn", "allow if u.c == 1\nu := input.a.b if some i in data.list", `input.a.b.c`},

	{"an answer of the input", `allow := input.a.b`, `input.a.b`},
	{"an answer that holds the input", `allow := {"k": input.a.b}`, `input.a.b`},
	{"the input as the answer", `allow := input`, `input`},
}
