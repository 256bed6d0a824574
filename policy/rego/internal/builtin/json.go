package builtin

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

var jsonTexts = []*Builtin{
	{Name: "json.marshal", Func: jsonMarshal},
	{Name: "json.marshal_with_options", Func: jsonMarshalWithOptions},
	{Name: "json.unmarshal", Func: jsonUnmarshal},
	validity("json.is_valid", 4, func(s string) bool { return json.Valid([]byte(s)) }),
}

// jsonText gives a value's JSON, for a charge.
func (c *Call) jsonText(name string, v value.Value) ([]byte, value.Size, error) {
	size, err := c.measure(v)
	if err != nil {
		return nil, size, err
	}
	length := size.Values*8 + size.Text
	if err := c.Bytes(length); err != nil {
		return nil, size, err
	}
	if err := c.block(size.Values*6 + size.Text/4); err != nil {
		return nil, size, err
	}
	text, err := v.AppendJSONFor(make([]byte, 0, length), c.Step)
	if err != nil {
		return nil, size, failJSON(name, err)
	}
	return text, size, c.Bytes(max(0, int64(len(text))-length))
}

// failJSON returns the error of a built-in that has met what is no JSON, and the
// meter's as it is.
func failJSON(name string, err error) error {
	if e, ok := errors.AsType[*value.NotJSON](err); ok {
		return fail(name, "%v", e)
	}
	return err
}

func jsonMarshal(c *Call, args []value.Value) (value.Value, error) {
	text, _, err := c.jsonText("json.marshal", args[0])
	return value.Text(string(text)), err
}

func jsonMarshalWithOptions(c *Call, args []value.Value) (value.Value, error) {
	const name = "json.marshal_with_options"
	text, size, err := c.jsonText(name, args[0])
	if err != nil {
		return value.Value{}, err
	}
	options := args[1]
	if options.Kind() != value.Object {
		return value.Value{}, wrongType(name, 2, options, "object")
	}
	if of, err := c.measure(options); err != nil {
		return value.Value{}, err
	} else if err := c.block(of.Text / 2); err != nil { // it may be told in an error
		return value.Value{}, err
	}
	prefix, indent := "", "\t"
	given, pretty, said := false, false, false
	i := -1
	members, err := c.scan(options)
	if err != nil {
		return value.Value{}, err
	}
	for key, val := range members.All() {
		i++
		switch {
		case key.Kind() != value.String:
			return value.Value{}, typeError(name, "operand 2 failed to stringify key %s at index %d: operand %d must be string but got %s", key, i, i, key.Kind())
		case key.IsText("pretty"):
			if said = true; val.Kind() != value.Bool {
				return value.Value{}, typeError(name, `operand 2 key "pretty" failed cast to bool`)
			}
			pretty = val.IsTrue()
			continue
		case !key.IsText("prefix") && !key.IsText("indent"):
			return value.Value{}, typeError(name, "operand 2 object contained unknown key %q", key.Text())
		case val.Kind() != value.String:
			return value.Value{}, typeError(name, "operand 2 key %q failed cast to string: operand %d must be string but got %s", key.Text(), i, val.Kind())
		}
		given = true
		if key.IsText("prefix") {
			prefix = val.Text()
		} else {
			indent = val.Text()
		}
	}
	if said && !pretty || !said && !given {
		return value.Text(string(text)), nil
	}
	// Every value and every end of one can begin a line.
	line := int64(len(prefix)+2) + size.Depth*int64(len(indent))
	added := 2 * size.Values * line
	if line > 1<<30 {
		added = 1 << 60
	}
	if err := c.Bytes(added + int64(len(text))); err != nil {
		return value.Value{}, err
	}
	if err := c.block((added + int64(len(text))) / 4); err != nil {
		return value.Value{}, err
	}
	var b bytes.Buffer
	b.WriteString(prefix)
	if err := json.Indent(&b, text, prefix, indent); err != nil {
		return value.Value{}, fail(name, "%v", err)
	}
	return value.Text(b.String()), nil
}

func jsonUnmarshal(c *Call, args []value.Value) (value.Value, error) {
	if args[0].Kind() != value.String {
		return value.Value{}, wrongType("json.unmarshal", 1, args[0], "string")
	}
	s := args[0].Text()
	if err := c.blockOf(s, 24, 40); err != nil {
		return value.Value{}, err
	}
	var x any
	if err := util.UnmarshalJSON([]byte(s), &x); err != nil {
		return value.Value{}, fail("json.unmarshal", "%v", err)
	}
	return fromJSON(x)
}

// fromJSON returns what encoding/json decoded. It returns an error for a number
// that OPA takes for too large or too small to calculate with.
func fromJSON(x any) (value.Value, error) {
	switch x := x.(type) {
	case bool:
		return value.Boolean(x), nil
	case string:
		return value.Text(x), nil
	case json.Number:
		n, err := ast.NumberChecked(string(x))
		if err != nil {
			return value.Value{}, fail("json.unmarshal", "%v", err)
		}
		return number("json.unmarshal", n)
	case []any:
		list := make([]value.Value, len(x))
		for i, e := range x {
			var err error
			if list[i], err = fromJSON(e); err != nil {
				return value.Value{}, err
			}
		}
		return value.NewArray(list...), nil
	case map[string]any:
		object := value.NewObject(len(x))
		for name, e := range x {
			v, err := fromJSON(e)
			if err != nil {
				return value.Value{}, err
			}
			object.Insert(value.Text(name), v)
		}
		return object, nil
	}
	return value.NullValue, nil
}
