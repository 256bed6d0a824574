package exec_test

import (
	"strings"
	"testing"
)

// TestAttackAnswers holds what was found, or nearly, by reading the evaluator as
// an attacker would, against the reference.
func TestAttackAnswers(t *testing.T) {
	for _, c := range attacks {
		t.Run(c.name, func(t *testing.T) {
			a, err := attack(t, c.modules, c.data, "x = data.p")
			if err != nil {
				if c.refused == "" || !strings.Contains(err.Error(), c.refused) {
					t.Fatal(err)
				}
				return // an error at activation is no answer
			}
			for _, input := range c.inputs {
				if difference, _ := a.compare(t, input); difference != "" {
					t.Errorf("input %s: %s", input, difference)
				}
			}
		})
	}
}

var attacks = []struct {
	name, modules, data string
	inputs              []string
	refused             string // what may be said instead
}{
	{
		name: "spell a path of one name like one of two",
		modules: `package p
q if { input["a\u0000b"] == "x"; input.a.b == "y" }
r if { input.a.b == "y"; input["a\u0000b"] == "y" }
s if { data["a\u0000b"] == "x"; data.a.b == "y" with input as 1 }
`,
		data:   `{"a": {"b": "y"}, "a\u0000b": "x"}`,
		inputs: []string{`{"a": {"b": "y"}, "a\u0000b": "x"}`, `{"a": {"b": "y"}, "a\u0000b": "y"}`, `{"a": {"b": "y"}}`, `{"a\u0000b": "y"}`},
	},
	{
		name: "spell a path of one name like one of two, in an index",
		modules: `package p
q contains 1 if { input.a.b == "1" }
q contains 2 if { input.a.b == "2" }
q contains 3 if { input.a.b == "3" }
q contains 4 if { input.a.b == "4" }
q contains 5 if { input["a\u0000b"] == "5" }
q contains 6 if { input["a\u0000b"] == "6" }
q contains 7 if { input["a\u0000b"] == "7" }
q contains 8 if { input["a\u0000b"] == "8" }
`,
		inputs: []string{`{"a": {"b": "1"}, "a\u0000b": "5"}`, `{"a": {"b": "5"}, "a\u0000b": "1"}`, `{"a\u0000b": "5"}`, `{"a": {"b": "1"}}`},
	},
	{
		name: "replace the input by a local that saves it in another rule",
		modules: `package p
r := input.a
q contains [1, z] if { z := r with input as {"a": 1} }
q contains [2, z] if { z := r with input as input.c }
q contains [3, z, r] if { z := r with input as input.l[0] }
q contains [4, z, r] if { some y in input.l; z := r with input as y }
q contains [5, z, r] if { r; some y in input.l; z := r with input as y }
q contains [6, z, r] if { some y in [{"a": input.b}]; z := r with input as y }
`,
		inputs: []string{`{"a": 9, "b": 7, "c": {"a": 8}, "l": [{"a": 3}]}`, `{"a": 9, "c": 1, "l": [{}]}`},
	},
	{
		name: "replace data by a local that saves it in another rule",
		modules: `package p
r := data.a.b
q contains [1, z] if { z := r with data.a.b as 1 }
q contains [2, z, r] if { z := r with data.a as input.l[0] }
q contains [3, z, r] if { some y in input.l; z := r with data.a as y }
q contains [4, z, r] if { r; some y in input.l; z := r with data.a as y }
`,
		data:   `{"a": {"b": 5}}`,
		inputs: []string{`{"l": [{"b": 3}]}`, `{"l": [{}, {"b": 4}]}`},
	},
	{
		name: "hide what a default cannot compute behind an early exit",
		modules: `package p
default f(_) := [y | y := to_number(input.a)]
f(x) := 1 if x == 1
q if { some x in input.l; f(x) == 1 }
`,
		inputs: []string{`{"a": "x", "l": [1, 2]}`, `{"a": "1", "l": [1, 2]}`, `{"a": "x", "l": [1]}`},
	},
	{
		name: "hide what a default cannot compute behind an index",
		modules: `package p
default f(_) := [y | y := to_number(input.a)]
f(x) := 1 if x == 1
q contains 1 if { f(input.z); input.x == 1 }
q contains 2 if { f(input.z); input.x == 2 }
q contains 3 if { f(input.z); input.x == 3 }
q contains 4 if { f(input.z); input.x == 4 }
q contains 5 if { f(input.z); input.x == 5 }
q contains 6 if { f(input.z); input.x == 6 }
q contains 7 if { f(input.z); input.x == 7 }
q contains 8 if { f(input.z); input.x == 8 }
`,
		inputs: []string{`{"a": "x", "z": 2, "x": 9}`, `{"a": "x", "z": 2, "x": 1}`, `{"a": "x", "z": 1, "x": 1}`},
	},
	{
		name: "give equal results that are spelled otherwise",
		modules: `package p
r := 1 if input.a
r := 1.0 if input.b
q := json.marshal(r)
f(_) := 0 if input.a
f(_) := -0 if input.b
s := json.marshal(f(1))
`,
		inputs: []string{`{"a": true}`, `{"b": true}`, `{"a": true, "b": true}`, `{"a": false, "b": true}`},
	},
	{
		name: "look rules up dynamically where a function is replaced by a variable's value",
		modules: `package p
q contains [x, y] if { some x in ["a", "b"]; some v in [8, 9]; y := data.lib[x] with count as v }
n contains x if { some x in ["a", "b"]; some v in [8, 9]; not data.lib[x] with count as v }
c contains y if { some v in [8, 9]; y := data.lib.c with count as v }
d contains y if { some v in [8, 9]; some w in [6]; y := data.lib.c with sum as w with count as v }
e contains y if { some v in [8, 9]; some w in [6]; y := data.lib.e with count as v }
---
package lib
a := count([1]) + sum([2])
b := 1
c := [y | some x in ["a"]; y := data.other[x]]
e := [y | some w in [5]; some x in ["a", "b"]; y := data.other[x] with sum as w]
---
package other
a := count([1, 1]) + sum([3])
b := sum([4])
`,
		inputs:  []string{`{}`},
		refused: "a reference that only the evaluation resolves",
	},
	{
		name: "look elements of the base document up by strings, and names by numbers",
		modules: `package p
q contains 1 if data.a["0"] == 1
q contains 2 if { x := data.a; x["0"] == 1 }
q contains 3 if data.a[0] == 1
q contains 4 if data.o[2] == 1
q contains 5 if { x := data.o; x[2] == 1 }
q contains [6, k] if { some k in input.k; data.o[k] == 1 }
q contains [7, k] if { some k in input.k; x := data.o; x[k] == 1 }
q contains [8, k] if { some k in input.k; data.a[k] == 1 }
q contains [9, k] if { some k in input.k; not data.a[k] }
q contains [10, k] if { some k in input.k; data.l["0"].o[k] == 1 }
`,
		data:   `{"a": [1, 1], "o": {"2": 1}, "l": [{"o": {"2": 1}}]}`,
		inputs: []string{`{"k": [2, 2.0, "2", 0, "0", 1, "1", "01", "+1", "-1", "00", -0, null]}`},
	},
	{
		name: "look names up by numbers in data that is replaced",
		modules: `package p
q contains 1 if { data.o[2] == 1 with data.o as {"2": 1} }
q contains 2 if { data.o[2] == 1 with data.o as {2: 1} }
q contains 3 if { some k in [2]; data.o[k] == 1 with data.o as {2: 1} }
q contains 4 if { some k in [2]; data.o[k] == 1 with data.o as {"2": 1} }
q contains 5 if { data.o["2"] == 1 with data.o as {2: 1} }
q contains 6 if { data.o["2"] == 1 with data.o as {"2": 1} }
q contains 7 if { data.o[2] == 1 with data.z as 1 }
q contains 8 if { data.a["0"] == 1 with data.z as 1 }
q contains 9 if { data.a["0"] == 1 with data.a as [1] }
q contains 10 if { not data.o[2] with data.o as {"2": 1} }
`,
		data:   `{"o": {"2": 1}, "a": [1]}`,
		inputs: []string{`{}`},
	},
	{
		name: "look a number up among rules and base data that must both be gone through",
		modules: `package p
q contains [x, y] if { some x in input.l; y := data.lib[x] }
n contains x if { some x in input.l; not data.lib[x] }
---
package lib
a := 1
d.z := 3 if input.c
`,
		data:   `{"lib": {"2": 5, "d": {"y": 1}}}`,
		inputs: []string{`{"l": [2, "2", "a", "d", null, 0]}`, `{"c": 1, "l": [2, "d"]}`},
	},
	{
		name: "negate what rules of several names are looked up in",
		modules: `package p
a contains x if { some x in input.l; not data.lib[x] }
b contains x if { some x in input.l; not data.lib[x].z }
c contains x if { some x in input.l; not data.lib[x] == 2 }
d contains x if { some x in input.l; not data.lib[x].z == 2 }
e contains x if { some x in input.l; not {x} == {data.lib[x]} }
f contains x if { some x in input.l; not data.lib[x] with input.c as 1 }
g if { not data.lib[input.l[0]] }
h if { not data.lib[input.l[0]].z }
---
package lib
a := 1
b := {"z": 2}
c := false
d := 3 if input.c
`,
		inputs: []string{`{"l": ["a", "b", "c", "d", "y", null, 1]}`, `{"l": ["b"]}`, `{"l": ["b"], "c": 1}`, `{"l": ["z"], "c": 1}`},
	},
	{
		name: "negate what rules of several names and base data are looked up in",
		modules: `package p
a contains x if { some x in input.l; not data.lib[x] }
b contains x if { some x in input.l; not data.lib[x].z }
c contains x if { some x in input.l; not data.lib[x] == 2 }
h if { not data.lib[input.l[0]].z }
---
package lib
a := 1
b := {"z": 2}
c := false
d := 3 if input.c
`,
		data:   `{"lib": {"y": {"z": 2}}}`,
		inputs: []string{`{"l": ["a", "b", "c", "d", "y", null, 1]}`, `{"l": ["b"]}`, `{"l": ["y"], "c": 1}`, `{"l": ["z"]}`},
	},
	{
		name: "negate what packages inside packages are looked up in",
		modules: `package p
q if { not data.roles[input.role] }
r if { not data.roles[input.role].x }
s contains x if { some x in [input.role, "admin"]; not data.roles[x] == 1 }
t contains x if { some x in [input.role, "admin"]; not data.roles[x] with input.a as 1 }
---
package roles
admin := 1
---
package roles.sub
x := 1
`,
		inputs: []string{`{"role": "none"}`, `{"role": "admin"}`, `{"role": "sub"}`},
	},
	{
		name: "negate what packages inside packages and base data are looked up in",
		modules: `package p
q if { not data.roles[input.role] }
r if { not data.roles[input.role].x }
s contains x if { some x in [input.role, "admin"]; not data.roles[x] == 1 }
---
package roles
admin := 1
---
package roles.sub
x := 1
`,
		data:   `{"roles": {"z": 1}}`,
		inputs: []string{`{"role": "none"}`, `{"role": "admin"}`, `{"role": "sub"}`, `{"role": "z"}`},
	},
	{
		name: "negate bodies, in a loop",
		modules: `package p
import rego.v2
q contains x if { some x in input.l; not { some y in x; y == 1 } }
r contains x if { some x in input.l; not { data.roles[x[0]] } }
s contains x if { some x in input.l; not { data.roles[x[0]] == 1 } }
t contains x if { some x in input.l; not { some y in x; not { some z in x; z > y } } }
u if { some x in input.l; not { some y in x; y == 1 } }
v if { every x in input.l { not { some y in x; y == 1 } } }
w contains x if { some x in input.l; not ({ some y in x; y == 1 } and { some y in x; y == 2 }) }
z contains x if { some x in input.l; data.roles[x[0]] or x[1] == 1 }
---
package roles
a := 1
---
package roles.sub
a := 1
`,
		inputs: []string{`{"l": [[1], [2]]}`, `{"l": [["a"], ["b"], ["sub"]]}`, `{"l": [["b", 1], ["a"]]}`, `{"l": [[1, 2], [], [2], [1, 1]]}`},
	},
	{
		name: "state something that only fails",
		modules: `package p
q if { some x in input.l; [1 | to_number(x)] }
r if { some x in input.l; {x: v | some v in [1, 2]} }
`,
		inputs: []string{`{"l": [1]}`, `{"l": ["x"]}`, `{"l": []}`},
	},
	{
		name: "come back from worlds inside worlds",
		modules: `package p
r := [input.a, data.d.x, count(input.l)]
t := [r, s] if { s := r with input.a as 7 }
n(_) := 70
u := [y, z, w] if { y := t with data.d.x as 8; z1 := count(input.l); z := t with input as {"a": y, "l": []} with data.d as {"x": z1}; w := r with count as n }
q contains [x, r, t] if { some i in input.l; x := u with input.a as i with data.d.x as i }
q contains [x, y, r] if { some i in input.l; x := u with input.a as i; some j in input.l; y := [u, t] with data.d.x as j with input.l as [i] }
q contains [x] if { every i in input.l { r[0] == i with input.a as i; r[1] == data.d.x; x0 := t with data.d.x as i; x0[0][1] == i; r[0] == input.a }; x := r }
q contains "not" if { not r[0] == 5 with input.a as 6; r[0] == 5; not r[0] == 6 with input.a as 6 }
q contains [c, r] if { c := [v | some i in input.l; v := [r, [w | w := r]] with input.a as i] }
q contains [c, r, 2] if { c := [v | some i in input.l; e := r with input.a as [i]; v := [r, e, r] with input.a as i] }
`,
		data:   `{"d": {"x": 1, "y": 2}}`,
		inputs: []string{`{"a": 5, "l": [1, 2]}`, `{"a": 5, "l": []}`, `{"a": 6, "l": [6, 5]}`, `{}`, `1`},
	},
	{
		name: "replace functions inside of worlds",
		modules: `package p
r := count(input.l)
s := r + 1
f(x) := x + r
g(_) := 100
m(_) := 7
q contains [1, x] if { x := s with count as m }
q contains [2, x, s] if { x := s with count as 5 with input.l as [1] }
q contains [3, x] if { x := f(1) with input.l as [1, 2, 3, 4] }
q contains [4, x] if { x := f(1) with f as g }
q contains [5, x] if { x := f(1) with count as g }
q contains [6, x] if { x := t }
q contains [7, x] if { x := t with input.l as [1] }
q contains [8, x] if { x := t with f as g with count as m with input.l as {1, 2} }
q contains [9, x, y, s] if { x := t with input.l as [1]; y := s with input.l as [x]; s }
q contains [10, x, y, z] if { some z in input.l; x := t with input.l as [z, z, z]; y := s with count as z; r == count(input.l) }
q contains [11, x, y, z] if { some z in input.l; y := s with count as z with input.l as [1, 1]; x := t with input.l as [z, z, z]; r == count(input.l) }
t := [x, y, s] if { x := s with input.l as [9, 9, 9, 9, 9]; y := f(2) with input.l as [] }
`,
		inputs: []string{`{"l": [1, 2]}`, `{"l": [3]}`, `{"l": [1, 2, 3]}`, `{"l": 1}`},
	},
	{
		name: "read a path again after the document was replaced",
		modules: `package p
r := input.a.b
q contains [x, y, input.a.b] if { x := input.a.b; y := input.a.b with input.a.b as 2; some i in [1, 2]; input.a.b == x }
q contains [x, y, z] if { some i in [1, 2]; x := r; y := r with input.a.b as i; z := input.a.b with input.a as {"b": i} }
q contains [x] if { x := [w | some i in [1, 2]; w := r with input.a.b as i] }
q contains [data.d.x, x, y] if { x := data.d.x with data.d.x as 5; some i in [1, 2]; y := data.d.x with data.d as {"x": i} }
`,
		data:   `{"d": {"x": 1}}`,
		inputs: []string{`{"a": {"b": 1}}`, `{"a": 1}`, `{}`},
	},
	{
		name: "put one rule's value into another's object, and add to it there",
		modules: `package p
o := {"b": {"c": 1}}
q[x] := o if { some x in input.l }
q[x].b.d := 2 if { some x in input.m }
w[x][y] := o.b if { some x in input.l; some y in input.m }
w[x][y].z := 1 if { some x in input.n; some y in input.m }
after := o
v[x] := input.obj if { some x in input.l }
v[x].k := 1 if { some x in input.m }
s[x][y] contains z if { some x in input.l; some y in input.m; some z in input.n }
s[x].a contains z if { some x in input.n; some z in input.l }
`,
		inputs: []string{
			`{"l": ["a"], "m": ["b"], "n": ["c"], "obj": {}}`, `{"l": ["a"], "m": ["a"], "n": ["c"], "obj": {}}`,
			`{"l": ["a"], "m": ["b"], "n": ["a"], "obj": {}}`, `{"l": ["a"], "m": [], "n": ["a"], "obj": {"k": 1}}`,
		},
	},
	{
		name: "merge packages that have only functions with base data",
		modules: `package p
q := data.lib
r := data.lib.x
---
package lib.x
f(x) := x
---
package lib.y
f(x) := x
r := 1 if input.a
`,
		data:   `{"lib": {"x": {"k": 1}, "z": 3}}`,
		inputs: []string{`{}`, `{"a": 1}`},
	},
	{
		name:    "spell numbers otherwise than an index",
		modules: numbersModule(),
		inputs:  numbersInputs(),
	},
}

var numbers = strings.Fields(`0 -0 0.0 0e5 1 1.0 1e0 10e-1 1e2 100.0 0.1e3 9007199254740993 9007199254740992.0 9007199254740993.0
	9223372036854775807 9223372036854775807.0 9223372036854775808 -9223372036854775808 9.223372036854775807e18 1e19 10000000000000000000 1e400 0.1 0.10`)

func numbersModule() string {
	var b strings.Builder
	b.WriteString("package p\n")
	for _, n := range numbers {
		b.WriteString("q contains \"== " + n + "\" if { input.x == " + n + " }\n")
		b.WriteString("q contains \"in " + n + "\" if { input.x in {" + n + ", \"a\"} }\n")
	}
	return b.String()
}

func numbersInputs() (inputs []string) {
	for _, n := range numbers {
		inputs = append(inputs, `{"x": `+n+`}`)
	}
	return inputs
}
