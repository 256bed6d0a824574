package builtin

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strings"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

var encodings = []*Builtin{
	textBuiltin("base64.encode", 1, 2, encoded(base64.StdEncoding.EncodeToString)),
	textBuiltin("base64.decode", 1, 1, decoded("base64.decode", base64.StdEncoding.DecodeString)),
	validity("base64.is_valid", 1, func(s string) bool {
		_, err := base64.StdEncoding.DecodeString(s)
		return err == nil
	}),
	textBuiltin("base64url.encode", 1, 2, encoded(base64.URLEncoding.EncodeToString)),
	textBuiltin("base64url.encode_no_pad", 1, 2, encoded(base64.RawURLEncoding.EncodeToString)),
	textBuiltin("base64url.decode", 1, 1, base64URLDecode),
	textBuiltin("hex.encode", 1, 2, encoded(hex.EncodeToString)),
	textBuiltin("hex.decode", 1, 1, decoded("hex.decode", hex.DecodeString)),
	textBuiltin("urlquery.encode", 2, 3, func(s string) (value.Value, error) { return value.Text(url.QueryEscape(s)), nil }),
	textBuiltin("urlquery.decode", 2, 1, func(s string) (value.Value, error) {
		text, err := url.QueryUnescape(s)
		if err != nil {
			return value.Value{}, fail("urlquery.decode", "%v", err)
		}
		return value.Text(text), nil
	}),
	{Name: "urlquery.encode_object", Func: urlqueryEncodeObject},
	{Name: "urlquery.decode_object", Func: urlqueryDecodeObject},
}

// textBuiltin is a built-in of one string, which takes some eighths of a step,
// and makes at most so many bytes, for each byte of it.
func textBuiltin(name string, eighths, bytes int64, f func(s string) (value.Value, error)) *Builtin {
	return &Builtin{Name: name, Func: func(c *Call, args []value.Value) (value.Value, error) {
		if args[0].Kind() != value.String {
			return value.Value{}, wrongType(name, 1, args[0], "string")
		}
		s := args[0].Text()
		if err := c.blockOf(s, eighths, bytes); err != nil {
			return value.Value{}, err
		}
		return f(s)
	}}
}

// validity is a built-in that says whether a string is something; whatever is no
// string is not.
func validity(name string, eighths int64, is func(s string) bool) *Builtin {
	return &Builtin{Name: name, Total: true, Func: func(c *Call, args []value.Value) (value.Value, error) {
		if args[0].Kind() != value.String {
			return value.False, c.Step(1)
		}
		s := args[0].Text()
		if err := c.blockOf(s, eighths, 1); err != nil {
			return value.Value{}, err
		}
		return value.Boolean(is(s)), nil
	}}
}

// blockOf charges for one go through a text.
func (c *Call) blockOf(s string, eighths, bytes int64) error {
	n := int64(len(s))
	if err := c.Bytes(32 + n*bytes); err != nil {
		return err
	}
	return c.block(4 + n*eighths/8)
}

func encoded(encode func([]byte) string) func(s string) (value.Value, error) {
	return func(s string) (value.Value, error) { return value.Text(encode([]byte(s))), nil }
}

func decoded(name string, decode func(string) ([]byte, error)) func(s string) (value.Value, error) {
	return func(s string) (value.Value, error) {
		b, err := decode(s)
		if err != nil {
			return value.Value{}, fail(name, "%v", err)
		}
		return value.Text(string(b)), nil
	}
}

func base64URLDecode(s string) (value.Value, error) {
	whole := s
	if !strings.HasSuffix(s, "=") {
		switch len(s) % 4 {
		case 1:
			return value.Value{}, fail("base64url.decode", "illegal base64url string: %s", s)
		case 2:
			whole += "=="
		case 3:
			whole += "="
		}
	}
	return decoded("base64url.decode", base64.URLEncoding.DecodeString)(whole)
}

func urlqueryEncodeObject(c *Call, args []value.Value) (value.Value, error) {
	v := args[0]
	size, err := c.measure(v)
	if err != nil {
		return value.Value{}, err
	}
	if err := c.Bytes(size.Values*2*pairBytes + size.Text*6); err != nil {
		return value.Value{}, err
	}
	if err := c.block(size.Values*40 + size.Text); err != nil {
		return value.Value{}, err
	}
	if v.Kind() != value.Object {
		return value.Value{}, wrongType("urlquery.encode_object", 1, v, "object")
	}
	members, err := c.scan(v)
	if err != nil {
		return value.Value{}, err
	}
	named := make(map[string]value.Value, v.Len())
	for key, val := range members.All() {
		name := key.Text()
		if key.Kind() != value.String {
			text, err := key.AppendJSONFor(nil, c.Step)
			if err != nil {
				return value.Value{}, failJSON("urlquery.encode_object", err)
			}
			name = string(text)
		}
		named[name] = val // of two keys that become the same the later one stays
	}
	query := make(url.Values, len(named))
	for name, val := range named {
		list, ok, err := c.stringList(val)
		if err != nil {
			return value.Value{}, err
		}
		if !ok {
			return value.Value{}, typeError("urlquery.encode_object", "operand 1 values must be string, array[string], or set[string]")
		}
		query[name] = list
	}
	return value.Text(query.Encode()), nil
}

// stringList returns a string, or an array or a set of strings.
func (c *Call) stringList(v value.Value) (list []string, ok bool, err error) {
	switch v.Kind() {
	case value.String:
		return []string{v.Text()}, true, nil
	case value.Array, value.Set:
		members, err := c.scan(v)
		if err != nil {
			return nil, false, err
		}
		for _, e := range members.All() {
			if e.Kind() != value.String {
				return nil, false, nil
			}
			list = append(list, e.Text())
		}
		return list, true, nil
	}
	return nil, false, nil
}

func urlqueryDecodeObject(c *Call, args []value.Value) (value.Value, error) {
	if args[0].Kind() != value.String {
		return value.Value{}, wrongType("urlquery.decode_object", 1, args[0], "string")
	}
	s := args[0].Text()
	parameters := int64(strings.Count(s, "&") + 1)
	if err := c.Bytes(int64(len(s)) + parameters*2*pairBytes); err != nil {
		return value.Value{}, err
	}
	if err := c.block(int64(len(s))/2 + parameters*30); err != nil {
		return value.Value{}, err
	}
	query, err := url.ParseQuery(s)
	if err != nil {
		return value.Value{}, fail("urlquery.decode_object", "%v", err)
	}
	object := value.NewObject(len(query))
	for name, values := range query {
		list := value.NewArray()
		for _, v := range values {
			list.Append(value.Text(v))
		}
		object.Insert(value.Text(name), list)
	}
	return object, nil
}
