package rego_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
)

// What decides in these walls, and what of a request they read. In each, v is in
// the context if nothing else is said.
var walls = []struct {
	name, guardrail, module string
	// reads is what keys are made of.
	reads string
	// told says that the decision tells all apart that is where the policy reads.
	told bool
	data string
}{
	{name: "nothing", module: `allow := true`},
	{name: "a member that is handed out", told: true, reads: "input.context.v",
		module: "allow := true\nobligations[\"v\"] := input.context.v\nreasons contains json.marshal(input.context.v)"},
	{name: "what it looks like", told: true, reads: "input.context.v",
		module: "allow := true\nreasons contains sprintf(\"%v %s\", [json.marshal(input.context.v), type_name(input.context.v)])"},
	{name: "the whole context", told: true, reads: "input.context", module: "allow := true\nobligations[\"c\"] := input.context"},
	{name: "all properties of the subject", told: true, reads: "input.subject.properties", module: "allow := true\nreasons contains json.marshal(input.subject.properties)"},
	{name: "the whole input", told: true, reads: "input", module: "allow := true\nreasons contains json.marshal(input)"},
	{name: "the whole subject", told: true, reads: "input.subject", module: "allow := true\nreasons contains json.marshal(input.subject)"},
	{name: "the names", told: true, reads: "input.action.name input.resource.id input.resource.type input.subject.id input.subject.type",
		module: "allow := true\nreasons contains concat(\"|\", [input.subject.type, input.subject.id, input.action.name, input.resource.type, input.resource.id])"},
	{name: "the hour and the weekday", told: true, reads: "input.time.hour input.time.weekday", module: "allow := true\nreasons contains sprintf(\"%d on %s\", [input.time.hour, input.time.weekday])"},
	{name: "the date and the minute", told: true, reads: "input.time.date input.time.minute", module: "allow := true\nreasons contains sprintf(\"%s %d\", [input.time.date, input.time.minute])"},
	{name: "the second", told: true, reads: "input.time.unix", module: "allow := true\nobligations[\"at\"] := input.time.unix"},
	{name: "an element", reads: "input.context.v[1]", module: "allow := true\nobligations[\"v\"] := input.context.v[1]"},
	{name: "below an element", reads: "input.context.v[0].id", module: `allow if input.context.v[0].id == "x"`},
	{name: "a member that is called 0, and an element", reads: `input.context.l["0"] input.context.m[0]`, module: `
		allow if input.context.l["0"] == 1
		deny contains "first" if input.context.m[0] == 1`},
	{name: "names in quotes", reads: `input.context[""] input.context["two words"]`, module: `
		allow if input.context["two words"] == 1
		deny contains "nameless" if input.context[""]`},
	{name: "three steps down", reads: "input.context.a.b.c", module: "allow if input.context.a.b.c\nreasons contains \"not there\" if not input.context.a.b.c"},
	{name: "two ways from one object", reads: "input.context.a.b input.context.a.c.d", module: "allow if input.context.a.b == 1\ndeny contains \"d\" if input.context.a.c.d"},
	{name: "a default for what is not there", reads: "input.context.a.b", module: `allow if object.get(input.context, ["a", "b"], 1) == 1`},
	{name: "what another member names", reads: "input.context.key input.subject.properties", module: `allow if input.subject.properties[input.context.key] == 1`},
	{name: "what stands in the data", reads: "input.action.name input.subject.id", module: `allow if input.subject.id in data.callers[input.action.name]`, data: `{"callers": {"Add": ["x", "y"], "x": ["1"]}}`},
	{name: "not", reads: "input.context.v", module: "allow if not input.context.v\ndeny contains \"is false\" if input.context.v == false"},
	{name: "an order of all types", reads: "input.context.v", module: "allow if input.context.v >= 1\nreasons contains \"small\" if input.context.v < 1.5"},
	{name: "every", reads: "input.context.v", module: `allow if { every x in input.context.v { startswith(x, "x") } }`},
	{name: "how many", reads: "input.context.v", module: "allow if count(input.context.v) == 1"},
	{name: "a call that fails", reads: "input.context.v", module: "allow if to_number(input.context.v) == 1"},
	{name: "a function", reads: "input.context.a.b input.context.v", module: "f(x) := y if y := x.b\nallow if f(input.context.a) == input.context.v"},
	{name: "another input", reads: "input.context.v", module: "allow if h with input as {\"context\": input.context.v}\nh if input.context == 1"},
	{name: "another input in a part", reads: "input.context.a.b input.context.v", module: "allow if h with input.context.a.c as input.context.v\nh if { input.context.a.c == 1; not input.context.a.b }"},
	{name: "an array that is made", reads: "input.action.properties.v input.resource.properties.v[2] input.subject.properties.v",
		module: "allow if [input.subject.properties.v, input.action.properties.v] == [1, \"1\"]\nreasons contains \"third\" if input.resource.properties.v[2]"},
	{name: "two walls", reads: "input.action.name input.context.list input.context.v input.subject.id input.time.hour",
		guardrail: `
			deny contains "outside" if not startswith(input.subject.id, "x")
			obligations["list"] := input.context.list
			deny contains "at night" if input.time.hour >= 22`,
		module: "allow if input.action.name == \"x\"\nallow if input.context.v == true"},
	{name: "an obligation of both", reads: "input.context.v input.subject.properties.v",
		guardrail: "deny contains \"never\" if false\nobligations[\"o\"] := input.context.v", module: "allow := true\nobligations[\"o\"] := input.subject.properties.v"},
	// Nobody asks a guardrail who is allowed. What it reads for that is in the key all
	// the same: that is more than it takes, never less.
	{name: "what a guardrail is not asked", reads: "input.context.v input.subject.properties.v",
		guardrail: "allow if input.subject.properties.v == 1\ndeny contains \"no\" if input.context.v", module: "allow := true"},
}

