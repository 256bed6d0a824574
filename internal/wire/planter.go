package wire

import (
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/microwall/microwall/policy"
)

// planter reads the bytes of a message into a [tree], in one pass and without
// protobuf's help, if they are plain: written as every encoder of protobuf
// writes them (each field once, in the order of the numbers, no field that is
// unknown, a member's name before its value), and without anything that package
// policy refuses. All else is not plain: its methods then return false, and
// protobuf's own library decides what it means or what is wrong with it. So a
// planter needs no error, and leaves no room for an own opinion on what is odd.
//
// Encodings: https://protobuf.dev/programming-guides/encoding, messages:
// google/protobuf/struct.proto and microwall/v1/authorization.proto.
type planter struct{ *tree }

// newPlanter returns a planter for a message; false if it is too long for the
// places in a tree.
func newPlanter(raw string) (planter, bool) {
	if len(raw) > math.MaxInt32 {
		return planter{}, false
	}
	// About as many as there are in requests of some attributes.
	return planter{&tree{raw: raw, entries: make([]entry, 0, len(raw)/24+4), nodes: make([]node, 0, len(raw)/64+4)}}, true
}

// A tag is a field's number and type. Those of the numbers up to 15 are one
// byte below 0x80, and so is every one here.
func message(number byte) (tag byte) { return number<<3 | 2 } // and of texts
func varint(number byte) (tag byte)  { return number << 3 }
func fixed64(number byte) (tag byte) { return number<<3 | 1 }

// part finds the content of a text or message, raw[from:end], whose field
// starts with the tag at raw[at] and ends before raw[to].
func (p planter) part(tag byte, at, to int) (from, end int, ok bool) {
	if to-at < 2 || p.raw[at] != tag {
		return 0, 0, false
	}
	if n := p.raw[at+1]; n < 0x80 {
		from, end = at+2, at+2+int(n)
		return from, end, end <= to
	}
	return p.longPart(at+1, to)
}

// longPart does so where the length at raw[at] has more bytes than one. It has
// up to four: no message is as long as 256 MiB.
func (p planter) longPart(at, to int) (from, end int, ok bool) {
	length := 0
	for shift := 0; at < to && shift < 28; shift += 7 {
		b := p.raw[at]
		at++
		length |= int(b&0x7f) << shift
		if b < 0x80 {
			return at, at + length, length <= to-at
		}
	}
	return 0, 0, false
}

// field finds the content of the next text or message among fields whose
// numbers rise: it has one that is larger than the last.
func (p planter) field(last byte, at, to int) (number byte, from, end int, ok bool) {
	tag := p.raw[at]
	number = tag >> 3
	if tag != message(number) || tag >= 0x80 || number <= last {
		return 0, 0, 0, false
	}
	from, end, ok = p.part(tag, at, to)
	return number, from, end, ok
}

// count returns how many fields of one tag, and no others, are in raw[at:to].
func (p planter) count(tag byte, at, to int) (n int, ok bool) {
	n, end, ok := p.leading(tag, at, to)
	return n, ok && end == to
}

// leading returns how many fields of one tag begin raw[at:to], and where others do.
func (p planter) leading(tag byte, at, to int) (n, end int, ok bool) {
	for at < to && p.raw[at] == tag {
		if _, at, ok = p.part(tag, at, to); !ok {
			return 0, 0, false
		}
		n++
	}
	return n, at, true
}

// plant makes room for a node of n entries.
func (p planter) plant(n int) (number, first int) {
	number, first = len(p.nodes), len(p.entries)
	p.nodes = append(p.nodes, node{tree: p.tree, first: uint32(first), n: uint32(n)}) //nolint:gosec // fewer than the bytes of a message
	p.entries = slices.Grow(p.entries, n)[:first+n]
	return number, first
}

// object reads a Struct.
func (p planter) object(from, to, depth int) (number int, ok bool) {
	n, ok := p.count(message(1), from, to)
	if !ok {
		return 0, false
	}
	number, first := p.plant(n)
	size := 2
	for i := first; i < first+n; i++ {
		at, end, _ := p.part(message(1), from, to)
		from = end
		name, nameEnd, ok := p.part(message(1), at, end)
		if !ok {
			return 0, false
		}
		value, valueEnd, ok := p.part(message(2), nameEnd, end)
		if !ok || valueEnd != end || !utf8.ValidString(p.raw[name:nameEnd]) {
			return 0, false
		}
		e, s, ok := p.value(value, valueEnd, depth+1)
		if !ok {
			return 0, false
		}
		e.name, e.nameEnd = uint32(name), uint32(nameEnd) //nolint:gosec // places in a message
		p.entries[i] = e
		size += s + nameEnd - name + 4
	}
	p.nodes[number].size = size
	return number, p.order(p.entries[first : first+n])
}

// order makes members ready to be looked up; false if two have the same name.
func (p planter) order(members []entry) bool {
	if len(members) <= few {
		for i := range members {
			for j := range i {
				if p.name(&members[i]) == p.name(&members[j]) {
					return false
				}
			}
		}
		return true
	}
	slices.SortFunc(members, func(a, b entry) int { return strings.Compare(p.name(&a), p.name(&b)) })
	for i := 1; i < len(members); i++ {
		if p.name(&members[i-1]) == p.name(&members[i]) {
			return false
		}
	}
	return true
}

// array reads a ListValue.
func (p planter) array(from, to, depth int) (number int, ok bool) {
	n, ok := p.count(message(1), from, to)
	if !ok {
		return 0, false
	}
	number, first := p.plant(n)
	size := 2
	for i := first; i < first+n; i++ {
		at, end, _ := p.part(message(1), from, to)
		from = end
		e, s, ok := p.value(at, end, depth+1)
		if !ok {
			return 0, false
		}
		p.entries[i] = e
		size += s + 1
	}
	p.nodes[number].size = size
	return number, true
}

// maxDepth is how deep package policy lets properties nest.
const maxDepth = 64

// value reads a Value.
func (p planter) value(from, to, depth int) (e entry, size int, ok bool) {
	if from == to || depth > maxDepth {
		return entry{}, 0, false
	}
	switch tag := p.raw[from]; tag {
	case varint(1):
		return entry{kind: policy.Null}, 8, to-from == 2 && p.raw[from+1] == 0
	case fixed64(2):
		if to-from != 9 || policy.FloatValue(double(p.raw[from+1:to])).Type() != policy.Number {
			return entry{}, 0, false
		}
		return entry{kind: policy.Number, at: uint32(from + 1)}, 8, true //nolint:gosec // a place in a message
	case varint(4):
		if to-from != 2 || p.raw[from+1] > 1 {
			return entry{}, 0, false
		}
		return entry{kind: policy.Bool, at: uint32(p.raw[from+1])}, 8, true
	case message(3), message(5), message(6):
		at, end, ok := p.part(tag, from, to)
		if !ok || end != to {
			return entry{}, 0, false
		}
		var number int
		switch tag {
		case message(3):
			return entry{kind: policy.String, at: uint32(at), end: uint32(end)}, 8 + end - at, utf8.ValidString(p.raw[at:end]) //nolint:gosec // places in a message
		case message(5):
			e.kind = policy.Object
			number, ok = p.object(at, end, depth)
		case message(6):
			e.kind = policy.Array
			number, ok = p.array(at, end, depth)
		}
		if !ok {
			return entry{}, 0, false
		}
		e.at = uint32(number)
		return e, p.nodes[number].size, true
	}
	return entry{}, 0, false
}
