package value

import (
	"hash/maphash"
	"slices"
	"unsafe"
)

// packer builds a Data from the leaves up.
type packer struct {
	slots, shapes, ends []uint32
	wide                []uint64
	text                []byte
	// strings finds a string: 32 bits of its hash, and 32 of its number plus one.
	// known finds a shape's position by its hash. They are at most half full.
	strings []uint64
	known   []uint32
	nShapes int
	// at and total say how far the document has been read, in bytes.
	at, total int
}

func newPacker(total int) *packer {
	return &packer{
		slots: []uint32{0}, shapes: []uint32{0}, ends: []uint32{0},
		strings: make([]uint64, 64), known: make([]uint32, 64), total: total,
	}
}

// room returns s with room for n more. A document goes on as it began, more often
// than not, so that little is copied and little is left over.
func room[T any](p *packer, s []T, n int) []T {
	if cap(s)-len(s) >= n {
		return s
	}
	need := len(s) + n
	expected := int(float64(need) * float64(p.total) / float64(p.at+1) * 1.02)
	return slices.Grow(s, max(min(expected, 4*need), need+need/4)-len(s))
}

// clip returns s without much room left over.
func clip[T any](s []T) []T {
	if cap(s)-len(s) > len(s)/8 {
		return slices.Clone(s)
	}
	return slices.Clip(s)
}

// intern returns the number of a string.
func (p *packer) intern(s []byte) uint32 {
	hash := maphash.Bytes(seed, s)
	at := probe(hash, len(p.strings))
	for ; p.strings[at] != 0; at = next(at, len(p.strings)) {
		if entry := p.strings[at]; entry>>32 == hash>>32 {
			if number := uint32(entry) - 1; string(p.string(number)) == string(s) {
				return number
			}
		}
	}
	number := uint32(len(p.ends) - 1)
	p.text = append(room(p, p.text, len(s)), s...)
	p.ends = append(room(p, p.ends, 1), uint32(len(p.text)))
	p.strings[at] = hash>>32<<32 | uint64(number+1)
	if 2*len(p.ends) > len(p.strings) {
		old := p.strings
		p.strings = make([]uint64, 2*len(old))
		for _, entry := range old {
			if entry != 0 {
				p.strings[free(p.strings, entry)] = entry
			}
		}
	}
	return number
}

func (p *packer) string(number uint32) []byte { return p.text[p.ends[number]:p.ends[number+1]] }

// free returns the place for what is not in an index yet.
func free[T uint32 | uint64](index []T, hash uint64) int {
	at := probe(hash, len(index))
	for index[at] != 0 {
		at = next(at, len(index))
	}
	return at
}

// shape returns the position of the shape with these names, of which there is at
// least one.
func (p *packer) shape(names []uint32) uint32 {
	hash := hashNames(names)
	at := probe(hash, len(p.known))
	for ; p.known[at] != 0; at = next(at, len(p.known)) {
		if shape := p.known[at]; slices.Equal(shapeNames(p.shapes, shape), names) {
			return shape
		}
	}
	shape := uint32(len(p.shapes))
	p.shapes = appendShape(room(p, p.shapes, shapeSize(len(names))), names)
	p.known[at] = shape
	if p.nShapes++; 2*p.nShapes > len(p.known) {
		p.known = make([]uint32, 2*len(p.known))
		for shape := range p.eachShape {
			p.known[free(p.known, hashNames(shapeNames(p.shapes, shape)))] = shape
		}
	}
	return shape
}

// eachShape yields the shapes that have names.
func (p *packer) eachShape(yield func(shape uint32) bool) {
	for shape := 1; shape < len(p.shapes); shape += shapeSize(int(p.shapes[shape])) {
		if !yield(uint32(shape)) {
			return
		}
	}
}

func hashNames(names []uint32) uint64 {
	return maphash.Bytes(seed, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(names))), 4*len(names)))
}

// number takes a number as it is spelled.
func (p *packer) number(text []byte) slot {
	v := NumberText(unsafe.String(unsafe.SliceData(text), len(text)))
	switch i := int64(v.num); {
	case v.form() == spelled:
		return makeSlot(tagNumeral, int(p.intern(text)))
	case v.form() == double:
		p.wide = append(room(p, p.wide, 1), v.num)
		return makeSlot(tagDouble, len(p.wide)-1)
	case -maxInt <= i && i <= maxInt:
		return makeSlot(tagInt, int(i))
	}
	p.wide = append(room(p, p.wide, 1), v.num)
	return makeSlot(tagWide, len(p.wide)-1)
}

func (p *packer) array(elems []uint32) slot {
	if len(elems) == 0 {
		return makeSlot(tagArray, 0) // slot 0 is 0
	}
	return makeSlot(tagArray, p.place(uint32(len(elems)), elems))
}

// object takes names in order.
func (p *packer) object(names, values []uint32) slot {
	if len(names) == 0 {
		return makeSlot(tagObject, 0) // shape 0 has no names
	}
	return makeSlot(tagObject, p.place(p.shape(names), values))
}

func (p *packer) place(header uint32, slots []uint32) int {
	at := len(p.slots)
	p.slots = append(append(room(p, p.slots, 1+len(slots)), header), slots...)
	return at
}

// data returns what was packed.
func (p *packer) data(root slot) *Data {
	// One after the other, so that what was needed to build can be collected.
	d := &Data{root: root}
	d.slots, p.slots = clip(p.slots), nil
	d.names = p.names()
	d.shapes, p.shapes = clip(p.shapes), nil
	p.strings, p.known = nil, nil
	d.ends, d.wide = clip(p.ends), clip(p.wide)
	text := clip(p.text)
	d.text = unsafe.String(unsafe.SliceData(text), len(text)) // nobody writes to it any more
	return d
}

// names returns the index of the strings that are names.
func (p *packer) names() []uint32 {
	named, n := make([]bool, len(p.ends)-1), 0
	for shape := range p.eachShape {
		for _, name := range shapeNames(p.shapes, shape) {
			if !named[name] {
				named[name] = true
				n++
			}
		}
	}
	index := make([]uint32, indexSize(n)+1)
	for _, entry := range p.strings {
		if number := uint32(entry); number != 0 && named[number-1] {
			index[free(index, entry)] = number
		}
	}
	return index
}

// Pack returns a value that JSON can hold as [Data].
func Pack(v Value) (*Data, error) {
	text, err := v.AppendJSON(nil)
	if err != nil {
		return nil, err
	}
	return ParseData(text)
}
