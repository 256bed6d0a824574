package value

import (
	"fmt"
	"hash/maphash"
	"math"
	"math/bits"
	"strings"
)

// Data is a JSON document in one packed, immutable block: 8 bytes an element,
// 16 a member, strings once each. Nothing in it is a pointer, so that a garbage
// collector has nothing to follow, however large it is.
//
// A slot is four bits of tag and sixty of payload. An array is its length and
// its elements' slots. An object is a header (how many members, and the binary
// logarithm of the slots of its index), its names' slots in order, its values'
// slots, and if it has more than a few members an index: positions plus one, two
// to a slot, found by the hash of the name's slot. A name is stored once, so
// that one slot stands for one name.
type Data struct {
	root     uint64
	slots    []uint64
	text     string
	numerals []string
	// names finds a name's slot by the hash of its text: open addressing, indexes
	// into nameSlots plus one.
	names     []uint32
	nameSlots []uint64
}

// Tags of slots.
const (
	tagNull = iota
	tagFalse
	tagTrue
	tagInt     // payload: the number
	tagNumeral // payload: index into numerals
	tagText    // payload: 32 bits of offset into text, 28 of length
	tagArray   // payload: index into slots
	tagObject  // payload: index into slots
)

const (
	maxTextLen = 1<<28 - 1
	maxText    = math.MaxUint32
	maxInt     = 1<<59 - 1
)

func slot(tag, payload uint64) uint64 { return tag<<60 | payload&(1<<60-1) }

// Value returns the document.
func (d *Data) Value() Value { return d.value(d.root) }

func (d *Data) value(s uint64) Value {
	payload := s & (1<<60 - 1)
	switch s >> 60 {
	case tagFalse:
		return False
	case tagTrue:
		return True
	case tagInt:
		return Int(int64(s<<4) >> 4)
	case tagNumeral:
		return NumberText(d.numerals[payload])
	case tagText:
		return Text(d.string(s))
	case tagArray:
		return Value{kind: Array, form: packed, num: payload, ref: d}
	case tagObject:
		return Value{kind: Object, form: packed, num: payload, ref: d}
	}
	return NullValue
}

func (d *Data) string(s uint64) string {
	offset, n := s>>28&math.MaxUint32, s&maxTextLen
	return d.text[offset : offset+n]
}

func (d *Data) length(at uint64) int { return int(d.slots[at] & math.MaxUint32) }

func (d *Data) elem(at uint64, i int) Value { return d.value(d.slots[at+1+uint64(i)]) }

func (d *Data) member(at uint64, i int) (key, val Value) {
	n := uint64(d.length(at))
	first := at + 1 + uint64(i)
	return d.value(d.slots[first]), d.value(d.slots[first+n])
}

func (d *Data) get(at uint64, name string) Value {
	s, ok := d.nameSlot(name)
	if !ok {
		return Value{}
	}
	return d.getSlot(at, s)
}

// getSlot looks up a name that is known by its slot.
func (d *Data) getSlot(at, name uint64) Value {
	header := d.slots[at]
	n := header & math.MaxUint32
	names := d.slots[at+1 : at+1+n]
	if n <= fewKeys {
		for i, s := range names {
			if s == name {
				return d.value(d.slots[at+1+n+uint64(i)])
			}
		}
		return Value{}
	}
	size := uint64(1) << (header >> 32) // of the index, in entries
	index := d.slots[at+1+2*n : at+1+2*n+size/2]
	for probe := mix(name) & (size - 1); ; probe = (probe + 1) & (size - 1) {
		i := index[probe/2] >> (probe % 2 * 32) & math.MaxUint32
		if i == 0 {
			return Value{}
		}
		if names[i-1] == name {
			return d.value(d.slots[at+n+i])
		}
	}
}

// nameSlot returns the slot of a member's name, if any object has one such.
func (d *Data) nameSlot(name string) (uint64, bool) {
	if len(d.names) == 0 {
		return 0, false
	}
	mask := uint64(len(d.names) - 1)
	for probe := maphash.String(seed, name) & mask; ; probe = (probe + 1) & mask {
		i := d.names[probe]
		if i == 0 {
			return 0, false
		}
		if s := d.nameSlots[i-1]; d.string(s) == name {
			return s, true
		}
	}
}

// Key is a member's name that is known before it is looked up.
type Key struct {
	name string
	data *Data
	slot uint64
	in   bool
}

