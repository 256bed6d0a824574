package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds the nesting of properties, so that neither a hostile request
// nor a Go map that contains itself can exhaust a stack.
const maxDepth = 64

// Properties is an immutable JSON object: what a request says about a subject,
// an action, a resource or the call. The zero value is {}.
//
// It reads what it was made from in place: whoever made it must not change that
// before the last call that uses it has returned.
type Properties struct {
	object any // map[string]any or Composite; nil is {}
	size   int // in bytes, as JSON without escapes and white space
}

// NewProperties returns m as properties. Its values may be nil, bool, string,
// any Go integer or float, [encoding/json.Number], []string, []any and
// map[string]any. Anything else, and whatever would not mean the same at every
// way into a decision (NaN, infinities, whole numbers beyond 2^53-1 that come
// as floats, invalid UTF-8, nesting deeper than 64), is a [BadRequest] error
// that names the path. A nil map is {}.
func NewProperties(m map[string]any) (Properties, error) {
	if len(m) == 0 {
		return Properties{}, nil
	}
	return newProperties(m)
}

// ReadProperties returns an object that is held in another form than a Go map.
// It refuses what [NewProperties] refuses.
func ReadProperties(object Composite) (Properties, error) {
	return newProperties(object)
}

// CheckedProperties returns what [ReadProperties] returns, without a look at the
// object: for the one who has read it from bytes, has refused on that way all
// that ReadProperties refuses, and has counted its size as that does. A scalar
// counts 8 and the length of its text; an array 2, and 1 and its size for each
// element; an object 2, and 4, the length of its name and its size for each
// member.
func CheckedProperties(object Composite, size int) Properties {
	return Properties{object: object, size: size}
}

func newProperties(object any) (Properties, error) {
	size, fault := check(Value{typ: Object, ref: object}, 0)
	if fault != nil {
		return Properties{}, &Error{Kind: BadRequest, Message: fault.Error()}
	}
	return Properties{object: object, size: size}, nil
}

// fault says what is wrong with a value; the path to it is put together, the
// innermost step first, only once something is.
type fault struct {
	text string
	path []string
}

func (f *fault) Error() string {
	var b strings.Builder
	for _, v := range slices.Backward(f.path) {
		b.WriteString(v)
	}
	return strings.TrimPrefix(b.String(), ".") + " " + f.text
}

// check walks v and returns its size, or its first fault.
func check(v Value, depth int) (size int, _ *fault) {
	if depth > maxDepth {
		return 0, &fault{text: fmt.Sprintf("is nested deeper than %d levels", maxDepth)}
	}
	switch v.typ {
	case Absent:
		return 0, &fault{text: v.text}
	case Array:
		for i := range v.Len() {
			n, f := check(v.Index(i), depth+1)
			if f != nil {
				f.path = append(f.path, "["+strconv.Itoa(i)+"]")
				return 0, f
			}
			size += 1 + n
		}
		return size + 2, nil
	case Object:
		// A Go map is walked directly: an iterator would allocate.
		m, ok := v.ref.(map[string]any)
		if !ok {
			return checkComposite(v, depth)
		}
		for name, member := range m {
			n, f := checkMember(name, ValueOf(member), depth)
			if f != nil {
				return 0, f
			}
			size += n
		}
		return size + 2, nil
	}
	return 8 + len(v.text), nil
}

func checkComposite(v Value, depth int) (size int, _ *fault) {
	for name := range v.Names() {
		n, f := checkMember(name, v.Get(name), depth)
		if f != nil {
			return 0, f
		}
		size += n
	}
	return size + 2, nil
}

func checkMember(name string, v Value, depth int) (size int, _ *fault) {
	if !utf8.ValidString(name) {
		return 0, &fault{text: "has a member whose name is not valid UTF-8"}
	}
	n, f := check(v, depth+1)
	if f != nil {
		f.path = append(f.path, "."+name)
		return 0, f
	}
	return n + len(name) + 4, nil
}

// Value returns the properties as an object.
func (p Properties) Value() Value { return Value{typ: Object, ref: p.Held()} }

// Held returns what [Value.Held] returns of the object.
func (p Properties) Held() any {
	if p.object == nil {
		return map[string]any(nil)
	}
	return p.object
}

// Len returns the number of members.
func (p Properties) Len() int { return p.Value().Len() }

// Get returns the member of that name, and whether there is one.
func (p Properties) Get(name string) (Value, bool) {
	v := p.Value().Get(name)
	return v, v.typ != Absent
}

// Map returns a deep copy as [Value.Any] makes it.
func (p Properties) Map() map[string]any {
	return p.Value().Any().(map[string]any)
}

// String returns the properties as JSON in one spelling.
func (p Properties) String() string { return string(p.Value().AppendJSON(nil)) }

// MarshalJSON returns the properties as JSON in one spelling.
func (p Properties) MarshalJSON() ([]byte, error) { return p.Value().AppendJSON(nil), nil }
