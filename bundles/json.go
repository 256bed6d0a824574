package bundles

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/microwall/microwall/policy"
)

// maxDepth bounds the nesting of JSON, so that no document exhausts a stack,
// here or in what reads it later.
const maxDepth = 128

// node is one JSON value of an author's file, in its one spelling. An object
// that is merged with another is taken apart; everything else stays text.
type node struct {
	file    string           // it came from, for errors
	text    []byte           // nil once members are there
	members map[string]*node // of an object, once split
}

// parseJSON reads one JSON value. It refuses duplicate names, invalid UTF-8 and
// whatever follows the value.
func parseJSON(file string, src []byte) (*node, error) {
	// Duplicates are found when names are sorted.
	d := jsontext.NewDecoder(bytes.NewBuffer(src), jsontext.AllowDuplicateNames(true))
	text, err := appendValue(make([]byte, 0, len(src)), d)
	if err == nil {
		if _, err = d.ReadToken(); errors.Is(err, io.EOF) {
			return &node{file: file, text: text}, nil
		}
		if err == nil {
			err = errors.New("something follows the document")
		}
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return nil, policy.Errorf(policy.BadRequest, "%s is not JSON as it must be: %w", file, err)
}

// appendValue appends the decoder's next value in its one spelling.
func appendValue(dst []byte, d *jsontext.Decoder) ([]byte, error) {
	switch d.PeekKind() {
	case jsontext.KindBeginObject:
		return appendObject(dst, d)
	case jsontext.KindBeginArray:
		if err := open(d); err != nil {
			return dst, err
		}
		dst = append(dst, '[')
		for n := 0; d.PeekKind() != jsontext.KindEndArray; n++ {
			if n > 0 {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = appendValue(dst, d); err != nil {
				return dst, err
			}
		}
		_, err := d.ReadToken()
		return append(dst, ']'), err
	}
	v, err := d.ReadValue()
	if err != nil {
		return dst, err
	}
	return appendScalar(dst, v)
}

// open reads the beginning of an object or array.
func open(d *jsontext.Decoder) error {
	if d.StackDepth() >= maxDepth {
		return fmt.Errorf("it is nested deeper than %d levels", maxDepth)
	}
	_, err := d.ReadToken()
	return err
}

// member says where in the output a member of an object stands.
type member struct {
	name       string
	start, end int
}

func appendObject(dst []byte, d *jsontext.Decoder) ([]byte, error) {
	if err := open(d); err != nil {
		return dst, err
	}
	dst = append(dst, '{')
	begin := len(dst)
	var members []member
	for d.PeekKind() != jsontext.KindEndObject {
		name, err := d.ReadToken()
		if err != nil {
			return dst, err
		}
		if len(members) > 0 {
			dst = append(dst, ',')
		}
		m := member{name: name.String(), start: len(dst)}
		dst = append(appendString(dst, m.name), ':')
		if dst, err = appendValue(dst, d); err != nil {
			return dst, err
		}
		m.end = len(dst)
		members = append(members, m)
	}
	byName := func(a, b member) int { return strings.Compare(a.name, b.name) }
	if !slices.IsSortedFunc(members, byName) {
		slices.SortFunc(members, byName)
		sorted := make([]byte, 0, len(dst)-begin)
		for i, m := range members {
			if i > 0 {
				sorted = append(sorted, ',')
			}
			sorted = append(sorted, dst[m.start:m.end]...)
		}
		copy(dst[begin:], sorted)
	}
	for i := range members[min(1, len(members)):] {
		if members[i].name == members[i+1].name {
			return dst, fmt.Errorf("duplicate name %q in one object", members[i].name)
		}
	}
	_, err := d.ReadToken()
	return append(dst, '}'), err
}

// appendScalar appends a string, number or literal in its one spelling.
func appendScalar(dst, v []byte) ([]byte, error) {
	if v[0] != '"' || !bytes.ContainsRune(v, '\\') {
		return append(dst, v...), nil
	}
	s, err := jsontext.AppendUnquote(nil, v)
	if err != nil {
		return dst, err
	}
	return jsontext.AppendQuote(dst, s)
}

// appendString quotes valid UTF-8.
func appendString(dst []byte, s string) []byte {
	dst, err := jsontext.AppendQuote(dst, s)
	if err != nil {
		panic("bundles: a string that is not UTF-8 passed the decoder: " + err.Error())
	}
	return dst
}

// append appends n in its one spelling.
func (n *node) append(dst []byte) []byte {
	if n.members == nil {
		return append(dst, n.text...)
	}
	dst = append(dst, '{')
	for i, name := range slices.Sorted(maps.Keys(n.members)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, name), ':')
		dst = n.members[name].append(dst)
	}
	return append(dst, '}')
}

