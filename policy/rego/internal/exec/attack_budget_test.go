package exec_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

func wide(members int) string {
	var b strings.Builder
	for i := range members {
		fmt.Fprintf(&b, `,"k%06d":1`, i)
	}
	return `{"a":{` + b.String()[1:] + `}}`
}

func read(t *testing.T, text string) value.Value {
	t.Helper()
	d, err := value.ParseData([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return d.Value()
}

// TestAttackReplaceDeepInsideALargeDocument replaces a value two levels down, where
// each time all its neighbours are copied.
func TestAttackReplaceDeepInsideALargeDocument(t *testing.T) {
	large := wide(20_000)
	for _, c := range []struct{ name, module, data, input string }{
		{"input", `package p
q := [x | some i in numbers.range(1, 50); x := input with input.a.zz as i]`, "", large},
		{"data", `package p
q := [x | some i in numbers.range(1, 50); x := data.a with data.a.zz as i]`, large, "{}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := attack(t, c.module, c.data, "x = data.p.q")
			if err != nil {
				t.Fatal(err)
			}
			in := read(t, c.input)
			// 50 copies of 20,000 members are a million steps, and as many values.
			_, err = a.program.Query(t.Context(), in, budget.Limits{Steps: 500_000})
			if !errors.Is(err, budget.ErrSteps) {
				t.Errorf("a million copied members fit into half a million steps: %v", err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err = a.program.Query(t.Context(), in, budget.Limits{Bytes: 16 << 20})
			runtime.ReadMemStats(&after)
			if !errors.Is(err, budget.ErrBytes) {
				t.Errorf("with 16 MiB, %d MiB were built: %v", (after.TotalAlloc-before.TotalAlloc)>>20, err)
			}
		})
	}
}

// TestAttackAnIndexWithALongText makes an index hash a megabyte again and again.
func TestAttackAnIndexWithALongText(t *testing.T) {
	var rules strings.Builder
	for i := range 9 {
		fmt.Fprintf(&rules, "f(x) := %d if { input.a == \"%d\"; x == 0 }\n", i, i)
	}
	a, err := attack(t, "package p\nq contains i if { some i in numbers.range(1, 1000); f(i) }\n"+rules.String(), "", "x = data.p.q")
	if err != nil {
		t.Fatal(err)
	}
	// A thousand times 2^20 bytes; a step is about 64 of them.
	in := read(t, `{"a": "`+strings.Repeat("x", 1<<20)+`"}`)
	if _, err := a.program.Query(t.Context(), in, budget.Limits{Steps: 1_000_000}); !errors.Is(err, budget.ErrSteps) {
		t.Errorf("a gigabyte is hashed in a million steps: %v", err)
	}
}

// TestAttackNothingIsLeftBehind runs evaluations that fail, go over their budget
// and succeed, in many goroutines, on machines that are used again.
func TestAttackNothingIsLeftBehind(t *testing.T) {
	a, err := attack(t, `package p
r := {"id": input.id, "seen": {x | some x in input.l}}
k := [{3, 1, 2, {"z", "a"}}, {"b": 1, "a": {2, 1}}]
u := [r, s, n] if { s := r with input.id as input.other; n := to_number(input.n) }
q contains [x, u, k] if { some x in input.l; u[2] != "never"; every y in k[0] { y != x } }
q contains [i, x] if { some i in numbers.range(1, input.long); x := r.id with input.id as i }
`, "", "x = data.p")
	if err != nil {
		t.Fatal(err)
	}
	inputs := []string{
		`{"id": "a", "other": "b", "n": "1", "l": [1, 2, 7], "long": 1}`,
		`{"id": "c", "other": "d", "n": "x", "l": [7, 8], "long": 2}`,
		`{"id": "e", "n": "3", "l": [], "long": 3}`,
		`{"id": "f", "other": {}, "n": "3", "l": [9]}`,
		`{"id": "g", "other": "h", "n": "4", "l": [5], "long": 5000}`,
		`{}`,
	}
	limits := budget.Limits{Steps: 20_000}
	answer := func(in value.Value) string {
		got, err := a.program.Query(t.Context(), in, limits)
		return fmt.Sprint(got, err)
	}
	var wants []string
	var ins []value.Value
	for _, text := range inputs {
		in := read(t, text)
		ins, wants = append(ins, in), append(wants, answer(in))
	}
	if !strings.Contains(wants[4], budget.ErrSteps.Error()) || !strings.Contains(wants[1], "to_number") {
		t.Fatalf("nothing goes over its budget, or nothing fails: %v", wants)
	}
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 200 {
				n := (i*7 + g) % len(ins)
				if got := answer(ins[n]); got != wants[n] {
					t.Errorf("input %s: want %s, got %s", inputs[n], wants[n], got)
				}
			}
		})
	}
	all.Wait()
}
