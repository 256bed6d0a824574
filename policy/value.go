package policy

import (
	"encoding/json"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Type is the type of a JSON value.
type Type uint8

// The types of JSON values. The zero Type is no value at all.
const (
	// Absent is the type of the zero [Value]: there is nothing.
	Absent Type = iota
	Null
	Bool
	Number
	String
	Array
	Object
)

var typeNames = [...]string{"absent", "null", "boolean", "number", "string", "array", "object"}

// String returns the type's name in JSON's words.
func (t Type) String() string { return typeNames[t] }

// maxExact is the largest whole number up to which every whole number is a
// double of its own (RFC 7493, section 2.2).
const maxExact = 1<<53 - 1

// numeral says how a number is held.
type numeral uint8

const (
	signed   numeral = iota // bits is an int64
	unsigned                // bits is a uint64
	double                  // bits is a float64, and not a whole number
	spelled                 // text is a whole number too large for the others
)

// Value is one JSON value inside [Properties], read in place: nothing is copied
// or converted before it is asked for. The zero Value is absent.
//
// Numbers have one spelling, whatever they came as: 1, 1.0 and 1e0 are the same
// value, as they are to a door that is handed doubles.
type Value struct {
	typ     Type
	numeral numeral
	bits    uint64
	text    string // of an absent value: why it is none
	ref     any    // map[string]any, []any, []string or Composite
}

// Composite is a JSON object or array that is held in another form than Go's
// maps and slices, for instance protobuf's Struct, and is read in place. An
// implementation must not change while it is read, and must be comparable to
// nothing: it is only ever called. Its values are made with [StringValue] or
// [CheckedStringValue], [FloatValue], [BoolValue], [NullValue], [ObjectValue], [ArrayValue] and, for
// what is no JSON value, [InvalidValue].
//
// One that knows without a look at its values whether it is an array of strings
// alone, as a call path is, may say so by a method OnlyTexts() bool.
type Composite interface {
	// Len is the number of members or elements.
	Len() int
	// Get returns an object's member, or the zero Value.
	Get(name string) Value
	// Index returns an array's element, 0 <= i < Len().
	Index(i int) Value
	// Names yields an object's member names in any order.
	Names() iter.Seq[string]
}

// NullValue returns null.
func NullValue() Value { return Value{typ: Null} }

// BoolValue returns true or false.
func BoolValue(b bool) Value {
	v := Value{typ: Bool}
	if b {
		v.bits = 1
	}
	return v
}

// StringValue returns s, or an invalid value if s is not UTF-8.
func StringValue(s string) Value {
	if !utf8.ValidString(s) {
		return InvalidValue("is not valid UTF-8")
	}
	return Value{typ: String, text: s}
}

// CheckedStringValue returns s, which has been found to be UTF-8, as
// [CheckedProperties] requires: a value is looked up more often than it is read.
func CheckedStringValue(s string) Value { return Value{typ: String, text: s} }

// FloatValue returns f. What a double cannot say exactly is invalid: NaN,
// infinities, and whole numbers beyond 2^53-1, which may have been another
// number before they became a double.
func FloatValue(f float64) Value {
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return InvalidValue("is not a finite number")
	case f != math.Trunc(f):
		return Value{typ: Number, numeral: double, bits: math.Float64bits(f)}
	case math.Abs(f) > maxExact:
		return InvalidValue("is a whole number beyond 2^53-1 that came as a double, which may have changed it; send it as a string")
	}
	return intValue(int64(f))
}

// ObjectValue returns an object that c holds.
func ObjectValue(c Composite) Value { return Value{typ: Object, ref: c} }

// ArrayValue returns an array that c holds.
func ArrayValue(c Composite) Value { return Value{typ: Array, ref: c} }

// InvalidValue returns a value that [NewProperties] and [ReadProperties] refuse
// with the given fault, for instance "is not valid UTF-8". To everything else
// it is absent.
func InvalidValue(fault string) Value { return Value{text: fault} }

