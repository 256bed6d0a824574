package value

import (
	"slices"
)

// list is an array that an evaluation has built.
type list struct {
	elems []Value
}

// NewArray returns an array of elems, which it keeps. What is appended to it goes
// elsewhere: [MakeArray] is for what is made by appending.
func NewArray(elems ...Value) Value {
	return Value{tag: Array.as(built), ref: &list{slices.Clip(elems)}}
}

// MakeArray returns an empty array to [Value.Append] to, with room for n elements.
func MakeArray(n int) Value {
	l := &list{}
	if n > 0 {
		l.elems = make([]Value, 0, n)
	}
	return Value{tag: Array.as(built), ref: l}
}

// NewObject returns an empty object to [Value.Insert] into, with room for n
// members.
func NewObject(n int) Value {
	t := &table{ordered: true}
	if n > 0 {
		room := make([]Value, 2*n)
		t.keys, t.vals = room[:0:n], room[n:n]
	}
	return Value{tag: Object.as(built), ref: t}
}

// NewSet returns an empty set to [Value.Add] to, with room for n members.
func NewSet(n int) Value {
	t := &table{ordered: true}
	if n > 0 {
		t.keys = make([]Value, 0, n)
	}
	return Value{tag: Set.as(built), ref: t}
}

// SetOf returns the set of elems.
func SetOf(elems ...Value) Value {
	s := NewSet(len(elems))
	for _, e := range elems {
		s.Add(e)
	}
	return s
}

// Append adds an element to an array that [MakeArray] or [NewArray] made and nobody
// else has seen yet.
func (v Value) Append(elem Value) {
	l := v.ref.(*list)
	l.elems = append(grown(l.elems), elem)
}

// Add adds a member to a set that [NewSet] made and nobody else has seen yet. It
// reports whether the member is new.
func (v Value) Add(member Value) bool {
	_, isNew := v.ref.(*table).add(member)
	return isNew
}

// Insert sets a member of an object that [NewObject] made and nobody else has
// seen yet. An existing member keeps its key's spelling and has its value
// replaced.
func (v Value) Insert(key, val Value) {
	t := v.ref.(*table)
	if i, isNew := t.add(key); !isNew {
		t.vals[i] = val
		return
	}
	t.vals = append(grown(t.vals), val)
}

// table holds the members of a set or an object in the order in which they came.
type table struct {
	keys []Value
	vals []Value // of an object
	// index finds keys: open addressing, 32 bits of the hash and 32 of the position
	// in keys plus one, 0 for none. It is nil while keys are few, and may be nil as
	// long as they are as they were when they were put in in order.
	index []uint64
	// order lists positions in keys in OPA's order; it is worked out when it is
	// asked for, unless ordered says that keys came in order.
	order   []uint32
	ordered bool
	// sealed is set once it is part of something else, or a constant.
	sealed bool
	// base is set for the copy of a part of a base document.
	base bool
}

// fewKeys are found faster one by one.
const fewKeys = 8

func (t *table) find(key Value) int {
	if t.index == nil {
		return t.findFew(key)
	}
	i, _ := t.lookUp(key, key.hash())
	return i
}

// findFew finds a key without the index.
func (t *table) findFew(key Value) int {
	if len(t.keys) > fewKeys {
		if i, ok := slices.BinarySearchFunc(t.keys, key, Compare); ok {
			return i
		}
		return -1
	}
	if key.tag == String.as(built) {
		text := key.text()
		for i := range t.keys {
			if k := &t.keys[i]; k.tag == String.as(built) && k.num == key.num && k.text() == text {
				return i
			}
		}
		return -1
	}
	for i := range t.keys {
		if Equal(t.keys[i], key) {
			return i
		}
	}
	return -1
}

// lookUp returns the position of a key, or -1 and the place for it in the index.
func (t *table) lookUp(key Value, hash uint64) (i, place int) {
	for p := probe(hash, len(t.index)); ; p = next(p, len(t.index)) {
		entry := t.index[p]
		if entry == 0 {
			return -1, p
		}
		if i := int(uint32(entry)) - 1; entry>>32 == hash>>32 && Equal(t.keys[i], key) {
			return i, p
		}
	}
}

// add adds a key, unless it is there already, and returns where it is.
func (t *table) add(key Value) (i int, isNew bool) {
	n := len(t.keys)
	if t.index == nil {
		if i := t.findFew(key); i >= 0 {
			return i, false
		}
		if n >= fewKeys {
			t.reindex(max(64, 2*cap(t.keys)))
		}
	} else if 2*n >= len(t.index) {
		t.reindex(2*len(t.index) + max(0, 256-len(t.index)))
	}
	if t.index != nil {
		hash := key.hash()
		i, place := t.lookUp(key, hash)
		if i >= 0 {
			return i, false
		}
		t.index[place] = hash>>32<<32 | uint64(n+1)
	}
	if t.ordered && n > 0 && !follows(t.keys[n-1], key) {
		t.ordered = false
	}
	t.order = nil
	t.keys = append(grown(t.keys), key)
	return n, true
}

// grown returns s with room for one more.
func grown(s []Value) []Value {
	switch n := len(s); {
	case n < cap(s):
		return s
	case n == 0:
		return make([]Value, 0, 4)
	case n < 64:
		return slices.Grow(s, 3*n)
	default:
		return slices.Grow(s, n)
	}
}

func (t *table) reindex(size int) {
	old := t.index
	t.index = make([]uint64, size)
	if old == nil {
		for i := range t.keys {
			hash := t.keys[i].hash()
			t.index[free(t.index, hash)] = hash>>32<<32 | uint64(i+1)
		}
		return
	}
	for _, entry := range old {
		if entry != 0 {
			t.index[free(t.index, entry)] = entry
		}
	}
}

// follows reports whether b is known to come after a: composites, which may take
// long to compare, are not compared.
func follows(a, b Value) bool {
	return a.Kind() < b.Kind() || a.Kind() == b.Kind() && !a.IsComposite() && Compare(a, b) <= 0
}

func (t *table) inOrder() bool { return t.ordered || t.order != nil }

// Freeze makes a value that was built safe for concurrent readers.
func Freeze(v Value) {
	if v.form() != built {
		return
	}
	switch ref := v.ref.(type) {
	case *list:
		for _, e := range ref.elems {
			Freeze(e)
		}
	case *table:
		new(comparer).sort(ref)
		ref.sealed = true
		for _, k := range ref.keys {
			Freeze(k)
		}
		for _, e := range ref.vals {
			Freeze(e)
		}
	}
}

// Seal says that v is complete: from now on [Value.IsBuilt] is false for it.
func Seal(v Value) {
	if t, ok := v.ref.(*table); ok && v.form() == built && !t.sealed {
		t.sealed = true
	}
}

// NewBase returns an empty object, with room for n members, that is to become the
// copy of a part of a base document: [Value.GetBase] treats it as such.
func NewBase(n int) Value {
	v := NewObject(n)
	v.ref.(*table).base = true
	return v
}
