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
	// strings finds a string by its hash, and known a shape, as Data.names does.
	// They are at most half full, and their sizes powers of two.
	strings, known []uint32
	nShapes        int
}

func newPacker() *packer {
	return &packer{
		slots: []uint32{0}, shapes: []uint32{0}, ends: []uint32{0},
		strings: make([]uint32, 64), known: make([]uint32, 64),
	}
}

// intern returns the number of a string.
func (p *packer) intern(s []byte) uint32 {
	for at := probe(maphash.Bytes(seed, s), len(p.strings)); ; at = next(at, len(p.strings)) {
		number := p.strings[at]
		if number == 0 {
			number = uint32(len(p.ends) - 1)
			p.text = append(p.text, s...)
			p.ends = append(p.ends, uint32(len(p.text)))
			p.strings[at] = number + 1
			if 2*len(p.ends) > len(p.strings) {
				p.strings = make([]uint32, 2*len(p.strings))
				for i := range len(p.ends) - 1 {
					p.enter(p.strings, uint32(i))
				}
			}
			return number
		}
		if number--; string(p.string(number)) == string(s) {
			return number
		}
	}
}

func (p *packer) string(number uint32) []byte { return p.text[p.ends[number]:p.ends[number+1]] }

func (p *packer) enter(index []uint32, number uint32) {
	at := probe(maphash.Bytes(seed, p.string(number)), len(index))
	for index[at] != 0 {
		at = next(at, len(index))
	}
	index[at] = number + 1
}

// shape returns the position of the shape with these names, of which there is at
// least one.
func (p *packer) shape(names []uint32) uint32 {
	for at := probe(hashNames(names), len(p.known)); ; at = next(at, len(p.known)) {
		shape := p.known[at]
		if shape == 0 {
			shape = uint32(len(p.shapes))
			p.shapes = appendShape(p.shapes, names)
			p.known[at] = shape
			p.nShapes++
			if 2*p.nShapes > len(p.known) {
				p.growShapes()
			}
			return shape
		}
		if slices.Equal(shapeNames(p.shapes, shape), names) {
			return shape
		}
	}
}

func (p *packer) growShapes() {
	p.known = make([]uint32, 2*len(p.known))
	for shape := range p.eachShape {
		at := probe(hashNames(shapeNames(p.shapes, shape)), len(p.known))
		for p.known[at] != 0 {
			at = next(at, len(p.known))
		}
		p.known[at] = shape
	}
}

// eachShape yields the shapes that have names.
func (p *packer) eachShape(yield func(shape uint32) bool) {
	for shape := uint32(1); int(shape) < len(p.shapes); {
		n := p.shapes[shape]
		if !yield(shape) {
			return
		}
		if shape += 1 + n; n > fewKeys {
			shape += uint32(indexSize(int(n)))
		}
	}
}

func hashNames(names []uint32) uint64 {
	return maphash.Bytes(seed, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(names))), 4*len(names)))
}

func (p *packer) int(i int64) slot {
	if -maxInt <= i && i <= maxInt {
		return makeSlot(tagInt, int(i))
	}
	p.wide = append(p.wide, uint64(i))
	return makeSlot(tagWide, len(p.wide)-1)
}

// number takes a number as it is spelled.
func (p *packer) number(text []byte) slot {
	v := NumberText(unsafe.String(unsafe.SliceData(text), len(text)))
	switch v.form {
	case built:
		return p.int(int64(v.num))
	case double:
		p.wide = append(p.wide, v.num)
		return makeSlot(tagDouble, len(p.wide)-1)
	}
	return makeSlot(tagNumeral, int(p.intern(text)))
}

func (p *packer) array(elems []uint32) slot {
	if len(elems) == 0 {
		return makeSlot(tagArray, 0) // slot 0 is 0
	}
	at := len(p.slots)
	p.slots = append(append(p.slots, uint32(len(elems))), elems...)
	return makeSlot(tagArray, at)
}

// object takes names in order.
func (p *packer) object(names, values []uint32) slot {
	if len(names) == 0 {
		return makeSlot(tagObject, 0) // shape 0 has no names
	}
	at := len(p.slots)
	p.slots = append(append(p.slots, p.shape(names)), values...)
	return makeSlot(tagObject, at)
}

// data returns what was packed, in memory of just its size.
func (p *packer) data(root slot) *Data {
	d := &Data{root: root, text: string(p.text)}
	p.text, p.strings, p.known = nil, nil, nil
	d.slots, p.slots = slices.Clone(p.slots), nil
	d.ends, p.ends = slices.Clone(p.ends), nil
	d.wide = slices.Clone(p.wide)
	named := make([]bool, len(d.ends)-1)
	n := 0
	for shape := range p.eachShape {
		for _, name := range shapeNames(p.shapes, shape) {
			if !named[name] {
				named[name] = true
				n++
			}
		}
	}
	d.shapes, p.shapes = slices.Clone(p.shapes), nil
	d.names = make([]uint32, indexSize(n+1))
	for i := range named {
		if named[i] {
			d.enter(uint32(i))
		}
	}
	return d
}

func (d *Data) enter(name uint32) {
	at := probe(maphash.String(seed, d.string(name)), len(d.names))
	for d.names[at] != 0 {
		at = next(at, len(d.names))
	}
	d.names[at] = name + 1
}

// Pack returns a value that JSON can hold as Data.
func Pack(v Value) (*Data, error) {
	text, err := v.AppendJSON(nil)
	if err != nil {
		return nil, err
	}
	return ParseData(text)
}