// Key prepares the look-up of a name. d may be nil.
func (d *Data) Key(name string) Key {
	k := Key{name: name, data: d}
	if d != nil {
		k.slot, k.in = d.nameSlot(name)
	}
	return k
}

// GetKey looks up a member by a prepared name, as [Value.GetText] does.
func (v Value) GetKey(k *Key) Value {
	if v.form == packed && v.kind == Object {
		if d := v.ref.(*Data); d == k.data {
			if !k.in {
				return Value{}
			}
			return d.getSlot(v.num, k.slot)
		}
	}
	return v.GetText(k.name)
}

// packer builds a Data.
type packer struct {
	d       Data
	text    strings.Builder
	interns map[string]uint64
	named   map[uint64]bool
}

// Pack returns a value that holds what JSON can hold as Data. It returns an error
// if it does not fit: more than 4 GiB of text, or a string of 256 MiB.
func Pack(v Value) (*Data, error) {
	p := &packer{interns: map[string]uint64{}, named: map[uint64]bool{}}
	root, err := p.pack(v)
	if err != nil {
		return nil, err
	}
	p.d.root, p.d.text = root, p.text.String()
	d := &p.d
	if n := len(d.nameSlots); n > 0 {
		d.names = make([]uint32, 1<<bits.Len(uint(2*n)))
		mask := uint64(len(d.names) - 1)
		for i, s := range d.nameSlots {
			probe := maphash.String(seed, d.string(s)) & mask
			for d.names[probe] != 0 {
				probe = (probe + 1) & mask
			}
			d.names[probe] = uint32(i + 1)
		}
	}
	return d, nil
}

func (p *packer) intern(s string) (uint64, error) {
	if have, ok := p.interns[s]; ok {
		return have, nil
	}
	if len(s) > maxTextLen || p.text.Len()+len(s) > maxText {
		return 0, fmt.Errorf("a string of %d bytes does not fit into packed data", len(s))
	}
	have := slot(tagText, uint64(p.text.Len())<<28|uint64(len(s)))
	p.text.WriteString(s)
	p.interns[s] = have
	return have, nil
}

func (p *packer) pack(v Value) (uint64, error) {
	switch v.kind {
	case Null:
		return slot(tagNull, 0), nil
	case Bool:
		return slot(tagFalse+v.num, 0), nil
	case Number:
		if v.form == built && int64(v.num) <= maxInt && int64(v.num) >= -maxInt {
			return slot(tagInt, v.num), nil
		}
		p.d.numerals = append(p.d.numerals, v.Numeral())
		return slot(tagNumeral, uint64(len(p.d.numerals)-1)), nil
	case String:
		return p.intern(v.text())
	case Array:
		slots := make([]uint64, 0, v.Len()+1)
		slots = append(slots, uint64(v.Len()))
		for i := range v.Len() {
			s, err := p.pack(v.Elem(i))
			if err != nil {
				return 0, err
			}
			slots = append(slots, s)
		}
		return p.place(tagArray, slots), nil
	case Object:
		return p.object(v)
	}
	return 0, fmt.Errorf("%s is no JSON", v.kind)
}

func (p *packer) place(tag uint64, slots []uint64) uint64 {
	at := uint64(len(p.d.slots))
	p.d.slots = append(p.d.slots, slots...)
	return slot(tag, at)
}

func (p *packer) object(v Value) (uint64, error) {
	n := uint64(v.Len())
	slots := make([]uint64, 1+2*n)
	i := uint64(0)
	for key, val := range v.All() {
		if key.kind != String {
			return 0, fmt.Errorf("an object with a key that is a %s is no JSON", key.kind)
		}
		name, err := p.intern(key.text())
		if err != nil {
			return 0, err
		}
		if !p.named[name] {
			p.named[name] = true
			p.d.nameSlots = append(p.d.nameSlots, name)
		}
		i++
		slots[i] = name
		if slots[i+n], err = p.pack(val); err != nil {
			return 0, err
		}
	}
	slots[0] = n
	if n > fewKeys {
		log := uint64(bits.Len64(2*n - 1))
		slots[0] |= log << 32
		size := uint64(1) << log
		index := make([]uint64, size/2)
		for i := uint64(1); i <= n; i++ {
			probe := mix(slots[i]) & (size - 1)
			for index[probe/2]>>(probe%2*32)&math.MaxUint32 != 0 {
				probe = (probe + 1) & (size - 1)
			}
			index[probe/2] |= i << (probe % 2 * 32)
		}
		slots = append(slots, index...)
	}
	return p.place(tagObject, slots), nil
}
