package bundles

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/microwall/microwall/policy"
)

// maxDepth bounds the nesting of JSON, so that no document exhausts a stack,
// here or in what reads it later.
const maxDepth = 128

// node is one JSON value of an author's file, held until all files are merged.
type node struct {
	file    string           // it came from, for errors
	members map[string]*node // of an object, else nil
	items   []*node          // of an array
	text    []byte           // of anything else, in its one spelling
}

// parseJSON reads one JSON value. It refuses duplicate names, invalid UTF-8 and
// whatever follows the value.
func parseJSON(file string, src []byte) (*node, error) {
	d := jsontext.NewDecoder(bytes.NewBuffer(src))
	n, err := parseNode(d, file)
	if err == nil {
		if _, err = d.ReadToken(); errors.Is(err, io.EOF) {
			return n, nil
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

func parseNode(d *jsontext.Decoder, file string) (*node, error) {
	if d.StackDepth() >= maxDepth {
		return nil, fmt.Errorf("it is nested deeper than %d levels", maxDepth)
	}
	n := &node{file: file}
	switch d.PeekKind() {
	case jsontext.KindBeginObject:
		if _, err := d.ReadToken(); err != nil {
			return nil, err
		}
		n.members = map[string]*node{}
		for d.PeekKind() != jsontext.KindEndObject {
			name, err := d.ReadToken()
			if err != nil {
				return nil, err
			}
			key := name.String()
			if n.members[key], err = parseNode(d, file); err != nil {
				return nil, err
			}
		}
		_, err := d.ReadToken()
		return n, err
	case jsontext.KindBeginArray:
		if _, err := d.ReadToken(); err != nil {
			return nil, err
		}
		n.items = []*node{}
		for d.PeekKind() != jsontext.KindEndArray {
			item, err := parseNode(d, file)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, item)
		}
		_, err := d.ReadToken()
		return n, err
	}
	v, err := d.ReadValue()
	if err != nil {
		return nil, err
	}
	n.text, err = appendScalar(nil, v)
	return n, err
}

// appendScalar appends a string, number or literal in its one spelling.
func appendScalar(dst, v []byte) ([]byte, error) {
	if v[0] != '"' || !bytes.ContainsRune(v, '\\') {
		return append(dst, v...), nil
	}
	s, err := jsontext.AppendUnquote(nil, v)
	if err != nil {
		return nil, err
	}
	return jsontext.AppendQuote(dst, s)
}

// append appends n in its one spelling.
func (n *node) append(dst []byte) []byte {
	switch {
	case n.members != nil:
		dst = append(dst, '{')
		for i, name := range slices.Sorted(maps.Keys(n.members)) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, name)
			dst = append(dst, ':')
			dst = n.members[name].append(dst)
		}
		return append(dst, '}')
	case n.items != nil:
		dst = append(dst, '[')
		for i, item := range n.items {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = item.append(dst)
		}
		return append(dst, ']')
	}
	return append(dst, n.text...)
}

// appendString quotes valid UTF-8.
func appendString(dst []byte, s string) []byte {
	dst, err := jsontext.AppendQuote(dst, s)
	if err != nil {
		panic("bundles: a string that is not UTF-8 passed the decoder: " + err.Error())
	}
	return dst
}

// string returns the text of a string value, and whether n is one.
func (n *node) string() (string, bool) {
	if len(n.text) == 0 || n.text[0] != '"' {
		return "", false
	}
	s, err := jsontext.AppendUnquote(nil, n.text)
	return string(s), err == nil
}

// merge puts other into n, object into object. Two different files that both
// give a value to one path are a conflict, whatever the values are.
func (n *node) merge(other *node, path string) error {
	if n.members == nil || other.members == nil {
		return policy.Errorf(policy.BadRequest, "%s and %s both give a value to data%s; keep one of them", n.file, other.file, path)
	}
	for name, theirs := range other.members {
		mine, ok := n.members[name]
		if !ok {
			n.members[name] = theirs
			continue
		}
		if err := mine.merge(theirs, path+"."+name); err != nil {
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
