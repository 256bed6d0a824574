package value

import "math/bits"

// Whoever looks up many keys of one object, or marks its members, works with
// positions: whole numbers from 0 to Len()-1, one for each member, fixed while
// nothing is added.

// HasPositions reports whether v is an object or a set whose members have
// positions: one that was built or is packed.
func (v Value) HasPositions() bool {
	return v.Kind() >= Object && (v.form() == built || v.form() == packed)
}

// InOneDocument reports whether a and b are packed in one Data, where a string has
// one number, so that [Value.MarkElems] looks at no text.
func InOneDocument(a, b Value) bool {
	return a.form() == packed && b.form() == packed && a.ref == b.ref
}

// IsPacked reports whether v is packed. The positions of its members are in OPA's
// order, then, and its keys are strings.
func (v Value) IsPacked() bool { return v.form() == packed }

// Find returns the position of a key, or -1.
func (v Value) Find(key Value) int {
	if v.form() == built {
		return v.ref.(*table).find(key)
	}
	if key.Kind() != String {
		return -1
	}
	d := v.ref.(*Data)
	if number, ok := d.name(key.text()); ok {
		return shapeFind(d.shapes, d.slots[v.num], number)
	}
	return -1
}

// Member returns the key and the value at a position; of a set both are the
// member.
func (v Value) Member(i int) (key, val Value) {
	if v.form() == packed {
		return v.ref.(*Data).member(v.num, i)
	}
	t := v.ref.(*table)
	if v.Kind() == Set {
		return t.keys[i], t.keys[i]
	}
	return t.keys[i], t.vals[i]
}

// MarkElems is for a search through a packed object whose members list others of
// its keys, in arrays of the same document: marked has a bit for each position. It
// marks the keys of v that are elements of list, and appends to queue those that
// were not marked before.
func (v Value) MarkElems(list Value, marked []uint64, queue []int32) []int32 {
	d := v.ref.(*Data)
	shape := d.slots[v.num]
	for _, elem := range d.elems(list.num) {
		s := slot(elem)
		if s>>payloadBits != tagText {
			continue
		}
		i := shapeFind(d.shapes, shape, uint32(s&payloadMask))
		if i >= 0 && marked[i/64]>>(i%64)&1 == 0 {
			marked[i/64] |= 1 << (i % 64)
			queue = append(queue, int32(i))
		}
	}
	return queue
}

// MarkedKeys returns the set of the keys of a packed object at the n positions that
// are marked.
func (v Value) MarkedKeys(marked []uint64, n int) Value {
	d := v.ref.(*Data)
	names := shapeNames(d.shapes, d.slots[v.num])
	t := &table{ordered: true, keys: make([]Value, 0, n)}
	for i, word := range marked {
		for ; word != 0; word &= word - 1 {
			t.keys = append(t.keys, Text(d.string(names[i*64+bits.TrailingZeros64(word)])))
		}
	}
	return Value{tag: Set.as(built), ref: t}
}
