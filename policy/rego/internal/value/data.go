package value

import "hash/maphash"

// Data is a JSON document in one packed, immutable block: four bytes an element
// or a member, each string once, the names of objects that have the same ones
// once. Nothing in it is a pointer to something small, so that a garbage collector
// has nothing to follow, however large it is.
//
// A value is a slot of 32 bits: three of tag and 29 of payload. An array is a slot
// with its length, followed by its elements; an object one with the position of
// its shape, followed by its values in the order of the shape's names.
type Data struct {
	root  slot
	slots []uint32 // slots, and what starts an array or an object
	// shapes are lists of names: how many, the strings' numbers in the order of the
	// names, and if they are more than a few an index: positions plus one, found
	// by hash. Shape 0 has none.
	shapes []uint32
	// wide has the numbers that do not fit into a slot: int64s, and the bits of
	// doubles.
	wide []uint64
	// text has all strings, one after the other; string i is text[ends[i]:ends[i+1]].
	text string
	ends []uint32
	// names finds the number of a string that names a member by the hash of its
	// text.
	names []uint32
}

type slot uint32

// Tags of slots.
const (
	tagConstant = iota // payload: 0 null, 1 false, 2 true
	tagInt             // payload: the number
	tagWide            // payload: index into wide, of an int64
	tagDouble          // payload: index into wide, of a double
	tagNumeral         // payload: number of the string that spells it
	tagText            // payload: number of the string
	tagArray           // payload: index into slots
	tagObject          // payload: index into slots
)

const (
	payloadBits = 29
	payloadMask = 1<<payloadBits - 1
	maxInt      = 1<<(payloadBits-1) - 1 // that fits into a slot
)

func makeSlot(tag uint32, payload int) slot {
	return slot(tag<<payloadBits | uint32(payload)&payloadMask)
}

// Value returns the document.
func (d *Data) Value() Value { return d.value(d.root) }

func (d *Data) value(s slot) Value {
	payload := uint32(s & payloadMask)
	switch s >> payloadBits {
	case tagText:
		return Text(d.string(payload))
	case tagObject:
		return Value{tag: Object.as(packed), num: uint64(payload), ref: d}
	case tagArray:
		return Value{tag: Array.as(packed), num: uint64(payload), ref: d}
	case tagInt:
		return Int(int64(int32(s<<(32-payloadBits)) >> (32 - payloadBits)))
	case tagWide:
		return Value{tag: Number.as(built), num: d.wide[payload]}
	case tagDouble:
		return Value{tag: Number.as(double), num: d.wide[payload]}
	case tagNumeral:
		return spelledNumber(d.string(payload))
	}
	switch payload {
	case 1:
		return False
	case 2:
		return True
	}
	return NullValue
}

func (d *Data) string(number uint32) string { return d.text[d.ends[number]:d.ends[number+1]] }

func (d *Data) length(at uint64, k Kind) int {
	if k == Array {
		return int(d.slots[at])
	}
	return int(d.shapes[d.slots[at]])
}

// elems returns the elements of an array.
func (d *Data) elems(at uint64) []uint32 {
	n := uint64(d.slots[at])
	return d.slots[at+1 : at+1+n]
}

func (d *Data) elem(at uint64, i int) Value { return d.value(slot(d.elems(at)[i])) }

// member returns a member, 0 <= i < length.
func (d *Data) member(at uint64, i int) (key, val Value) {
	name := d.shapes[d.slots[at]+1+uint32(i)]
	return Text(d.string(name)), d.value(slot(d.slots[at+1+uint64(i)]))
}

func (d *Data) get(at uint64, name string) Value {
	number, ok := d.name(name)
	if !ok {
		return Value{}
	}
	return d.getNumber(at, number)
}

// getNumber looks up a name that is known by its number.
func (d *Data) getNumber(at uint64, name uint32) Value {
	if i := shapeFind(d.shapes, d.slots[at], name); i >= 0 {
		return d.value(slot(d.slots[at+1+uint64(i)]))
	}
	return Value{}
}

// name returns the number of a member's name, if any object has one such.
func (d *Data) name(name string) (uint32, bool) {
	for p := probe(maphash.String(seed, name), len(d.names)); ; p = next(p, len(d.names)) {
		number := d.names[p]
		if number == 0 {
			return 0, false
		}
		if number--; d.string(number) == name {
			return number, true
		}
	}
}

// Key is a member's name that is known before it is looked up.
type Key struct {
	name   string
	data   *Data
	number uint32
	in     bool
}

// Key prepares the look-up of a name. d may be nil.
func (d *Data) Key(name string) Key {
	k := Key{name: name, data: d}
	if d != nil {
		k.number, k.in = d.name(name)
	}
	return k
}

// GetKey looks up a member by a prepared name, as [Value.GetText] does.
func (v Value) GetKey(k *Key) Value {
	if v.form() == packed && v.Kind() == Object {
		if d := v.ref.(*Data); d == k.data {
			if !k.in {
				return Value{}
			}
			return d.getNumber(v.num, k.number)
		}
	}
	return v.GetText(k.name)
}

// indexSize is how many places an index of n has: linear probing, two thirds of
// them taken.
func indexSize(n int) int { return n + n/2 }

// probe returns the place at which the search for a hash starts, and next the one
// after p.
func probe(hash uint64, size int) int { return int(hash >> 32 * uint64(size) >> 32) }

func next(p, size int) int {
	if p++; p < size {
		return p
	}
	return 0
}

func shapeNames(shapes []uint32, shape uint32) []uint32 {
	n := shapes[shape]
	return shapes[shape+1 : shape+1+n]
}

// shapeFind returns the position of a name, or -1.
func shapeFind(shapes []uint32, shape, name uint32) int {
	names := shapeNames(shapes, shape)
	if len(names) <= fewKeys {
		for i := range names {
			if names[i] == name {
				return i
			}
		}
		return -1
	}
	index := shapes[shape+1+uint32(len(names)):][:indexSize(len(names))]
	for p := probe(mix(uint64(name)), len(index)); ; p = next(p, len(index)) {
		i := int(index[p]) - 1
		if i < 0 {
			return -1
		}
		if names[i] == name {
			return i
		}
	}
}

// shapeSize is how many words a shape takes.
func shapeSize(n int) int {
	if n <= fewKeys {
		return 1 + n
	}
	return 1 + n + indexSize(n)
}

// appendShape appends a shape.
func appendShape(shapes, names []uint32) []uint32 {
	shapes = append(append(shapes, uint32(len(names))), names...)
	if len(names) <= fewKeys {
		return shapes
	}
	start := len(shapes)
	shapes = append(shapes, make([]uint32, indexSize(len(names)))...)
	index := shapes[start:]
	for i, name := range names {
		index[free(index, mix(uint64(name)))] = uint32(i + 1)
	}
	return shapes
}