// string returns the text of a string value, and whether n is one.
func (n *node) string() (string, bool) {
	if len(n.text) == 0 || n.text[0] != '"' {
		return "", false
	}
	s, err := jsontext.AppendUnquote(nil, n.text)
	return string(s), err == nil
}

// isObject reports whether n is an object.
func (n *node) isObject() bool { return n.members != nil || n.text[0] == '{' }

// split takes an object apart, one level, and reports whether n is one.
func (n *node) split() bool {
	if n.members != nil || !n.isObject() {
		return n.members != nil
	}
	parts := n.parts()
	n.members = make(map[string]*node, len(parts)/2)
	for i := 0; i < len(parts); i += 2 {
		name, ok := parts[i].string()
		if !ok {
			panic("bundles: the name of a member is no string")
		}
		n.members[name] = parts[i+1]
	}
	n.text = nil
	return true
}

// parts returns the elements of an array, or the names and values of an object
// that is not split. It panics where n is not what parseJSON returns.
func (n *node) parts() []*node {
	var parts []*node
	d := jsontext.NewDecoder(bytes.NewBuffer(n.text), jsontext.AllowDuplicateNames(true))
	if _, err := d.ReadToken(); err != nil {
		panic("bundles: JSON in its one spelling cannot be read: " + err.Error())
	}
	for k := d.PeekKind(); k != jsontext.KindEndArray && k != jsontext.KindEndObject; k = d.PeekKind() {
		v, err := d.ReadValue()
		if err != nil {
			panic("bundles: JSON in its one spelling cannot be read: " + err.Error())
		}
		end := int(d.InputOffset())
		parts = append(parts, &node{file: n.file, text: n.text[end-len(v) : end : end]})
	}
	return parts
}

// merge puts other into n, object into object. Two different files that both
// give a value to one path are a conflict, whatever the values are.
func (n *node) merge(other *node, path string) error {
	if !n.isObject() || !other.isObject() {
		return policy.Errorf(policy.BadRequest, "%s and %s both give a value to data%s; keep one of them", n.file, other.file, path)
	}
	n.split()
	other.split()
	for _, name := range slices.Sorted(maps.Keys(other.members)) {
		mine, ok := n.members[name]
		if !ok {
			n.members[name] = other.members[name]
			continue
		}
		if err := mine.merge(other.members[name], path+"."+name); err != nil {
			return err
		}
	}
	return nil
}

// checkCanonical returns nil if src is one JSON object in its one spelling. It
// holds no more than the name before, one for each level, so that checking
// costs no memory to speak of.
func checkCanonical(file string, src []byte) error {
	if offset, fault := canonicalFault(src); fault != "" {
		return policy.Errorf(policy.BadRequest, "%s is not in its one spelling: %s at byte %d; build the bundle with microwall", file, fault, offset)
	}
	return nil
}

func canonicalFault(src []byte) (offset int, fault string) {
	if len(src) == 0 || src[0] != '{' {
		return 0, "no object"
	}
	// Names in strictly ascending order have no duplicates, so the decoder
	// need not remember them.
	d := jsontext.NewDecoder(bytes.NewBuffer(src), jsontext.AllowDuplicateNames(true))
	var previous [maxDepth + 1][]byte
	var scratch []byte
	for end := 0; ; {
		depth := d.StackDepth()
		container, length := d.StackIndex(depth)
		var value []byte
		var err error
		size := 1
		switch d.PeekKind() {
		case jsontext.KindBeginObject, jsontext.KindBeginArray:
			if depth >= maxDepth {
				return end, fmt.Sprintf("nesting deeper than %d levels", maxDepth)
			}
			_, err = d.ReadToken()
		case jsontext.KindEndObject, jsontext.KindEndArray:
			_, err = d.ReadToken()
		default:
			value, err = d.ReadValue()
			size = len(value)
		}
		if err != nil {
			return end, err.Error()
		}
		start := int(d.InputOffset()) - size
		if gap := src[end:start]; len(gap) > 1 || len(gap) == 1 && gap[0] != ',' && gap[0] != ':' {
			return end, "white space"
		}
		if value != nil && value[0] == '"' {
			if scratch, err = appendScalar(scratch[:0], value); err != nil || !bytes.Equal(scratch, value) {
				return start, "a string that can be written shorter"
			}
		}
		if container == jsontext.KindBeginObject && length%2 == 0 && value != nil {
			if scratch, err = jsontext.AppendUnquote(scratch[:0], value); err != nil {
				return start, err.Error()
			}
			if length > 0 && bytes.Compare(previous[depth], scratch) >= 0 {
				return start, "a name out of order"
			}
			previous[depth] = append(previous[depth][:0], scratch...)
		}
		end = start + size
		if d.StackDepth() == 0 {
			if end != len(src) {
				return end, "something after the document"
			}
			return 0, ""
		}
	}
}