// value is one at a place of a request; absent is none.
type absent struct{}

// values are all different.
var values = []any{
	absent{}, nil, false, true,
	"", "x", "1", "0", "true", "null", "\x00", "é", "e\u0301", "xx",
	0, 1, -1, 2, 1.5, -1.5, 0.1, 0.3, json.Number("0.30000000000000004"), json.Number("1e-300"), json.Number("5e-324"), 1<<53 - 1, json.Number("9007199254740993"), json.Number("9223372036854775807"),
	json.Number("-9223372036854775808"), json.Number("9223372036854775808"), uint64(1)<<63 + 1, json.Number("-9223372036854775809"),
	json.Number("18446744073709551616"), json.Number("123456789012345678901234567890"), json.Number("123456789012345678901234567891"),
	[]any{}, []any{nil}, []any{0}, []any{"0"}, []any{false}, []any{[]any{}}, []any{map[string]any{}}, []any{1, 2}, []any{2, 1}, []any{1, 1}, []any{"x", "y"}, []any{"xy"}, []any{map[string]any{"id": "x"}},
	map[string]any{}, map[string]any{"a": nil}, map[string]any{"a": 1}, map[string]any{"a": "1"}, map[string]any{"b": 1}, map[string]any{"": 1}, map[string]any{"0": 1}, map[string]any{"a": 1, "b": 2}, map[string]any{"a": 2, "b": 1},
	map[string]any{"a": map[string]any{"b": 1}}, map[string]any{"a": []any{1}}, map[string]any{"a b": 1},
}

// alike are the same, however they come.
var alike = [][]any{
	{1, 1.0, int8(1), uint64(1), float32(1), json.Number("1"), json.Number("1.0"), json.Number("1e0"), json.Number("10e-1"), json.Number("1.0000000000000000000000001")},
	{0, 0.0, math.Copysign(0, -1), json.Number("-0"), json.Number("-0.0"), json.Number("0e7"), json.Number("1e-400")},
	{1.5, float32(1.5), json.Number("1.50"), json.Number("15e-1")},
	{0.1, json.Number("0.1"), json.Number("0.1000000000000000055511151231257827"), json.Number("1E-1")},
	{1000, json.Number("1e3"), json.Number("1E+3"), json.Number("1000")},
	{int64(1) << 62, json.Number("4611686018427387904")}, {uint64(1) << 63, json.Number("9223372036854775808")},
	{[]any{}, []string{}}, {[]any{"x", "y"}, []string{"x", "y"}},
	{map[string]any{"a": 1, "b": []any{2.0}}, map[string]any{"b": []any{json.Number("2")}, "a": 1.0}},
}

