// Package valuetest makes values for tests: random ones of every kind and form,
// and one JSON document in each of the forms that package value reads.
package valuetest

import (
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// Gen makes random values. The same seed makes the same ones. Their leaves come
// from small pools, so that equal values, also in other spellings, are common.
type Gen struct {
	*rand.Rand
}

// New returns a generator.
func New(seed uint64) Gen { return Gen{rand.New(rand.NewPCG(seed, 0))} }

func pick[T any](g Gen, list ...T) T { return list[g.IntN(len(list))] }

// Value returns a value of any kind, nested at most depth levels deep, in any
// mixture of forms.
func (g Gen) Value(depth int) value.Value {
	if depth <= 0 || g.IntN(4) == 0 {
		return g.Scalar()
	}
	n := g.IntN(5)
	if g.IntN(8) == 0 {
		n = g.IntN(30)
	}
	switch g.IntN(5) {
	case 0:
		v := value.NewArray()
		for range n {
			v.Append(g.Value(depth - 1))
		}
		return v
	case 1:
		v := value.NewSet(g.IntN(n + 1))
		for range n {
			v.Add(g.Value(depth - 1))
		}
		return v
	case 2:
		v := value.NewObject(g.IntN(n + 1))
		for range n {
			v.Insert(g.Value(depth-1), g.Value(depth-1))
		}
		return v
	case 3:
		v := value.NewObject(n)
		for range n {
			v.Insert(value.Text(g.Text()), g.Value(depth-1))
		}
		return v
	}
	return pick(g, forms...).make(g.JSON(depth))
}

// Scalar returns null, a boolean, a number or a string.
func (g Gen) Scalar() value.Value {
	switch g.IntN(8) {
	case 0:
		return value.NullValue
	case 1:
		return value.Boolean(g.IntN(2) == 0)
	case 2, 3, 4:
		return value.NumberText(g.Number())
	}
	if g.IntN(10) == 0 {
		return value.Text("\xff" + g.Text()) // built-ins make such
	}
	return value.Text(g.Text())
}

// Text returns a string in valid UTF-8.
func (g Gen) Text() string {
	if g.IntN(3) == 0 {
		return pick(g, "", "1", "é", "日本", "\U0001F600", "\x00", "\t\n\r\b\f\v\x1b\x7f", `"\`, "<a href='x'>&</a>", "\u2028\u2029", "\ufeff", "\ufffd", "null", "true")
	}
	return pick(g, "a", "b", "c", "d", "e", "f", "g") + pick(g, "", "", "a", "b", "c", "bc")
}

// Number returns a number in JSON's grammar, as large and as odd as OPA takes
// them.
func (g Gen) Number() string {
	switch g.IntN(4) {
	case 0:
		return strconv.Itoa(g.IntN(12) - 3)
	case 1:
		return pick(g, "0", "-0", "0.0", "-0.0", "0e5", "1", "1.0", "1e0", "10e-1", "0.1e1", "1.00", "2", "2.0", "100", "1e2", "1E+2",
			"0.1", "0.10", "1e-1", "0.30000000000000004", "0.3", "-1", "-1.0", "-1.5", "1.5",
			"9007199254740992", "9007199254740993", "9007199254740993.0", "9007199254740992.5",
			"9223372036854775807", "9223372036854775807.0", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
			"18446744073709551615", "18446744073709551616", "1e19", "1e20", "100000000000000000000",
			"1e308", "-1e308", "1e-300", "2.2250738585072014e-308", "5e-324",
			"123456789012345678901234567890", "123456789012345678901234567890.0", "123456789012345678901234567891")
	case 2:
		return strconv.FormatFloat(g.NormFloat64()*pick(g, 1e-9, 1, 1e9), 'g', -1, 64)
	}
	return strconv.FormatInt(g.Int64()>>g.IntN(64), 10)
}

// JSON returns a JSON value that every form can hold, as encoding/json with
// UseNumber has it, nested at most depth levels deep.
func (g Gen) JSON(depth int) any {
	if depth <= 0 || g.IntN(4) == 0 {
		switch g.IntN(6) {
		case 0:
			return nil
		case 1:
			return g.IntN(2) == 0
		case 2, 3:
			return json.Number(g.exact())
		}
		return g.Text()
	}
	n := g.IntN(6)
	if g.IntN(8) == 0 {
		n = g.IntN(40)
	}
	if g.IntN(2) == 0 {
		list := make([]any, n)
		for i := range list {
			list[i] = g.JSON(depth - 1)
		}
		return list
	}
	m := make(map[string]any, n)
	for range n {
		name := g.Text()
		if n > 10 {
			name += strconv.Itoa(g.IntN(3 * n))
		}
		m[name] = g.JSON(depth - 1)
	}
	return m
}

// exact returns a number that means the same in every form: a request refuses
// some that came as doubles.
func (g Gen) exact() string {
	for {
		s := g.Number()
		if _, err := requestNumber(json.Number(s)); err == nil {
			return s
		}
	}
}

// Form is a way to hold a JSON document.
type Form struct {
	// Name of the form.
	Name  string
	Value value.Value
}

// Forms returns a document that [Gen.JSON] made in every form: built, packed,
// and as a request has it in Go's maps and in a policy.Composite.
func Forms(tb testing.TB, doc any) []Form {
	tb.Helper()
	list := make([]Form, len(forms))
	for i, f := range forms {
		list[i] = Form{f.name, f.make(doc)}
		if !list[i].Value.Defined() {
			tb.Fatalf("%v cannot be held as %s", doc, f.name)
		}
	}
	return list
}
