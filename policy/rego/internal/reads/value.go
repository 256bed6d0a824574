package reads

import (
	"encoding/binary"
	"iter"
	"slices"
)

// A value is what is known of a local: the sources that its value may have. It
// is an index into sources.values, so that equal values are ==.
type value int32

// The values that every sources has, at these indices.
const (
	unset   value = iota // the local holds nothing
	none                 // no source at all: the neutral element of join
	known                // the same whatever the unread input is
	perhaps              // known, or unset
	spill                // held in a frame's spilled: too much for one value
)

// The sources that come first.
const (
	unsetID int32 = iota
	knownID
)

// A source is where a value may come from.
type source struct {
	kind sourceKind
	node *node // of fromInput
	key  Key   // of isConstant, isList, isPatched
	// base is the list without its last element for isList, and what is patched
	// for isPatched; over is what the patch puts at key.
	base, over value
}

type sourceKind uint8

const (
	// isUnset: no value. The local was not assigned to, or was reset.
	isUnset sourceKind = iota
	// isKnown: a value in which there is nothing of the input, or only what is
	// read anyway.
	isKnown
	// isConstant: the constant key.
	isConstant
	// isList: an array of constants, the array base and after it key. The empty
	// one has the base none.
	isList
	// fromInput: the value of the input at node, which need not be there if it is
	// the base of a patch.
	fromInput
	// isSpilled: nothing by itself.
	isSpilled
	// isPatched: base with its member key replaced by over, or the object of that
	// one member if base is no object.
	isPatched
)

// How much is told apart before it is widened.
const (
	maxSources = 16 // of one value
	maxList    = 16 // elements of an array of constants
	maxNesting = 16 // patches on and in patches
)

// sources holds every value that came up.
type sources struct {
	all    []sourceFacts
	ids    map[source]int32
	values []valueFacts
	byIDs  map[string]value
	joins  map[[2]value]value
}

type sourceFacts struct {
	source
	only    value // the value that has no other source
	nesting int   // of patches and lists
}

type valueFacts struct {
	ids []int32 // into all, ascending
	set value   // the value without isUnset
}

func newSources() *sources {
	s := &sources{ids: map[source]int32{}, byIDs: map[string]value{}, joins: map[[2]value]value{}}
	s.only(source{kind: isUnset})
	s.values[unset].set = s.intern(nil) // none
	s.only(source{kind: isKnown})
	s.intern([]int32{unsetID, knownID})
	s.only(source{kind: isSpilled})
	return s
}

// only returns the value with one source.
func (s *sources) only(src source) value {
	id, ok := s.ids[src]
	if !ok {
		v := s.add(src)
		s.ids[src] = s.values[v].ids[0]
		return v
	}
	return s.all[id].only
}

// add is only for a source that did not come up before, and will not again.
func (s *sources) add(src source) value {
	id := int32(len(s.all))
	v := value(len(s.values))
	facts := sourceFacts{src, v, 0}
	if src.kind == isPatched || src.kind == isList {
		facts.nesting = 1 + max(s.depth(src.base), s.depth(src.over))
	}
	s.all = append(s.all, facts)
	s.values = append(s.values, valueFacts{[]int32{id}, v})
	return v
}

// intern returns the value with these sources, in ascending order.
func (s *sources) intern(ids []int32) value {
	if len(ids) == 1 {
		return s.all[ids[0]].only
	}
	var key []byte
	for _, id := range ids {
		key = binary.LittleEndian.AppendUint32(key, uint32(id))
	}
	if v, ok := s.byIDs[string(key)]; ok {
		return v
	}
	v := value(len(s.values))
	s.byIDs[string(key)] = v
	s.values = append(s.values, valueFacts{slices.Clone(ids), v})
	if len(ids) > 0 && ids[0] == unsetID {
		s.values[v].set = s.intern(ids[1:])
	}
	return v
}

// depth returns how deeply patches or lists are nested in v.
func (s *sources) depth(v value) int {
	depth := 0
	for _, id := range s.values[v].ids {
		depth = max(depth, s.all[id].nesting)
	}
	return depth
}

// of goes through the sources of v.
func (s *sources) of(v value) iter.Seq[source] {
	return func(yield func(source) bool) {
		for _, id := range s.values[v].ids {
			if !yield(s.all[id].source) {
				return
			}
		}
	}
}

// single returns the source of v if it has just one.
func (s *sources) single(v value) (source, bool) {
	if ids := s.values[v].ids; len(ids) == 1 {
		return s.all[ids[0]].source, true
	}
	return source{}, false
}

// set returns v without the possibility of holding nothing.
func (s *sources) set(v value) value { return s.values[v].set }

// join returns the value that comes from where x or y may come from. It reports
// false if these are too many to tell apart.
func (s *sources) join(x, y value) (value, bool) {
	if x == y || y == none {
		return x, true
	}
	if x == none {
		return y, true
	}
	if s.absorbs(x, y) {
		return x, true
	}
	if s.absorbs(y, x) {
		return y, true
	}
	pair := [2]value{min(x, y), max(x, y)}
	if v, ok := s.joins[pair]; ok {
		return v, true
	}
	ids := slices.Concat(s.values[x].ids, s.values[y].ids)
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if len(ids) > maxSources || slices.Contains(ids, knownID) {
		ids = s.plainIDs(ids)
	}
	if len(ids) > maxSources {
		return 0, false
	}
	v := s.intern(ids)
	s.joins[pair] = v
	return v, true
}

// absorbs reports whether y is a constant, and x nothing that tells constants
// apart.
func (s *sources) absorbs(x, y value) bool {
	src, ok := s.single(y)
	return ok && src.kind == isConstant && (x == known || x == perhaps)
}

// plain returns v with its constants only known to be known.
func (s *sources) plain(v value) value { return s.intern(s.plainIDs(slices.Clone(s.values[v].ids))) }

func (s *sources) plainIDs(ids []int32) []int32 {
	for i, id := range ids {
		if k := s.all[id].kind; k == isConstant || k == isList {
			ids[i] = knownID
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// keys returns the constants of v, and whether it is nothing but constants.
func (s *sources) keys(v value) ([]Key, bool) {
	keys := make([]Key, 0, 1)
	for src := range s.of(v) {
		switch src.kind {
		case isUnset:
		case isConstant:
			keys = append(keys, src.key)
		default:
			return nil, false
		}
	}
	return keys, len(keys) > 0
}

// path returns the keys of a constant path as object.get takes it: one key, or an
// array of keys.
func (s *sources) path(v value) ([]Key, bool) {
	src, ok := s.single(s.set(v))
	if ok && src.kind == isConstant {
		return []Key{src.key}, true
	}
	var keys []Key
	for ok && src.kind == isList && src.base != none {
		keys = append(keys, src.key)
		src, ok = s.single(src.base)
	}
	slices.Reverse(keys)
	return keys, ok && len(keys) > 0
}