// part is what is tried of documents: under the race detector, by which everything takes
// many times as long, one of them.
func part(all []document) []document {
	if race || testing.Short() {
		return all[len(all)/2:][:1]
	}
	return all
}

// None of these is let in at any door, so that none is told from another one.
var refused = []any{
	json.Number("1e400"), json.Number("-1e400"), json.Number("1e20"), json.Number("1.5e300"), 1e300, float64(1 << 53), "\xff", []any{json.Number("1e999")}, map[string]any{"\xff": 1}, json.Number("01"), json.Number("0x1"), json.Number(""), struct{}{},
}

func TestWhatIsReadIsInTheKeyAndNothingElseIs(t *testing.T) {
	for _, test := range walls {
		t.Run(test.name, func(t *testing.T) {
			w := newWall(t, test.guardrail, test.module, test.data)
			if got := strings.Join(texts(w.reads), " "); got != test.reads {
				t.Fatalf("reads %s, want %s", got, test.reads)
			}
			for _, base := range part(w.bases()) {
				inside, outside := w.inside(base), w.outside(base)
				key := w.ask(t, base)
				for _, d := range inside {
					if got := w.ask(t, d); (got.key == key.key) != (w.walks(d) == w.walks(base)) {
						t.Errorf("%s and %s: one key is %v", base, d, got.key == key.key)
					}
				}
				for _, d := range outside {
					if got := w.ask(t, d); got.key != key.key {
						t.Errorf("the key of %s is another one for %s", base, d)
					}
				}
				all := append(append([]document{base}, inside...), outside...)
				if n := w.exact(t, all); n == 0 && len(outside) > 0 {
					t.Error("no two had one key")
				}
				if test.told {
					w.toldApart(t, inside)
				}
			}
		})
	}
}

// What the decision shows of a value stands in the key, and nothing besides that.
func (w *wall) toldApart(t *testing.T, all []document) {
	t.Helper()
	by := map[string]verdict{}
	for _, d := range all {
		a := w.ask(t, d)
		if other, ok := by[a.decision]; ok && other.key != a.key {
			t.Errorf("%s and %s have two keys, and one decision: %s", other.document, d, a.decision)
		}
		by[a.decision] = a
	}
}

func TestAValueHasOneKeyHoweverItComes(t *testing.T) {
	for _, test := range walls {
		w := newWall(t, test.guardrail, test.module, test.data)
		base := w.bases()[1]
		for _, p := range w.open() {
			for _, forms := range alike {
				first := w.ask(t, base.with(p, forms[0]))
				for _, v := range forms {
					d := base.with(p, v)
					if got := w.ask(t, d); got.key != first.key || got.decision != first.decision {
						t.Errorf("%s, %v: %T %v is another one than %v: %s, %s", test.name, p, v, v, forms[0], got.decision, first.decision)
					}
					// As it comes over the wire.
					if got, ok := w.overTheWire(t, d); ok && (got.key != first.key || got.decision != first.decision) {
						t.Errorf("%s, %v: %T %v over the wire is another one than %v: %s, %s", test.name, p, v, v, forms[0], got.decision, first.decision)
					}
				}
			}
			for _, v := range values {
				d := base.with(p, v)
				if got, ok := w.overTheWire(t, d); ok && got != w.ask(t, d) {
					t.Errorf("%s, %v: %v over the wire is another one: %s", test.name, p, v, got.decision)
				}
			}
		}
	}
}

// overTheWire asks what ask does, with a request as a PDP reads it; not ok is one
// that is not sent.
func (w *wall) overTheWire(t testing.TB, d document) (verdict, bool) {
	t.Helper()
	r, err := d.request()
	if err != nil {
		return verdict{}, false
	}
	m, err := wire.RequestProto(&r)
	if policy.KindOf(err) == policy.BadRequest {
		return verdict{}, false // a number that a double cannot say
	}
	if err != nil {
		t.Fatal(err)
	}
	r, err = wire.Request(m)
	if err != nil {
		t.Fatal(err)
	}
	return w.asked(t, d, &r), true
}

func TestWhatCannotBeToldApartIsNotLetIn(t *testing.T) {
	for _, v := range refused {
		for _, m := range []map[string]any{{"v": v}, {"v": []any{v}}, {"v": map[string]any{"w": v}}} {
			if _, err := policy.NewProperties(m); policy.KindOf(err) != policy.BadRequest {
				t.Errorf("%v is let in: %v", v, err)
			}
		}
	}
}

