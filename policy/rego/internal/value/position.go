package value

// Whoever looks up many keys of one object, or marks its members, works with
// positions: whole numbers from 0 to Len()-1, one for each member, fixed while
// nothing is added.

// HasPositions reports whether v is an object or a set whose members have
// positions: one that was built or is packed.
func (v Value) HasPositions() bool {
	return v.Kind() >= Object && (v.form() == built || v.form() == packed)
}

// InOneDocument reports whether a and b are packed in one Data, so that
// [Value.FindElem] looks at no text.
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

// FindElem returns the position of the key that is the i-th element of an array:
// Find(list.Elem(i)).
func (v Value) FindElem(list Value, i int) int {
	if InOneDocument(v, list) {
		d := v.ref.(*Data)
		s := slot(d.elems(list.num)[i])
		if s>>payloadBits != tagText {
			return -1
		}
		return shapeFind(d.shapes, d.slots[v.num], uint32(s&payloadMask))
	}
	return v.Find(list.Elem(i))
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
