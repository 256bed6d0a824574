package reads_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/microwall/microwall/policy/rego/internal/reads"
)

// repeat writes a line for each number below n.
func repeat(n int, line string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.ReplaceAll(line, "#", fmt.Sprint(i)) + "\n")
	}
	return b.String()
}

// TestMoreThanIsToldApartIsReadWhole goes over every bound of the analysis. The
// set has to have every path that was in use, or more; and nothing outside of it
// may be noticed.
func TestMoreThanIsToldApartIsReadWhole(t *testing.T) {
	for _, tc := range []struct {
		name  string
		rego  string
		input string
		data  map[string]any
		want  []string // paths that are read
		free  string   // a path that is not
	}{
		{name: "a long path",
			rego:  "allow if input.free\nallow if input" + strings.Repeat(".x", 40) + " == 1",
			input: `{"free": false, "other": 1, "x": ` + strings.Repeat(`{"x": `, 39) + `1` + strings.Repeat("}", 40),
			want:  []string{"input" + strings.Repeat(".x", 32), "input.free"}, free: "other"},
		{name: "a rule that is one of many parts",
			rego:  "allow if u.id == 3\nu := input.none if data.none\n" + repeat(20, "else := input.p# if data.n == #") + repeat(20, "allow if input.p#.none"),
			input: parts(20), data: map[string]any{"n": 3},
			want: []string{"input.p0", "input.p3", "input.p19"}, free: "p20"},
		{name: "one of many rules, chosen at run time",
			rego:  "allow if data.authz.many[data.name].id == 3\n" + repeat(20, "many.r# := input.p#") + repeat(20, "allow if input.p#.none"),
			input: parts(20), data: map[string]any{"name": "r3"},
			want: []string{"input.p0", "input.p3", "input.p19"}, free: "p20"},
		{name: "a function of many parts",
			rego:  repeat(150, "allow if f(input.p#)") + "f(x) if x.id == 149\n" + repeat(150, "allow if input.p#.none"),
			input: `{"p0": {"id": 1}, "p100": {"id": 2, "no": 3}, "p149": {"id": 149}, "p150": 1}`,
			want:  []string{"input.p0.id", "input.p100.id", "input.p149"}, free: "p150"},
		{name: "a function of many keys",
			rego:  "allow if f(input, \"p39\")\n" + repeat(40, "allow if f(input.in, \"p#\")") + "f(x, k) if x[k].id == 39",
			input: `{"in": ` + parts(40) + `, "free": 1}`,
			want:  []string{"input.p39.id", "input.in"}, free: "free"},
		{name: "arguments that double with every call",
			rego:  "allow if f0(input.p0)\nallow if f0(input.p1)\n" + repeat(40, "f#(x) if g#(x.id)\nf#(x) if g#(x.no)") + nextOf(40) + "g39(x) if x == 0",
			input: parts(3),
			want:  []string{"input.p0" + strings.Repeat(".id", 40), "input.p1" + strings.Repeat(".no", 40)}, free: "p2"},
		{name: "with on many parts",
			rego:  "allow if r0\n" + repeat(40, "r# if q# with input.a#.b as input.p1") + nextRule(40) + "q39 if { input.p0.id == 0; input.a0.b.id == 1 }",
			input: parts(3),
			want:  []string{"input.p0", "input.p1"}, free: ""},
		{name: "a path of many keys for object.get",
			rego:  "allow if object.get(input, [" + strings.Repeat(`"x", `, 20) + `"x"], 0) == 0` + "\nallow if input.x.free",
			input: `{"x": {"x": 1, "free": false}}`,
			want:  []string{"input"}, free: ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := ask(t, "data.authz.allow", "package authz\n"+tc.rego)
			if tc.data != nil {
				q.store = inmem.NewFromObject(tc.data)
			}
			p, err := q.plan(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			set := readsOf(p)
			for _, want := range tc.want {
				if !set.Contains(pathOf(t, want)) {
					t.Errorf("%s is not in %v", want, set)
				}
			}
			if tc.free != "" && set.Overlaps(reads.Path{{Kind: reads.String, Text: tc.free}}) {
				t.Errorf("%s is in %v", tc.free, set)
			}
			var n tally
			n.unnoticed(t, specimen{q, p, []ast.Value{ast.MustParseTerm(tc.input).Value}}, 50)
		})
	}
}