func TestKeysOfTheBoutique(t *testing.T) {
	pairs, asked := 0, 0
	for _, w := range boutiqueWalls(t) {
		for _, base := range part(w.examples) {
			inside, outside := w.inside(base), w.outside(base)
			key := w.ask(t, base).key
			for _, d := range outside {
				if w.ask(t, d).key != key {
					t.Errorf("%s: the key of %s is another one for %s", w.name, base, d)
				}
			}
			all := append(append([]document{base}, inside...), outside...)
			pairs += w.exact(t, all)
			asked += len(all)
		}
	}
	t.Logf("%d questions, %d had the key of another one", asked, pairs)
	if pairs == 0 {
		t.Error("this shows nothing")
	}
}

func TestKeysOfGeneratedPolicies(t *testing.T) {
	policies, each := 200, 40
	if testing.Short() || race {
		policies = 40
	}
	pairs, asked, compiled := 0, 0, 0
	for seed := range policies {
		w, ok := generatedWall(t, uint64(seed))
		if !ok {
			continue
		}
		compiled++
		rnd := rand.New(rand.NewPCG(uint64(seed), 3))
		for _, base := range w.examples {
			all := []document{base}
			outside := w.outside(base)
			for range min(each, len(outside)) {
				all = append(all, outside[rnd.IntN(len(outside))])
			}
			for range each {
				d := all[rnd.IntN(len(all))]
				for range 1 + rnd.IntN(3) {
					d = w.changed(d, rnd.IntN)
				}
				all = append(all, d)
			}
			pairs += w.exact(t, all)
			asked += len(all)
		}
		if t.Failed() {
			t.Fatalf("seed %d:\n%s", seed, w.name)
		}
	}
	t.Logf("%d policies, %d questions, %d had the key of another one", compiled, asked, pairs)
	if compiled < policies/2 || pairs < asked/20 {
		t.Error("this shows nothing")
	}
}

// FuzzKeys has the fuzzer pick a policy and two requests. If they have one key, they
// have one decision; if they are one question, they have one key.
func FuzzKeys(f *testing.F) {
	var all []*wall
	for _, test := range walls {
		all = append(all, newWall(f, test.guardrail, test.module, test.data))
	}
	all = append(all, boutiqueWalls(f)...)
	for seed := range uint64(60) {
		if w, ok := generatedWall(f, 10_000+seed); ok {
			all = append(all, w)
		}
	}
	for i := range all {
		rnd := rand.New(rand.NewPCG(uint64(i), 4))
		choices := make([]byte, 60)
		for j := range choices {
			choices[j] = byte(rnd.UintN(256))
		}
		f.Add(uint16(i), choices)
	}
	f.Fuzz(func(t *testing.T, which uint16, choices []byte) {
		w := all[int(which)%len(all)]
		choose := func(n int) int {
			if len(choices) == 0 {
				return 0
			}
			c := int(choices[0]) % n
			choices = choices[1:]
			return c
		}
		bases := append(w.bases(), w.examples...)
		one := bases[choose(len(bases))]
		for range choose(4) {
			one = w.changed(one, choose)
		}
		other := one
		for range 1 + choose(4) {
			other = w.changed(other, choose)
		}
		w.exact(t, []document{one, other})
		first := w.ask(t, one)
		r, err := one.request()
		if err != nil {
			t.Fatal(err)
		}
		if again, ok := documentOf(&r, time.Unix(one.unix, 0)); !ok || w.ask(t, again).key != first.key || w.ask(t, again).decision != first.decision {
			t.Errorf("%s is another question, spelled otherwise: %s", one, again)
		}
		if got, ok := w.overTheWire(t, one); ok && got != first {
			t.Errorf("%s is another question over the wire", one)
		}
	})
}

func texts(paths []policy.ReadPath) []string {
	all := make([]string, len(paths))
	for i, p := range paths {
		all[i] = p.String()
	}
	return all
}

func (d document) String() string {
	text, err := json.Marshal(map[string]any{"subject": d.in["subject"], "action": d.in["action"], "resource": d.in["resource"], "context": d.in["context"]})
	if err != nil {
		return fmt.Sprint(d.in)
	}
	return fmt.Sprintf("%s at %d", text, d.unix)
}
