package value_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego/internal/value"
	"github.com/microwall/microwall/policy/rego/internal/value/valuetest"
)

// In whatever form a document is held, it is the same value.
func TestEveryFormIsTheSame(t *testing.T) {
	g := valuetest.New(21)
	for range 300 {
		doc := g.JSON(4)
		forms := valuetest.Forms(t, doc)
		names := []value.Value{g.Scalar(), value.Text(g.Text()), value.Int(int64(g.IntN(4))), value.NumberText(g.Number())}
		for _, f := range forms {
			checkSame(t, f, forms[0], names)
		}
		other := valuetest.Forms(t, g.JSON(4))
		want := value.Compare(forms[0].Value, other[0].Value)
		for _, f := range forms {
			for _, o := range other {
				if got := value.Compare(f.Value, o.Value); got != want {
					t.Fatalf("%s (%s) to %s (%s): %d, want %d", f.Value, f.Name, o.Value, o.Name, got, want)
				}
				if got := value.Equal(f.Value, o.Value); got != (want == 0) {
					t.Fatalf("%s (%s) is %s (%s): %t", f.Value, f.Name, o.Value, o.Name, got)
				}
			}
		}
	}
}

func checkSame(t *testing.T, f, want valuetest.Form, names []value.Value) {
	t.Helper()
	v, w := f.Value, want.Value
	switch {
	case v.Kind() != w.Kind():
		t.Fatalf("%s is of kind %s, want %s", f.Name, v.Kind(), w.Kind())
	case v.Len() != w.Len():
		t.Fatalf("%s (%s) has length %d, want %d", v, f.Name, v.Len(), w.Len())
	case !value.Equal(v, w) || !value.Equal(w, v) || value.Compare(v, w) != 0 || value.Compare(w, v) != 0:
		t.Fatalf("%s (%s) is not %s (%s)", v, f.Name, w, want.Name)
	case !value.SetOf(append(distinct(10), v)...).Has(w):
		t.Fatalf("a set with %s (%s) has no %s (%s)", v, f.Name, w, want.Name)
	case v.IsComposite() != w.IsComposite() || v.IsFalse() != w.IsFalse() || v.IsTrue() != w.IsTrue() || v.Text() != w.Text():
		t.Fatalf("%s (%s) is not %s (%s)", v, f.Name, w, want.Name)
	}
	for _, name := range names {
		got, want := v.Get(name), w.Get(name)
		if got.Defined() != want.Defined() || !value.Equal(got, want) {
			t.Fatalf("%s (%s) at %s is %s, want %s", v, f.Name, name, got, want)
		}
	}
	if !v.IsComposite() {
		return
	}
	c, d := v.Scan(), w.Scan()
	var key, val, wantKey, wantVal value.Value
	for i := 0; ; i++ {
		got, more := c.Next(&key, &val), d.Next(&wantKey, &wantVal)
		if got != more || got != (i < v.Len()) {
			t.Fatalf("%s (%s) ends after %d", v, f.Name, i)
		}
		if !got {
			break
		}
		if !value.Equal(key, wantKey) {
			t.Fatalf("%s (%s) has %s in place of %s", v, f.Name, key, wantKey)
		}
		if v.Kind() == value.Array && value.Compare(v.Elem(i), val) != 0 {
			t.Fatalf("%s (%s) has another element %d", v, f.Name, i)
		}
		prepared := (*value.Data)(nil).Key(key.Text())
		if v.Kind() == value.Object {
			for _, got := range []value.Value{v.Get(key), v.GetText(key.Text()), v.GetKey(&prepared)} {
				if !value.Equal(got, val) {
					t.Fatalf("%s (%s) at %s is %s, want %s", v, f.Name, key, got, val)
				}
			}
		}
		checkSame(t, valuetest.Form{Name: f.Name, Value: val}, valuetest.Form{Name: want.Name, Value: wantVal}, nil)
	}
}

func TestPositions(t *testing.T) {
	g := valuetest.New(23)
	for range 300 {
		doc := map[string]any{}
		for range g.IntN(40) {
			doc[g.Text()] = g.JSON(1)
		}
		var names []any
		for range 20 {
			names = append(names, g.Text(), g.JSON(1))
		}
		both := valuetest.Packed(map[string]any{"object": doc, "names": names})
		objects := append(valuetest.Forms(t, doc), valuetest.Form{Name: "beside the names", Value: both.GetText("object")})
		lists := append(valuetest.Forms(t, names), valuetest.Form{Name: "beside the object", Value: both.GetText("names")})
		for _, f := range objects {
			v := f.Value
			if !v.HasPositions() {
				continue
			}
			set := value.NewSet(0)
			for i := range v.Len() {
				key, val := v.Member(i)
				if v.Find(key) != i || !value.Equal(v.Get(key), val) {
					t.Fatalf("%s (%s): %s is at %d, not at %d", v, f.Name, key, v.Find(key), i)
				}
				if set.Add(key); set.Find(key) != i {
					t.Fatalf("%s is at %d in a set, not at %d", key, set.Find(key), i)
				}
			}
			for _, l := range lists {
				if value.InOneDocument(v, l.Value) {
					checkMarks(t, v, l.Value)
				}
			}
		}
	}
}

