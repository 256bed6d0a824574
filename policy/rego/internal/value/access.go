package value

import (
	"slices"
	"strconv"

	"github.com/microwall/microwall/policy"
)

// Len returns how many elements or members v has, 0 if it is no composite.
func (v Value) Len() int {
	if v.Kind() < Array {
		return 0
	}
	switch v.form() {
	case built:
		if v.Kind() == Array {
			return len(v.ref.(*list).elems)
		}
		return len(v.ref.(*table).keys)
	case packed:
		return v.ref.(*Data).length(v.num, v.Kind())
	case view:
		return len(viewMembers[v.num])
	}
	switch ref := v.ref.(type) {
	case map[string]any:
		return len(ref)
	case []any:
		return len(ref)
	case []string:
		return len(ref)
	}
	return v.ref.(policy.Composite).Len()
}

// Elem returns an array's element, 0 <= i < Len().
func (v Value) Elem(i int) Value {
	switch v.form() {
	case built:
		return v.ref.(*list).elems[i]
	case packed:
		return v.ref.(*Data).elem(v.num, i)
	}
	switch ref := v.ref.(type) {
	case []any:
		return fromGo(ref[i])
	case []string:
		return Text(ref[i])
	}
	return FromPolicy(v.ref.(policy.Composite).Index(i))
}

// Get looks key up: an object's member, an array's element, a set's member, which
// is the key itself, in its spelling. Whatever has no such thing gives the
// undefined Value.
func (v Value) Get(key Value) Value {
	switch v.Kind() {
	case Object:
		if v.form() == built {
			t := v.ref.(*table)
			if i := t.find(key); i >= 0 {
				return t.vals[i]
			}
			return Value{}
		}
		if key.Kind() != String {
			return Value{} // only what a policy makes has other keys
		}
		return v.GetText(key.text())
	case Array:
		if i, ok := key.PlainInt64(); ok && uint64(i) < uint64(v.Len()) {
			return v.Elem(int(i))
		}
	case Set:
		if v.ref.(*table).find(key) >= 0 {
			return key
		}
	}
	return Value{}
}

// GetBase looks key up as OPA does on a path into a base document: a path is
// made of strings there, so that 2 finds an object's member "2", and "2" an array's
// element. What is no part of a base document is looked up as by [Value.Get].
func (v Value) GetBase(key Value) Value {
	switch {
	case v.Kind() == Object && key.Kind() == Number && v.isBase():
		return v.GetText(key.Numeral())
	case v.Kind() == Array && key.Kind() == String && v.isBase():
		if i, err := strconv.Atoi(key.text()); err == nil && i >= 0 && i < v.Len() {
			return v.Elem(i)
		}
		return Value{}
	}
	return v.Get(key)
}

func (v Value) isBase() bool {
	if v.form() == packed {
		return true
	}
	t, ok := v.ref.(*table)
	return ok && t.base
}

// GetText looks up a name that is a string: an object's member, or a set's.
func (v Value) GetText(name string) Value {
	if v.Kind() != Object {
		if v.Kind() == Set {
			return v.Get(Text(name))
		}
		return Value{}
	}
	switch v.form() {
	case built:
		t := v.ref.(*table)
		if i := t.find(Text(name)); i >= 0 {
			return t.vals[i]
		}
		return Value{}
	case packed:
		return v.ref.(*Data).get(v.num, name)
	case view:
		return v.ref.(*Input).get(v.num, name)
	}
	if m, ok := v.ref.(map[string]any); ok {
		if member, ok := m[name]; ok {
			return fromGo(member)
		}
		return Value{}
	}
	return FromPolicy(v.ref.(policy.Composite).Get(name))
}

// Has reports whether a set has the member.
func (v Value) Has(member Value) bool {
	return v.Kind() == Set && v.ref.(*table).find(member) >= 0
}

// All yields the members of an object and of a set (as key and value) and the
// elements of an array with their index, in OPA's order.
func (v Value) All() func(yield func(key, val Value) bool) {
	return func(yield func(key, val Value) bool) { v.Scan().All()(yield) }
}

// Cursor goes through a composite. The zero Cursor has nothing to go through.
type Cursor struct {
	v       Value
	next, n int
	names   []string // of a held object
	anyway  bool     // in any order
}

// Scan returns a cursor in OPA's order; over nothing, if v is no composite. Putting
// the members in that order may take long: what bounds that is [Value.ScanFor].
func (v Value) Scan() Cursor {
	if !v.InOrder() {
		return new(comparer).scan(v)
	}
	c := Cursor{v: v, n: v.Len()}
	if v.tag == Object.as(held) {
		c.names = v.names()
	}
	return c
}

// members returns a cursor in any order, which costs no sorting.
func (v Value) members() Cursor {
	c := Cursor{v: v, n: v.Len(), anyway: true}
	if v.tag == Object.as(held) {
		c.names = v.names()
	}
	return c
}

// names returns the names of a held object, in any order.
func (v Value) names() []string {
	names := make([]string, 0, v.Len())
	if m, ok := v.ref.(map[string]any); ok {
		for name := range m {
			names = append(names, name)
		}
		return names
	}
	return slices.AppendSeq(names, v.ref.(policy.Composite).Names())
}

// All yields what the cursor has not gone through yet, as [Value.All] does.
func (c Cursor) All() func(yield func(key, val Value) bool) {
	return func(yield func(key, val Value) bool) {
		var k, e Value
		for c.Next(&k, &e) {
			if !yield(k, e) {
				return
			}
		}
	}
}

// Next sets key and val to the next member and reports whether there was one.
func (c *Cursor) Next(key, val *Value) bool {
	if c.next >= c.n {
		return false
	}
	i := c.next
	c.next++
	v := c.v
	if v.Kind() == Array {
		*key, *val = Int(int64(i)), v.Elem(i)
		return true
	}
	switch v.form() {
	case built:
		t := v.ref.(*table)
		if !c.anyway && !t.ordered {
			i = int(t.order[i])
		}
		*key = t.keys[i]
		if v.Kind() == Set {
			*val = *key
		} else {
			*val = t.vals[i]
		}
	case packed:
		*key, *val = v.ref.(*Data).member(v.num, i)
	case view:
		name := viewMembers[v.num][i]
		*key, *val = Text(name), v.ref.(*Input).get(v.num, name)
	default:
		*key, *val = Text(c.names[i]), v.GetText(c.names[i])
	}
	return true
}
