package value

import (
	"slices"
)

// list is an array that an evaluation has built.
type list struct {
	elems []Value
}

// NewArray returns an array of elems, which it keeps.
func NewArray(elems ...Value) Value { return Value{tag: Array.as(built), ref: &list{elems}} }

// NewObject returns an empty object to [Value.Insert] into, with room for n
// members.
func NewObject(n int) Value {
	t := &table{ordered: true}
	t.grow(n, true)
	return Value{tag: Object.as(built), ref: t}
}

// NewSet returns an empty set to [Value.Add] to, with room for n members.
func NewSet(n int) Value {
	t := &table{ordered: true}
	t.grow(n, false)
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

// Append adds an element to an array that [NewArray] made and nobody else has
// seen yet.
func (v Value) Append(elem Value) {
	l := v.ref.(*list)
	l.elems = append(l.elems, elem)
}

// Add adds a member to a set that [NewSet] made and nobody else has seen yet. It
// reports whether the member is new.
func (v Value) Add(member Value) bool {
	t := v.ref.(*table)
	if t.find(member) >= 0 {
		return false
	}
	t.add(member)
	return true
}

// Insert sets a member of an object that [NewObject] made and nobody else has
// seen yet. An existing member keeps its key's spelling and has its value
// replaced.
func (v Value) Insert(key, val Value) {
	t := v.ref.(*table)
	if i := t.find(key); i >= 0 {
		t.vals[i] = val
		return
	}
	t.add(key)
	t.vals = append(t.vals, val)
}

// table holds the members of a set or an object in the order in which they came.
type table struct {
	keys []Value
	vals []Value // of an object
	// index finds keys by their hash: open addressing, a position in keys plus
	// one, 0 for none. It is nil while keys are few.
	index []uint32
	// order lists positions in keys in OPA's order; it is worked out when it is
	// asked for, unless ordered says that keys came in order.
	order   []uint32
	ordered bool
}

// fewKeys are found faster one by one.
const fewKeys = 8

func (t *table) grow(n int, object bool) {
	if n == 0 {
		return
	}
	t.keys = slices.Grow(t.keys, n)
	if object {
		t.vals = slices.Grow(t.vals, n)
	}
}

func (t *table) find(key Value) int {
	if t.index == nil {
		for i := range t.keys {
			if Equal(t.keys[i], key) {
				return i
			}
		}
		return -1
	}
	mask := uint64(len(t.index) - 1)
	for slot := key.hash() & mask; ; slot = (slot + 1) & mask {
		i := t.index[slot]
		if i == 0 {
			return -1
		}
		if Equal(t.keys[i-1], key) {
			return int(i - 1)
		}
	}
}

// add appends a key that is not there yet.
func (t *table) add(key Value) {
	if t.ordered && len(t.keys) > 0 && Compare(t.keys[len(t.keys)-1], key) > 0 {
		t.ordered = false
	}
	t.order = nil
	t.keys = append(t.keys, key)
	switch n := len(t.keys); {
	case n <= fewKeys:
	case 2*n > len(t.index):
		t.index = make([]uint32, max(32, 2*len(t.index)))
		for i := range t.keys {
			t.enter(i)
		}
	default:
		t.enter(n - 1)
	}
}

func (t *table) enter(i int) {
	mask := uint64(len(t.index) - 1)
	slot := t.keys[i].hash() & mask
	for t.index[slot] != 0 {
		slot = (slot + 1) & mask
	}
	t.index[slot] = uint32(i + 1)
}

// at returns the position of the i-th key in OPA's order.
func (t *table) at(i int) int {
	if t.ordered {
		return i
	}
	t.sort()
	return int(t.order[i])
}

func (t *table) sort() {
	if t.ordered || t.order != nil {
		return
	}
	t.order = make([]uint32, len(t.keys))
	for i := range t.order {
		t.order[i] = uint32(i)
	}
	slices.SortFunc(t.order, func(a, b uint32) int { return Compare(t.keys[a], t.keys[b]) })
}

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
		ref.sort()
		for _, k := range ref.keys {
			Freeze(k)
		}
		for _, e := range ref.vals {
			Freeze(e)
		}
	}
}