func intValue(i int64) Value { return Value{typ: Number, bits: uint64(i)} }

func uintValue(u uint64) Value {
	if u <= math.MaxInt64 {
		return intValue(int64(u))
	}
	return Value{typ: Number, numeral: unsigned, bits: u}
}

// ValueOf returns a Go value as [NewProperties] takes it. What that refuses is
// invalid.
func ValueOf(x any) Value {
	switch x := x.(type) {
	case nil:
		return NullValue()
	case bool:
		return BoolValue(x)
	case string:
		return StringValue(x)
	case map[string]any:
		return Value{typ: Object, ref: x}
	case []any, []string:
		return Value{typ: Array, ref: x}
	case json.Number:
		return numberValue(string(x))
	case float64:
		return FloatValue(x)
	case float32:
		return FloatValue(float64(x))
	case int:
		return intValue(int64(x))
	case int8:
		return intValue(int64(x))
	case int16:
		return intValue(int64(x))
	case int32:
		return intValue(int64(x))
	case int64:
		return intValue(x)
	case uint:
		return uintValue(uint64(x))
	case uint8:
		return uintValue(uint64(x))
	case uint16:
		return uintValue(uint64(x))
	case uint32:
		return uintValue(uint64(x))
	case uint64:
		return uintValue(x)
	}
	return InvalidValue("has a Go type that JSON has no value for; use nil, bool, string, a number, []any, []string or map[string]any")
}

// numberValue reads a number in JSON's grammar.
func numberValue(s string) Value {
	switch whole, ok := scanNumber(s); {
	case !ok:
		return InvalidValue("is not a number in JSON's grammar")
	case !whole || len(s) > len("-18446744073709551615"):
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return InvalidValue("is a number beyond the range of a double")
		}
		if !whole {
			return FloatValue(f)
		}
	}
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return intValue(i)
	}
	if u, err := strconv.ParseUint(s, 10, 64); err == nil {
		return uintValue(u)
	}
	return Value{typ: Number, numeral: spelled, text: s}
}

// scanNumber reports whether s is a number as RFC 8259, section 6 has it, and
// whether it has neither fraction nor exponent.
func scanNumber(s string) (whole, ok bool) {
	s = strings.TrimPrefix(s, "-")
	digits := func() int {
		n := 0
		for n < len(s) && '0' <= s[n] && s[n] <= '9' {
			n++
		}
		return n
	}
	n := digits()
	if n == 0 || n > 1 && s[0] == '0' {
		return false, false
	}
	s, whole = s[n:], true
	if strings.HasPrefix(s, ".") {
		s, whole = s[1:], false
		if n = digits(); n == 0 {
			return false, false
		}
		s = s[n:]
	}
	if s != "" && (s[0] == 'e' || s[0] == 'E') {
		s, whole = s[1:], false
		if s != "" && (s[0] == '+' || s[0] == '-') {
			s = s[1:]
		}
		if n = digits(); n == 0 {
			return false, false
		}
		s = s[n:]
	}
	return whole, s == ""
}

// Type returns the type, [Absent] if there is no value.
func (v Value) Type() Type { return v.typ }

// Bool returns the boolean, false if v is none.
func (v Value) Bool() bool { return v.typ == Bool && v.bits == 1 }

// Text returns the string, "" if v is none.
func (v Value) Text() string {
	if v.typ != String {
		return ""
	}
	return v.text
}

// Int64 returns the number if it is a whole one within the range of int64.
func (v Value) Int64() (int64, bool) {
	if v.typ != Number || v.numeral != signed {
		return 0, false
	}
	return int64(v.bits), true
}

// Number returns the number in its one spelling, "" if v is none.
func (v Value) Number() json.Number {
	if v.typ != Number {
		return ""
	}
	return json.Number(v.appendNumber(nil))
}

