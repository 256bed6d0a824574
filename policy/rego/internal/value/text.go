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
// It returns a [*NotJSON] for a number whose spelling is not JSON's, for instance
// one that to_number made of ".5", and for the undefined Value.
func (v Value) AppendJSON(dst []byte) ([]byte, error) { return v.appendJSON(dst, new(comparer)) }

// AppendJSONFor is [Value.AppendJSON] for a charge, which pays for putting members in
// order.
func (v Value) AppendJSONFor(dst []byte, charge Charge) ([]byte, error) {
	c := comparer{charge: charge}
	dst, err := v.appendJSON(dst, &c)
	if err := c.end(); err != nil {
		return nil, err
	}
	return dst, err
}

func (v Value) appendJSON(dst []byte, o *comparer) ([]byte, error) {
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
		c := o.scan(v)
		var key, elem Value
		for first := true; c.Next(&key, &elem); first = false {
			if !first {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = elem.appendJSON(dst, o); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	case Object:
		return v.appendJSONObject(dst, o)
	}
	return nil, &NotJSON{v.Kind().String() + " is no JSON"}
}

// NotJSON is why a value has no JSON.
type NotJSON struct{ reason string }

func (e *NotJSON) Error() string { return e.reason }

func (v Value) appendJSONNumber(dst []byte) ([]byte, error) {
	if v.form() == spelled && !json.Valid([]byte(v.text())) {
		return nil, &NotJSON{fmt.Sprintf("json: invalid number literal %q", v.text())}
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

func (v Value) appendJSONObject(dst []byte, o *comparer) ([]byte, error) {
	c := o.scan(v)
	var key, val Value
	if v.form() == built {
		for look := c; look.Next(&key, &val); { // before anything is written, which would be twice at every level
			if key.Kind() != String {
				return v.appendRenamedJSON(dst, o)
			}
		}
	}
	dst = append(dst, '{')
	for first := true; c.Next(&key, &val); first = false {
		if !first {
			dst = append(dst, ',')
		}
		dst = append(appendJSONString(dst, key.text()), ':')
		var err error
		if dst, err = val.appendJSON(dst, o); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

// appendRenamedJSON is for objects with keys that are not strings.
func (v Value) appendRenamedJSON(dst []byte, o *comparer) ([]byte, error) {
	members := make(map[string]Value, v.Len())
	for key, val := range o.scan(v).All() {
		name := key.Text()
		if key.Kind() != String {
			text, err := key.appendJSON(nil, o)
			if err != nil {
				return nil, err
			}
			name = string(text)
		}
		members[name] = val
	}
	dst = append(dst, '{')
	names := slices.Collect(maps.Keys(members))
	o.sortTexts(names)
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendJSONString(dst, name), ':')
		var err error
		if dst, err = members[name].appendJSON(dst, o); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}
