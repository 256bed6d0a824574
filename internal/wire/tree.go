package wire

import (
	"encoding/binary"
	"iter"
	"math"
	"slices"
	"strings"

	"github.com/microwall/microwall/policy"
)

// tree is the properties of a message, read where they stand: it knows of each
// value its type and its place in the bytes that came over the wire. A text, a
// number and a name are taken from there once a policy asks for them.
//
// A tree is immutable once it has been planted; see [planter].
type tree struct {
	raw     string
	entries []entry
	nodes   []node
}

// entry is a member of an object or an element of an array.
type entry struct {
	name, nameEnd uint32 // of a member: its name is raw[name:nameEnd]
	// A text is raw[at:end], a number the eight bytes from at. Of a boolean, at
	// is 1 if it is true; of an object or an array, it is the node's number.
	at, end uint32
	kind    policy.Type
}

// node is an object or an array: entries[first:first+n]. No two members of an
// object have one name, and if they are more than few they are sorted by it. As a [policy.Composite] it is an object
// and an array at once; only the methods of what it is are ever called.
type node struct {
	tree     *tree
	first, n uint32
	size     int // as policy.ReadProperties counts
}

// properties returns an object of the tree.
func (t *tree) properties(number uint32) policy.Properties {
	n := &t.nodes[number]
	if n.n == 0 {
		return policy.Properties{}
	}
	return policy.CheckedProperties(n, n.size)
}

func (t *tree) name(e *entry) string { return t.raw[e.name:e.nameEnd] }

func (t *tree) value(e *entry) policy.Value {
	switch e.kind {
	case policy.Null:
		return policy.NullValue()
	case policy.Bool:
		return policy.BoolValue(e.at == 1)
	case policy.Number:
		return policy.FloatValue(double(t.raw[e.at : e.at+8]))
	case policy.String:
		return policy.CheckedStringValue(t.raw[e.at:e.end])
	case policy.Array:
		return policy.ArrayValue(&t.nodes[e.at])
	case policy.Object:
		return policy.ObjectValue(&t.nodes[e.at])
	}
	return policy.Value{}
}

// double reads a double as protobuf encodes it.
func double(raw string) float64 {
	var eight [8]byte
	copy(eight[:], raw)
	return math.Float64frombits(binary.LittleEndian.Uint64(eight[:]))
}

func (n *node) entries() []entry { return n.tree.entries[n.first : n.first+n.n] }

// few is how many members are looked through faster than they are searched.
const few = 8

func (n *node) Len() int { return int(n.n) }

func (n *node) Get(name string) policy.Value {
	t, all := n.tree, n.entries()
	if len(all) > few {
		at, found := slices.BinarySearchFunc(all, name, func(e entry, name string) int { return strings.Compare(t.name(&e), name) })
		if !found {
			return policy.Value{}
		}
		return t.value(&all[at])
	}
	for i := range all {
		if t.name(&all[i]) == name {
			return t.value(&all[i])
		}
	}
	return policy.Value{}
}

func (n *node) Index(i int) policy.Value { return n.tree.value(&n.entries()[i]) }

// OnlyTexts reports whether the elements of an array are strings.
func (n *node) OnlyTexts() bool {
	all := n.entries()
	for i := range all {
		if all[i].kind != policy.String {
			return false
		}
	}
	return true
}

func (n *node) Names() iter.Seq[string] {
	return func(yield func(string) bool) {
		all := n.entries()
		for i := range all {
			if !yield(n.tree.name(&all[i])) {
				return
			}
		}
	}
}
