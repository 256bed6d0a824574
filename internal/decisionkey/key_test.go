package decisionkey_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/internal/decisionkey"
	"github.com/microwall/microwall/policy"
)

func props(t testing.TB, m map[string]any) policy.Properties {
	t.Helper()
	p, err := policy.NewProperties(m)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// path reads "context.a.0.b": what is a number is the index of an element, and
// "" is the whole input.
func path(s string) (p policy.ReadPath) {
	for _, name := range strings.FieldsFunc(s, func(r rune) bool { return r == '.' }) {
		step := policy.Step{Name: name}
		if n, err := json.Number(name).Int64(); err == nil {
			step = policy.Step{Element: true, Index: n}
		}
		p = append(p, step)
	}
	return p
}

func paths(all ...string) (ps []policy.ReadPath) {
	for _, s := range all {
		ps = append(ps, path(s))
	}
	return ps
}

var versions = []policy.Version{
	{Namespace: "shop", Epoch: 1, Revision: 1, Digest: policy.Digest{1}},
	{Namespace: "shop.cart", Epoch: 1, Revision: 7, Digest: policy.Digest{2}},
}

func keyOf(l *decisionkey.Layout, r *policy.Request, at time.Time) string {
	var b decisionkey.Builder
	return string(b.Key(l, r, at.Unix()))
}

var noon = time.Date(2026, 11, 23, 12, 30, 15, 0, time.UTC)

func request(t testing.TB, context map[string]any) *policy.Request {
	return &policy.Request{
		Namespace: "shop.cart",
		Subject:   policy.Entity{Type: "user", ID: "ann", Properties: props(t, map[string]any{"team": "red", "v": 1})},
		Action:    policy.Action{Name: "read", Properties: props(t, map[string]any{"v": 1})},
		Resource:  policy.Entity{Type: "cart", ID: "7", Properties: props(t, map[string]any{"v": 1})},
		Context:   props(t, context),
	}
}

// values are of every type, and each differs from all others for a policy.
var values = map[string]any{
	"null": nil, "true": true, "false": false, "0": 0, "1": 1, "-1": -1, "1.5": 1.5, "-1.5": -1.5, "1e300": json.Number("1e-300"),
	"int64": json.Number("9223372036854775807"), "uint64": uint64(1) << 63, "uint64 and 1": uint64(1)<<63 + 1,
	"many digits": json.Number("123456789012345678901234567890"), "many more": json.Number("123456789012345678901234567891"),
	"empty text": "", "text 1": "1", "text null": "null", "NUL": "\x00", "two NUL": "\x00\x00",
	"[]": []any{}, "[1]": []any{1}, `["1"]`: []string{"1"}, "[[]]": []any{[]any{}}, "[[1]]": []any{[]any{1}}, "[1,1]": []any{1, 1}, "[null]": []any{nil},
	"{}": map[string]any{}, "x null": map[string]any{"x": nil}, "x 1": map[string]any{"x": 1}, "y 1": map[string]any{"y": 1},
	"x 1 y 1": map[string]any{"x": 1, "y": 1}, "x y": map[string]any{"x": map[string]any{"y": 1}}, "no name": map[string]any{"": 1},
}

func TestWhateverIsReadChangesTheKey(t *testing.T) {
	places := map[string]struct {
		read string
		put  func(r *policy.Request, p policy.Properties)
	}{
		"the whole input":   {"", func(r *policy.Request, p policy.Properties) { r.Context = p }},
		"the whole subject": {"subject", func(r *policy.Request, p policy.Properties) { r.Subject.Properties = p }},
		"subject":           {"subject.properties.v", func(r *policy.Request, p policy.Properties) { r.Subject.Properties = p }},
		"the whole action":  {"action", func(r *policy.Request, p policy.Properties) { r.Action.Properties = p }},
		"action":            {"action.properties.v", func(r *policy.Request, p policy.Properties) { r.Action.Properties = p }},
		"resource":          {"resource.properties.v", func(r *policy.Request, p policy.Properties) { r.Resource.Properties = p }},
		"all properties":    {"resource.properties", func(r *policy.Request, p policy.Properties) { r.Resource.Properties = p }},
		"context":           {"context", func(r *policy.Request, p policy.Properties) { r.Context = p }},
		"a member":          {"context.v", func(r *policy.Request, p policy.Properties) { r.Context = p }},
	}
	for name, place := range places {
		t.Run(name, func(t *testing.T) {
			l := decisionkey.New("e", versions, paths(place.read))
			keys := map[string]string{}
			add := func(what string, m map[string]any) {
				r := request(t, nil)
				place.put(r, props(t, m))
				key := keyOf(l, r, noon)
				if other, ok := keys[key]; ok {
					t.Errorf("%s and %s have one key", what, other)
				}
				keys[key] = what
			}
			add("absent", nil)
			for what, v := range values {
				add(what, map[string]any{"v": v})
			}
		})
	}
}

func TestEveryFieldThatIsReadChangesTheKey(t *testing.T) {
	fields := map[string]func(r *policy.Request){
		"subject.type":  func(r *policy.Request) { r.Subject.Type += "x" },
		"subject.id":    func(r *policy.Request) { r.Subject.ID += "x" },
		"action.name":   func(r *policy.Request) { r.Action.Name += "x" },
		"resource.type": func(r *policy.Request) { r.Resource.Type += "x" },
		"resource.id":   func(r *policy.Request) { r.Resource.ID += "x" },
	}
	for read := range fields {
		for _, above := range []string{read, read[:strings.IndexByte(read, '.')], ""} {
			l := decisionkey.New("e", versions, paths(above))
			before := keyOf(l, request(t, nil), noon)
			for changed, change := range fields {
				r := request(t, nil)
				change(r)
				if got, want := keyOf(l, r, noon) != before, strings.HasPrefix(changed, above); got != want {
					t.Errorf("reading %q, another %s changes the key: %v, want %v", above, changed, got, want)
				}
			}
		}
	}
	t.Run("what moves from one to the next", func(t *testing.T) {
		l := decisionkey.New("e", versions, paths("subject.type", "subject.id", "resource.type"))
		a, b := request(t, nil), request(t, nil)
		a.Subject.Type, a.Subject.ID = "user", "ann"
		b.Subject.Type, b.Subject.ID = "usera", "nn"
		if keyOf(l, a, noon) == keyOf(l, b, noon) {
			t.Error("one key")
		}
	})
}

func TestWhereAWalkEndsIsInTheKey(t *testing.T) {
	l := decisionkey.New("e", versions, paths("context.a.b.c", "context.l.0.x", "context.l.2"))
	distinct := []map[string]any{
		{}, {"a": nil}, {"a": true}, {"a": 1}, {"a": "x"}, {"a": []any{}}, {"a": map[string]any{}},
		{"a": map[string]any{"b": nil}}, {"a": map[string]any{"b": 1}}, {"a": map[string]any{"b": map[string]any{}}},
		{"a": map[string]any{"b": map[string]any{"c": nil}}}, {"a": map[string]any{"b": map[string]any{"c": 1}}},
		{"l": []any{}}, {"l": []any{1}}, {"l": []any{map[string]any{}}}, {"l": []any{map[string]any{"x": 1}}}, {"l": []any{1, 2, 3}}, {"l": []any{1, 2, 4}},
		{"l": map[string]any{"0": 1}},
	}
	keys := map[string]int{}
	for i, c := range distinct {
		key := keyOf(l, request(t, c), noon)
		if j, ok := keys[key]; ok {
			t.Errorf("%v and %v have one key", c, distinct[j])
		}
		keys[key] = i
	}
	for _, same := range [][2]map[string]any{
		{{"a": true}, {"a": false}}, {{"a": 1}, {"a": 1.5}}, {{"a": "x"}, {"a": "y"}}, {{"a": []any{1}}, {"a": []any{}}},
		{{"a": map[string]any{"x": 1}}, {"a": map[string]any{"y": 2}}}, {{"z": 1}, {"z": 2}}, {{"l": []any{1, 2}}, {"l": []any{7, 8}}},
	} {
		if keyOf(l, request(t, same[0]), noon) != keyOf(l, request(t, same[1]), noon) {
			t.Errorf("%v and %v have two keys", same[0], same[1])
		}
	}
}

func TestOnlyThePartsOfTheTimeThatAreReadAreInTheKey(t *testing.T) {
	same := func(read string, a, b time.Time) bool {
		l := decisionkey.New("e", versions, paths(read))
		if !l.ReadsTime() {
			t.Errorf("%s: does not read the time", read)
		}
		return keyOf(l, request(t, nil), a) == keyOf(l, request(t, nil), b)
	}
	for _, c := range []struct {
		read       string
		same, diff time.Duration
	}{
		{"time.unix", 0, time.Second}, {"time.minute", 44 * time.Second, 45 * time.Second}, {"time.hour", 29 * time.Minute, 30 * time.Minute},
		{"time.minute", time.Hour, time.Minute}, {"time.hour", 24 * time.Hour, time.Hour}, {"time.weekday", 7 * 24 * time.Hour, 12 * time.Hour},
		{"time.date", 11 * time.Hour, 12 * time.Hour}, {"time.date", 0, 365 * 24 * time.Hour}, {"time.date", 0, 30 * 24 * time.Hour}, {"time", 0, time.Second}, {"", 0, time.Second},
	} {
		if !same(c.read, noon, noon.Add(c.same)) {
			t.Errorf("%q: %v later is another key", c.read, c.same)
		}
		if same(c.read, noon, noon.Add(c.diff)) {
			t.Errorf("%q: %v later is the same key", c.read, c.diff)
		}
	}
	if decisionkey.New("e", versions, paths("context.time")).ReadsTime() {
		t.Error("the context's time is not the time")
	}
}

func TestAnotherReleaseOrEngineIsAnotherKey(t *testing.T) {
	r := request(t, nil)
	keys := map[string]string{}
	add := func(name, engine string, vs ...policy.Version) {
		key := keyOf(decisionkey.New(engine, vs, paths("subject.id")), r, noon)
		if other, ok := keys[key]; ok {
			t.Errorf("%s and %s have one key", name, other)
		}
		keys[key] = name
	}
	other := versions[1]
	other.Digest = policy.Digest{3}
	elsewhere := versions[1]
	elsewhere.Namespace = "shop.card"
	add("these", "e", versions...)
	add("another engine", "f", versions...)
	add("another release", "e", versions[0], other)
	add("another namespace", "e", versions[0], elsewhere)
	add("no guardrail", "e", versions[1])
	add("two guardrails", "e", versions[0], versions[0], versions[1])
	add("the other way round", "e", versions[1], versions[0])
	add("none", "e")
}

func TestTheSameQuestionHasOneKey(t *testing.T) {
	l := decisionkey.New("e", versions, paths("context"))
	a := request(t, map[string]any{"x": 1, "y": []string{"z"}, "n": nil, "o": map[string]any{"p": 1, "q": map[string]any{"r": true, "s": ""}}})
	b := request(t, map[string]any{"o": map[string]any{"q": map[string]any{"s": "", "r": true}, "p": json.Number("1e0")}, "n": nil, "y": []any{"z"}, "x": json.Number("1.0")})
	for range 20 { // maps are walked in another order each time
		if keyOf(l, a, noon) != keyOf(l, b, noon) {
			t.Fatal("the same question, written differently, has another key")
		}
	}
}

func TestPathsAreBoundedByReadingMore(t *testing.T) {
	var many []policy.ReadPath
	for i := range 1000 {
		many = append(many, path(fmt.Sprintf("context.a%d.b%d.c", i%10, i)))
	}
	many = append(many, path("subject.id"), path("context.a3.b3"))
	l := decisionkey.New("e", versions, many)
	if n := len(l.Reads()); n > 256 || n < 2 {
		t.Fatalf("%d paths", n)
	}
	with := func(c int) *policy.Request {
		return request(t, map[string]any{"a4": map[string]any{"b14": map[string]any{"c": c}}})
	}
	if keyOf(l, with(1), noon) == keyOf(l, with(2), noon) {
		t.Error("a path that is read is not in the key")
	}
}

// Two requests have one key if, and only if, the walks down all paths end alike.
func FuzzOneKeyMeansOneQuestion(f *testing.F) {
	for seed := range uint64(50) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var reads []policy.ReadPath
		for range 1 + rnd.IntN(4) {
			reads = append(reads, somePath(rnd))
		}
		l := decisionkey.New("e", versions, reads)
		var b decisionkey.Builder
		for range 20 {
			one, other := someMap(rnd, 3), someMap(rnd, 3)
			if rnd.IntN(2) == 0 { // mostly alike
				other = maps.Clone(one)
				other[someName(rnd)] = someValue(rnd, 2)
			}
			first := bytes.Clone(b.Key(l, request(t, one), noon.Unix()))
			second := b.Key(l, request(t, other), noon.Unix())
			alike := true
			for _, p := range reads {
				alike = alike && reflect.DeepEqual(walk(one, p), walk(other, p))
			}
			if got := bytes.Equal(first, second); got != alike {
				t.Fatalf("paths %v, context %v and %v: one key is %v, want %v", reads, one, other, got, alike)
			}
		}
	})
}

