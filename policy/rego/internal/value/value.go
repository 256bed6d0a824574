package value

import "unsafe"

// Kind is the type of a value. Kinds are ordered as OPA orders values of
// different types.
type Kind uint8

// The kinds. The zero Kind is no value at all.
const (
	// Undefined is the kind of the zero [Value].
	Undefined Kind = iota
	Null
	Bool
	Number
	String
	Array
	Object
	Set
)

var kindNames = [...]string{"undefined", "null", "boolean", "number", "string", "array", "object", "set"}

// String returns the kind's name in OPA's words.
func (k Kind) String() string { return kindNames[k] }

// form is how a value is held.
type form uint8

const (
	// A boolean or a whole number in num; a string's length in num and its bytes
	// in ref; a *list, or a *table.
	built form = iota
	// A number with a spelling of its own, held as a string is.
	spelled
	// A finite double that is no whole number, in num, spelled as strconv does.
	double
	// An array or object in a *Data, at num.
	packed
	// An object or array of a request, as policy.Value.Held has it.
	held
	// A part of an *Input: num says which.
	view
)

// Value is a value, or with kind [Undefined] none.
type Value struct {
	tag tag
	num uint64
	ref any
}

// tag is a kind and a form: together, so that two values are passed in registers.
type tag uint8

const formBits = 3

func (k Kind) as(f form) tag { return tag(k)<<formBits | tag(f) }

// The constants among values.
var (
	NullValue = Value{tag: Null.as(built)}
	True      = Value{tag: Bool.as(built), num: 1}
	False     = Value{tag: Bool.as(built)}
)

// Boolean returns a boolean.
func Boolean(b bool) Value {
	if b {
		return True
	}
	return False
}

// Int returns a whole number.
func Int(i int64) Value { return Value{tag: Number.as(built), num: uint64(i)} }

// Text returns a string.
func Text(s string) Value {
	return Value{tag: String.as(built), num: uint64(len(s)), ref: unsafe.StringData(s)}
}

// Kind returns the kind of v.
func (v Value) Kind() Kind { return Kind(v.tag >> formBits) }

func (v Value) form() form { return form(v.tag & (1<<formBits - 1)) }

// Defined reports whether v is a value.
func (v Value) Defined() bool { return v.tag != 0 }

// IsFalse reports whether v is the boolean false.
func (v Value) IsFalse() bool { return v.Kind() == Bool && v.num == 0 }

// IsTrue reports whether v is the boolean true.
func (v Value) IsTrue() bool { return v.Kind() == Bool && v.num == 1 }

// Text returns a string's text, "" for every other kind.
func (v Value) Text() string {
	if v.Kind() != String {
		return ""
	}
	return v.text()
}

// IsLong reports whether v is a string of at least n bytes, or a number that is
// spelled in so many.
func (v Value) IsLong(n int) bool {
	return v.num >= uint64(n) && (v.Kind() == String || v.form() == spelled)
}

// text is for values that are known to be strings, or numbers in a spelling.
func (v Value) text() string {
	// Only Text and spelledNumber make such: ref is the first of num bytes.
	return unsafe.String(v.ref.(*byte), int(v.num))
}

// IsComposite reports whether v is an array, an object or a set.
func (v Value) IsComposite() bool { return v.Kind() >= Array }

// IsText reports whether v is the string s.
func (v Value) IsText(s string) bool {
	return v.Kind() == String && v.num == uint64(len(s)) && v.text() == s
}

// IsBuilt reports whether v is of kind k and was made by [NewArray], [NewObject]
// or [NewSet], or [Int], and, of an object or a set, can still be added to.
func (v Value) IsBuilt(k Kind) bool {
	if v.Kind() != k || v.form() != built {
		return false
	}
	t, ok := v.ref.(*table)
	return !ok || !t.sealed
}