// checkMarks marks what of a list is a key of an object, all at once and one by
// one.
func checkMarks(t *testing.T, object, list value.Value) {
	t.Helper()
	marked, want := make([]uint64, object.Len()/64+1), make([]uint64, object.Len()/64+1)
	var found []int32
	keys := value.NewSet(0)
	for i := range list.Len() {
		if p := object.Find(list.Elem(i)); p >= 0 && keys.Add(list.Elem(i)) {
			want[p/64] |= 1 << (p % 64)
			found = append(found, int32(p))
		}
	}
	if got := object.MarkElems(list, marked, nil); !slices.Equal(got, found) || !slices.Equal(marked, want) {
		t.Fatalf("of %s in %s: %v and %b, want %v and %b", list, object, got, marked, found, want)
	}
	if got := object.MarkElems(list, marked, nil); len(got) > 0 {
		t.Fatalf("%v are marked twice", got)
	}
	got := object.MarkedKeys(marked, len(found))
	if !value.Equal(got, keys) || got.String() != keys.String() {
		t.Fatalf("the marked keys are %s, want %s", got, keys)
	}
	for m := range keys.All() {
		if !got.Has(m) {
			t.Fatalf("%s is not found in %s", m, got)
		}
	}
}

// What a policy makes is the same, in whatever order it came.
func TestOrderOfInsertionMakesNoDifference(t *testing.T) {
	g := valuetest.New(22)
	for range 200 {
		var keys, vals []value.Value
		seen := value.NewSet(0)
		for range g.IntN(60) {
			if k := g.Value(2); seen.Add(k) {
				keys, vals = append(keys, k), append(vals, g.Value(1))
			}
		}
		var first []value.Value
		for range 3 {
			set, object := value.NewSet(g.IntN(20)), value.NewObject(g.IntN(20))
			for _, i := range g.Perm(len(keys)) {
				set.Add(keys[i])
				object.Insert(keys[i], vals[i])
			}
			for i, k := range keys {
				if !set.Has(k) || set.Add(k) || !value.Equal(object.Get(k), vals[i]) {
					t.Fatalf("%s is lost", k)
				}
			}
			sorted := slices.Clone(keys)
			slices.SortFunc(sorted, value.Compare)
			i := 0
			for k := range set.All() {
				if k.String() != sorted[i].String() {
					t.Fatalf("%s comes in place of %s", k, sorted[i])
				}
				i++
			}
			if first == nil {
				first = []value.Value{set, object}
			}
			if set.String() != first[0].String() || object.String() != first[1].String() || !value.Equal(set, first[0]) || !value.Equal(object, first[1]) {
				t.Fatalf("%s and %s are not %s and %s", set, object, first[0], first[1])
			}
			if all := value.SetOf(append(distinct(10), set, object)...); !all.Has(first[0]) || !all.Has(first[1]) {
				t.Fatalf("%s or %s is not found in a set", first[0], first[1])
			}
		}
	}
}

// A request is read in place, in AuthZEN's shape.
func TestInputIsTheRequest(t *testing.T) {
	properties := func(m map[string]any) policy.Properties {
		p, err := policy.NewProperties(m)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	in := value.Input{
		Request: policy.Request{
			Subject:  policy.Entity{Type: "user", ID: "ana", Properties: properties(map[string]any{"level": 3, "roles": []string{"a", "b"}})},
			Action:   policy.Action{Name: "read"},
			Resource: policy.Entity{Type: "file", ID: "/x", Properties: properties(map[string]any{"owner": nil})},
			Context:  properties(map[string]any{"address": "10.0.0.1"}),
		},
		Unix: 1795498859, // 2026-11-24T05:40:59Z
	}
	want := map[string]any{
		"subject":  map[string]any{"type": "user", "id": "ana", "properties": map[string]any{"level": json.Number("3"), "roles": []any{"a", "b"}}},
		"action":   map[string]any{"name": "read", "properties": map[string]any{}},
		"resource": map[string]any{"type": "file", "id": "/x", "properties": map[string]any{"owner": nil}},
		"context":  map[string]any{"address": "10.0.0.1"},
		"time":     map[string]any{"unix": json.Number("1795498859"), "hour": json.Number("5"), "minute": json.Number("40"), "date": "2026-11-24", "weekday": "tuesday"},
	}
	names := []value.Value{value.Text("subject"), value.Text("name"), value.Text("Subject"), value.Int(0), value.NullValue, value.Text("")}
	got := valuetest.Form{Name: "input", Value: in.Value()}
	checkSame(t, got, valuetest.Form{Name: "built", Value: valuetest.Built(want)}, names)
	for _, part := range []string{"subject", "action", "resource", "time"} {
		got := valuetest.Form{Name: part, Value: in.Value().GetText(part)}
		checkSame(t, got, valuetest.Form{Name: "built", Value: valuetest.Built(want[part])}, names)
	}
	// A prepared path leads to what its names lead to, one after the other.
	for _, names := range [][]string{
		{}, {"subject"}, {"subject", "id"}, {"subject", "type"}, {"subject", "properties"}, {"subject", "properties", "level"}, {"subject", "level"},
		{"action"}, {"action", "name"}, {"action", "properties"}, {"action", "name", "x"}, {"resource", "id"}, {"resource", "type"},
		{"resource", "properties", "owner"}, {"resource", "properties", "owner", "x"}, {"context"}, {"context", "address"}, {"context", "x"},
		{"time"}, {"time", "hour"}, {"time", "date"}, {"x"}, {"x", "y"}, {"Subject", "id"},
	} {
		path := (*value.Data)(nil).Path(names...)
		for _, v := range []value.Value{in.Value(), valuetest.Built(want), valuetest.Packed(want), valuetest.Held(want)} {
			wanted := valuetest.Built(want)
			for _, name := range names {
				wanted = wanted.GetText(name)
			}
			if got := path.Of(v); got.Defined() != wanted.Defined() || !value.Equal(got, wanted) {
				t.Errorf("%q is %s, want %s", names, got, wanted)
			}
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		if v := in.Value().GetText("subject").GetText("properties").GetText("level"); !v.Defined() {
			t.Error("no level")
		}
	}); n > 0 {
		t.Errorf("a look-up makes %g allocations", n)
	}
}
