package convert_test

import (
	"encoding/json"
	"flag"
	"slices"
	"strconv"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/microwall/microwall/policy/rego/internal/convert"
	"github.com/microwall/microwall/policy/rego/internal/value"
	"github.com/microwall/microwall/policy/rego/internal/value/valuetest"
)

// To try many values takes long, the more so under the race detector. An eighth of
// them is tried; all of them are by
//
//	go test ./policy/rego/internal/convert -full
var full = flag.Bool("full", false, "try all values that are made up")

// rounds are how many of n values are tried.
func rounds(n int) int {
	if *full {
		return n
	}
	return n / 8
}

func TestTextAndJSONAreOPAs(t *testing.T) {
	g := valuetest.New(11)
	for range rounds(5000) {
		v := g.Value(4)
		opa := convert.ToAST(v)
		if got, want := v.String(), opa.String(); got != want {
			t.Fatalf("%s, OPA says\n%s", got, want)
		}
		checkJSON(t, v, opa)
	}
	for _, text := range []string{".5", "5.", "+5", "05", "-.5", "0x1p4"} {
		v := value.NumberText(text)
		checkJSON(t, v, convert.ToAST(v))
		checkJSON(t, value.NewArray(v), convert.ToAST(value.NewArray(v)))
		for _, other := range []value.Value{value.Int(1), value.Text(text)} {
			o := value.NewObject(0)
			o.Insert(v, other)
			o.Insert(other, v)
			checkJSON(t, o, convert.ToAST(o))
		}
	}
}

func checkJSON(t *testing.T, v value.Value, opa ast.Value) {
	t.Helper()
	var want []byte
	doc, wantErr := ast.JSON(opa)
	if wantErr == nil {
		want, wantErr = json.Marshal(doc)
	}
	got, err := v.AppendJSON(nil)
	switch {
	case (err == nil) != (wantErr == nil), err != nil && err.Error() != wantErr.Error():
		t.Errorf("JSON of %s: %v, OPA says %v", v, err, wantErr)
	case string(got) != string(want):
		t.Errorf("JSON of %s:\n%s, OPA says\n%s", v, got, want)
	}
}

func TestOrderIsOPAs(t *testing.T) {
	g := valuetest.New(12)
	compare := func(v, w value.Value) {
		t.Helper()
		a, b := convert.ToAST(v), convert.ToAST(w)
		if got, want := value.Compare(v, w), sign(a.Compare(b)); got != want {
			t.Fatalf("%s to %s: %d, OPA says %d", v, w, got, want)
		}
		if got, want := value.Equal(v, w), ast.ValueEqual(a, b); got != want {
			t.Fatalf("%s is %s: %t, OPA says %t", v, w, got, want)
		}
	}
	for range rounds(20_000) {
		compare(value.NumberText(g.Number()), value.NumberText(g.Number()))
		compare(g.Scalar(), g.Scalar())
	}
	for range rounds(5000) {
		compare(g.Value(2), g.Value(2))
		compare(g.Value(4), g.Value(4))
		v := g.Value(4)
		w, err := convert.FromAST(convert.ToAST(v)) // the same, in another form
		if err != nil {
			t.Fatal(err)
		}
		compare(v, w)
	}
	for range rounds(300) {
		var list []value.Value
		var opa []*ast.Term
		for range g.IntN(60) {
			v := g.Value(2)
			list, opa = append(list, v), append(opa, convert.ToTerm(v))
		}
		slices.SortStableFunc(list, value.Compare)
		slices.SortStableFunc(opa, ast.TermValueCompare)
		if got, want := value.NewArray(list...).String(), ast.NewArray(opa...).String(); got != want {
			t.Fatalf("sorted:\n%s, OPA says\n%s", got, want)
		}
	}
}