// parts returns an input with members p0 to pn, each with its number as id.
func parts(n int) string {
	var members []string
	for i := range n + 1 {
		members = append(members, fmt.Sprintf(`"p%d": {"id": %[1]d}`, i))
	}
	return "{" + strings.Join(members, ", ") + "}"
}

// nextOf makes g of each number but the last call f of the next.
func nextOf(n int) string {
	var b strings.Builder
	for i := range n - 1 {
		fmt.Fprintf(&b, "g%d(x) if f%d(x)\n", i, i+1)
	}
	return b.String()
}

func nextRule(n int) string {
	var b strings.Builder
	for i := range n - 1 {
		fmt.Fprintf(&b, "q%d if r%d\n", i, i+1)
	}
	return b.String()
}

func pathOf(t *testing.T, ref string) reads.Path {
	t.Helper()
	var path reads.Path
	for _, step := range ast.MustParseRef(ref)[1:] {
		path = append(path, reads.Key{Kind: reads.String, Text: string(step.Value.(ast.String))})
	}
	return path
}

// What would take the analysis longest: each loop inside another looks once more
// at all that was assigned to in it, and each way to a patch at what it replaces.
var endless = []struct{ name, rego string }{
	{"loops in loops", strings.Repeat("allow if {\n"+strings.Repeat("input.list[_]\n", 2000)+"}\n", 10) + "allow if input.free"},
	{"a path of loops", "allow if input.list" + strings.Repeat("[_]", 30_000)},
	{"patches of patches", "r0 := input\n" + patches(12, 8) + "allow if r12.free == 1"},
}

// patches makes n rules, each the one before it with one of several replaced.
func patches(n, ways int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "r%d := 1 if input.none", i+1)
		for way := range ways {
			fmt.Fprintf(&b, " else := x if { x := r0 with input as r%d with input.a%d as 1; input.n%d }", i, way, way)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestWhatTakesLongIsReadWholeBefore(t *testing.T) {
	for _, tc := range endless {
		t.Run(tc.name, func(t *testing.T) {
			p, err := ask(t, "data.authz.allow", "package authz\n"+tc.rego).plan(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if set := readsOf(p); !set.Whole() {
				t.Errorf("read is %v", set)
			}
			took := time.Since(start)
			t.Logf("%d bytes in %s", len(tc.rego), took)
			if took > 5*time.Second && !underRace {
				t.Errorf("%d bytes of Rego take %s", len(tc.rego), took)
			}
		})
	}
}

func TestTheAnalysisEndsWithItsContext(t *testing.T) {
	enough := errors.New("that is enough")
	for _, tc := range endless {
		t.Run(tc.name, func(t *testing.T) {
			p, err := ask(t, "data.authz.allow", "package authz\n"+tc.rego).plan(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			readsOf(p)
			whole := time.Since(start)
			for _, wait := range []time.Duration{0, whole / 20} {
				ctx, cancel := context.WithTimeoutCause(t.Context(), wait, enough)
				start := time.Now()
				set, err := reads.Of(ctx, p)
				late := time.Since(start) - wait
				cancel()
				if !errors.Is(err, enough) || set != nil {
					t.Errorf("after %s of %s: %v, %v", wait, whole, set, err)
				}
				t.Logf("of %s: ended %s after its context", whole, late)
				if late > whole/2+100*time.Millisecond && !underRace {
					t.Errorf("ended %s after its context, the whole takes %s", late, whole)
				}
			}
		})
	}
}