// Float64 returns the number as a double, and whether it is exactly that
// number or, for a fraction, the nearest one to it.
func (v Value) Float64() (f float64, exact bool) {
	if v.typ != Number {
		return 0, false
	}
	switch v.numeral {
	case signed:
		i := int64(v.bits)
		return float64(i), -maxExact <= i && i <= maxExact
	case double:
		return math.Float64frombits(v.bits), true
	}
	return 0, false
}

func (v Value) appendNumber(dst []byte) []byte {
	switch v.numeral {
	case signed:
		return strconv.AppendInt(dst, int64(v.bits), 10)
	case unsigned:
		return strconv.AppendUint(dst, v.bits, 10)
	case double:
		return strconv.AppendFloat(dst, math.Float64frombits(v.bits), 'g', -1, 64)
	}
	return append(dst, v.text...)
}

// Held returns what an object or an array is read from: a map[string]any, an
// []any, an []string or a [Composite]; nil for every other value. It is for
// readers that keep many values and cannot afford a Value for each.
func (v Value) Held() any { return v.ref }

// Len returns how many elements an array or members an object has, else 0.
func (v Value) Len() int {
	switch ref := v.ref.(type) {
	case map[string]any:
		return len(ref)
	case []any:
		return len(ref)
	case []string:
		return len(ref)
	case Composite:
		return ref.Len()
	}
	return 0
}

// Index returns an array's element. It panics if i is out of range, and if v
// is no array.
func (v Value) Index(i int) Value {
	switch ref := v.ref.(type) {
	case []any:
		return ValueOf(ref[i])
	case []string:
		return StringValue(ref[i])
	case Composite:
		return ref.Index(i)
	}
	panic("policy: Index of a value that is no array")
}

// Get returns an object's member; the zero Value if there is none, or if v is
// no object.
func (v Value) Get(name string) Value {
	if v.typ != Object {
		return Value{}
	}
	if ref, ok := v.ref.(map[string]any); ok {
		member, ok := ref[name]
		if !ok {
			return Value{}
		}
		return ValueOf(member)
	}
	return v.ref.(Composite).Get(name)
}

// Names yields the names of an object's members in any order, and nothing if v
// is no object.
func (v Value) Names() iter.Seq[string] {
	if v.typ != Object {
		return func(func(string) bool) {}
	}
	if ref, ok := v.ref.(map[string]any); ok {
		return maps.Keys(ref)
	}
	return v.ref.(Composite).Names()
}

// Any returns a deep copy as Go values: nil, bool, string, [json.Number], []any
// and map[string]any. It returns nil for an absent value too.
func (v Value) Any() any {
	switch v.typ {
	case Bool:
		return v.Bool()
	case String:
		return v.text
	case Number:
		return v.Number()
	case Array:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = v.Index(i).Any()
		}
		return list
	case Object:
		m := make(map[string]any, v.Len())
		for name := range v.Names() {
			m[name] = v.Get(name).Any()
		}
		return m
	}
	return nil
}

// AppendJSON appends v as JSON in one spelling: members sorted by name, no
// white space. Two values that differ have different spellings. An absent value
// is spelled as null.
func (v Value) AppendJSON(dst []byte) []byte {
	switch v.typ {
	case Bool:
		return strconv.AppendBool(dst, v.Bool())
	case String:
		return appendString(dst, v.text)
	case Number:
		return v.appendNumber(dst)
	case Array:
		dst = append(dst, '[')
		for i := range v.Len() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = v.Index(i).AppendJSON(dst)
		}
		return append(dst, ']')
	case Object:
		dst = append(dst, '{')
		for i, name := range slices.Sorted(v.Names()) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, name)
			dst = append(dst, ':')
			dst = v.Get(name).AppendJSON(dst)
		}
		return append(dst, '}')
	}
	return append(dst, "null"...)
}

const hexDigits = "0123456789abcdef"

// appendString quotes valid UTF-8, escaping only what JSON demands.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
