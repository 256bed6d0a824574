package value

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// String returns v in Rego's syntax, exactly as OPA's ast.Value.String does:
// strings as Go quotes them, numbers as they are spelled, sets and objects in
// order, the empty set as set(). The undefined Value gives "".
func (v Value) String() string { return string(v.AppendText(nil)) }

// AppendText appends what [Value.String] returns.
func (v Value) AppendText(dst []byte) []byte {
	switch v.Kind() {
	case Null:
		return append(dst, "null"...)
	case Bool:
		return strconv.AppendBool(dst, v.IsTrue())
	case Number:
		return v.AppendNumeral(dst)
	case String:
		return strconv.AppendQuote(dst, v.text())
	case Array:
		dst = append(dst, '[')
		for i := range v.Len() {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			dst = v.Elem(i).AppendText(dst)
		}
		return append(dst, ']')
	case Object, Set:
		if v.Kind() == Set && v.Len() == 0 {
			return append(dst, "set()"...)
		}
		dst = append(dst, '{')
		c := v.Scan()
		var key, val Value
		for first := true; c.Next(&key, &val); first = false {
			if !first {
				dst = append(dst, ", "...)
			}
			dst = key.AppendText(dst)
			if v.Kind() == Object {
				dst = val.AppendText(append(dst, ": "...))
			}
		}
		return append(dst, '}')
	}
	return dst
}

// AppendJSON appends v as JSON, exactly as OPA's json.marshal has it: sets are
// arrays in order; a key that is no string is replaced by its JSON, and where two
// keys become the same, the one that comes later in order stays; members are
// sorted by name; <, > and & are escaped, and what is not UTF-8 is U+FFFD.
//
// It returns an error for a number whose spelling is not JSON's, for instance
// one that to_number made of ".5", and for the undefined Value.
func (v Value) AppendJSON(dst []byte) ([]byte, error) {
	switch v.Kind() {
	case Null:
		return append(dst, "null"...), nil
	case Bool:
		return strconv.AppendBool(dst, v.IsTrue()), nil
	case Number:
		return v.appendJSONNumber(dst)
	case String:
		return appendJSONString(dst, v.text()), nil
	case Array, Set:
		dst = append(dst, '[')
		c := v.Scan()
		var key, elem Value
		for first := true; c.Next(&key, &elem); first = false {
			if !first {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = elem.AppendJSON(dst); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	case Object:
		return v.appendJSONObject(dst)
	}
	return nil, fmt.Errorf("%s is no JSON", v.Kind())
}

func (v Value) appendJSONNumber(dst []byte) ([]byte, error) {
	if v.form() == spelled && !json.Valid([]byte(v.text())) {
		return nil, fmt.Errorf("json: invalid number literal %q", v.text())
	}
	return v.AppendNumeral(dst), nil
}

// appendJSONString leaves to encoding/json what is not plain.
func appendJSONString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // of a string there is no error
			return append(dst, quoted...)
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}

func (v Value) appendJSONObject(dst []byte) ([]byte, error) {
	c := v.Scan()
	var key, val Value
	start := len(dst)
	dst = append(dst, '{')
	for first := true; c.Next(&key, &val); first = false {
		if key.Kind() != String {
			return v.appendRenamedJSON(dst[:start])
		}
		if !first {
			dst = append(dst, ',')
		}
		dst = append(appendJSONString(dst, key.text()), ':')
		var err error
		if dst, err = val.AppendJSON(dst); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

// appendRenamedJSON is for objects with keys that are not strings.
func (v Value) appendRenamedJSON(dst []byte) ([]byte, error) {
	members := make(map[string]Value, v.Len())
	for key, val := range v.All() {
		name := key.Text()
		if key.Kind() != String {
			text, err := key.AppendJSON(nil)
			if err != nil {
				return nil, err
			}
			name = string(text)
		}
		members[name] = val
	}
	dst = append(dst, '{')
	for i, name := range slices.Sorted(maps.Keys(members)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendJSONString(dst, name), ':')
		var err error
		if dst, err = members[name].AppendJSON(dst); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}