// walk says how the walk down a path below the context ends.
func walk(context map[string]any, p policy.ReadPath) any {
	if len(p) == 0 || p[0].Name != "context" {
		return context
	}
	var v any = context
	for i, s := range p[1:] {
		var next any
		ok := false
		switch x := v.(type) {
		case map[string]any:
			if !s.Element {
				next, ok = x[s.Name]
			}
		case []any:
			if s.Element && s.Index < int64(len(x)) {
				next, ok = x[s.Index], true
			}
		}
		if !ok {
			return fmt.Sprintf("ends at %d on %T", i, v)
		}
		v = next
	}
	return []any{v}
}

func someName(rnd *rand.Rand) string { return []string{"a", "b", "", "0"}[rnd.IntN(4)] }

func somePath(rnd *rand.Rand) policy.ReadPath {
	p := path("context")
	for range rnd.IntN(4) {
		if rnd.IntN(4) == 0 {
			p = append(p, policy.Step{Element: true, Index: int64(rnd.IntN(3))})
		} else {
			p = append(p, policy.Step{Name: someName(rnd)})
		}
	}
	return p
}

func someMap(rnd *rand.Rand, depth int) map[string]any {
	m := map[string]any{}
	for range rnd.IntN(4) {
		m[someName(rnd)] = someValue(rnd, depth-1)
	}
	return m
}

func someValue(rnd *rand.Rand, depth int) any {
	if depth > 0 {
		switch rnd.IntN(3) {
		case 0:
			return someMap(rnd, depth)
		case 1:
			list := make([]any, rnd.IntN(4))
			for i := range list {
				list[i] = someValue(rnd, depth-1)
			}
			return list
		}
	}
	return []any{nil, true, false, "", "1", 1, 2, 1.5}[rnd.IntN(8)]
}

func TestKeysOfUsualRequestsAllocateNothing(t *testing.T) {
	l := decisionkey.New("e", versions, paths("subject.id", "subject.properties.team", "action.name", "resource", "context.call_path", "time.hour"))
	r := request(t, map[string]any{"call_path": []string{"a", "b"}, "trace": "4711"})
	var b decisionkey.Builder
	b.Key(l, r, 0)
	if n := testing.AllocsPerRun(100, func() { b.Key(l, r, noon.Unix()) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkKey(b *testing.B) {
	l := decisionkey.New("e", versions, paths("subject.id", "action.name", "resource.id"))
	r := request(b, map[string]any{"trace": "4711"})
	var key decisionkey.Builder
	b.ReportAllocs()
	for b.Loop() {
		key.Key(l, r, 0)
	}
}