// Which of two equal members stays, and what is found by which key.
func TestSetsAndObjectsAreOPAs(t *testing.T) {
	g := valuetest.New(13)
	for range rounds(1500) {
		set, object := value.NewSet(g.IntN(3)), value.NewObject(g.IntN(3))
		opaSet, opaObject := ast.NewSet(), ast.NewObject()
		hashes := map[int]int{}
		n, depth := g.IntN(12), 2
		if g.IntN(4) == 0 {
			n, depth = g.IntN(100), 1
		}
		for range n {
			k, v := g.Value(g.IntN(depth+1)), g.Value(1)
			if isNew := set.Add(k); isNew == opaSet.Contains(convert.ToTerm(k)) {
				t.Fatalf("%s is new in %s: %t", k, opaSet, isNew)
			}
			opaSet.Add(convert.ToTerm(k))
			// OPA's object loses a member when another one of the same hash (0, null
			// and false have one) is replaced.
			if hash := convert.ToAST(k).Hash(); !object.Get(k).Defined() {
				hashes[hash]++
			} else if hashes[hash] > 1 {
				continue
			}
			object.Insert(k, v)
			opaObject.Insert(convert.ToTerm(k), convert.ToTerm(v))
		}
		if set.String() != opaSet.String() || object.String() != opaObject.String() || set.Len() != opaSet.Len() || object.Len() != opaObject.Len() {
			t.Fatalf("%s and %s, OPA says\n%s and %s", set, object, opaSet, opaObject)
		}
		for range 20 {
			k := g.Value(g.IntN(depth + 1))
			if got, want := set.Has(k), opaSet.Contains(convert.ToTerm(k)); got != want {
				t.Fatalf("%s has %s: %t, OPA says %t", set, k, got, want)
			}
			got, want := object.Get(k), opaObject.Get(convert.ToTerm(k))
			if got.Defined() != (want != nil) || want != nil && got.String() != want.String() {
				t.Fatalf("%s at %s: %s, OPA says %s", object, k, got, want)
			}
		}
		list := g.Value(1)
		if list.Kind() == value.Array {
			k := value.NumberText(g.Number())
			got, want := list.Get(k), convert.ToAST(list).(*ast.Array).Get(convert.ToTerm(k))
			if got.Defined() != (want != nil) || want != nil && got.String() != want.String() {
				t.Fatalf("%s at %s: %s, OPA says %s", list, k, got, want)
			}
		}
	}
}

// Where OPA contradicts itself, values do not follow. When one of these fails,
// OPA has been mended, and the comments that speak of it can go.
func TestWhereValuesAreNotOPAs(t *testing.T) {
	// Numbers of more than 15 digits, with a point and zeros at the end, are
	// compared as doubles by OPA, others exactly: a = b and b = c, and a < c.
	a, b, c := ast.Number("0.1000000000000000000"), ast.Number("0.10000000000000000010"), ast.Number("0.1000000000000000001")
	if a.Compare(b) != 0 || b.Compare(c) != 0 || a.Compare(c) == 0 {
		t.Error("OPA compares all numbers exactly")
	}
	if value.Compare(value.NumberText(string(a)), value.NumberText(string(b))) >= 0 {
		t.Error("0.1000000000000000000 is 0.10000000000000000010")
	}
	// Beyond the range of doubles OPA finds a number in a set by its spelling.
	if ast.NumberTerm("1e400").Value.Compare(ast.Number("10e399")) != 0 || ast.NewSet(ast.NumberTerm("1e400")).Contains(ast.NumberTerm("10e399")) {
		t.Error("OPA finds 10e399 in {1e400}")
	}
	if !value.SetOf(append(strings(10), value.NumberText("1e400"))...).Has(value.NumberText("10e399")) {
		t.Error("10e399 is not in {1e400, ...}")
	}
	// An object of OPA's loses a member when another one of the same hash is
	// replaced.
	opa, object := ast.NewObject(), value.NewObject(0)
	for _, key := range []value.Value{value.Int(0), value.False, value.Int(0)} {
		opa.Insert(convert.ToTerm(key), ast.NullTerm())
		object.Insert(key, value.NullValue)
	}
	if opa.Get(ast.BooleanTerm(false)) != nil {
		t.Error("OPA keeps false beside 0")
	}
	if !object.Get(value.False).Defined() {
		t.Errorf("%s has no false", object)
	}
}

// strings returns n of them: enough to make a set look up by hash.
func strings(n int) (list []value.Value) {
	for i := range n {
		list = append(list, value.Text(strconv.Itoa(i)))
	}
	return list
}
