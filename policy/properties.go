package policy

import (
	"fmt"
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
	object Value
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
	return newProperties(Value{typ: Object, ref: m})
}

// ReadProperties returns an object that is held in another form than a Go map.
// It refuses what [NewProperties] refuses.
func ReadProperties(object Composite) (Properties, error) {
	return newProperties(ObjectValue(object))
}

func newProperties(object Value) (Properties, error) {
	p := Properties{object: object}
	if fault := p.check(object, 0); fault != nil {
		return Properties{}, &Error{Kind: BadRequest, Message: fault.Error()}
	}
	return p, nil
}

// fault says what is wrong with a value; the path to it is put together, the
// innermost step first, only once something is.
type fault struct {
	text string
	path []string
}

func (f *fault) Error() string {
	var b strings.Builder
	for i := len(f.path) - 1; i >= 0; i-- {
		b.WriteString(f.path[i])
	}
	return strings.TrimPrefix(b.String(), ".") + " " + f.text
}

// check walks v, adds up its size and finds its first fault.
func (p *Properties) check(v Value, depth int) *fault {
	if depth > maxDepth {
		return &fault{text: fmt.Sprintf("is nested deeper than %d levels", maxDepth)}
	}
	switch v.typ {
	case Absent:
		return &fault{text: v.fault}
	case Null, Bool, Number:
		p.size += 8 + len(v.text)
	case String:
		p.size += 2 + len(v.text)
	case Array:
		p.size += 2
		for i := range v.Len() {
			if f := p.check(v.Index(i), depth+1); f != nil {
				f.path = append(f.path, "["+strconv.Itoa(i)+"]")
				return f
			}
		}
	case Object:
		p.size += 2
		for name := range v.Names() {
			p.size += 4 + len(name)
			if !utf8.ValidString(name) {
				return &fault{text: "has a member whose name is not valid UTF-8"}
			}
			if f := p.check(v.Get(name), depth+1); f != nil {
				f.path = append(f.path, "."+name)
				return f
			}
		}
	}
	return nil
}

// Value returns the properties as an object.
func (p Properties) Value() Value {
	if p.object.typ == Absent {
		return Value{typ: Object, ref: map[string]any(nil)}
	}
	return p.object
}

// Len returns the number of members.
func (p Properties) Len() int { return p.object.Len() }

// Get returns the member of that name, and whether there is one.
func (p Properties) Get(name string) (Value, bool) {
	v := p.object.Get(name)
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
