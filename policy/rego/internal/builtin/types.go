package builtin

import "github.com/microwall/microwall/policy/rego/internal/value"

// typing tells the types of values, and has the casts of Rego's early days, which
// only let a value of the type pass.
var typing = []*Builtin{
	{Name: "type_name", Func: typeName, Total: true},
	{Name: "is_null", Func: is(value.Null), Total: true},
	{Name: "is_boolean", Func: is(value.Bool), Total: true},
	{Name: "is_number", Func: is(value.Number), Total: true},
	{Name: "is_string", Func: is(value.String), Total: true},
	{Name: "is_array", Func: is(value.Array), Total: true},
	{Name: "is_object", Func: is(value.Object), Total: true},
	{Name: "is_set", Func: is(value.Set), Total: true},

	{Name: "cast_null", Func: cast("cast_null", value.Null)},
	{Name: "cast_boolean", Func: cast("cast_boolean", value.Bool)},
	{Name: "cast_string", Func: cast("cast_string", value.String)},
	{Name: "cast_object", Func: cast("cast_object", value.Object)},
	{Name: "cast_array", Func: castArray},
	{Name: "cast_set", Func: castSet},
}

func typeName(c *Call, args []value.Value) (value.Value, error) {
	return value.Text(args[0].Kind().String()), c.Step(1)
}

func is(kind value.Kind) Func {
	return func(c *Call, args []value.Value) (value.Value, error) {
		return value.Boolean(args[0].Kind() == kind), c.Step(1)
	}
}

func cast(name string, kind value.Kind) Func {
	return func(c *Call, args []value.Value) (value.Value, error) {
		if args[0].Kind() != kind {
			return value.Value{}, wrongType(name, 1, args[0], kind.String())
		}
		return args[0], c.Step(1)
	}
}

func castArray(c *Call, args []value.Value) (value.Value, error) {
	v := args[0]
	switch v.Kind() {
	case value.Array:
		return v, c.Step(1)
	case value.Set:
		elems, err := c.elements(nil, v)
		return value.NewArray(elems...), err
	}
	return value.Value{}, wrongType("cast_array", 1, v, "array", "set")
}

func castSet(c *Call, args []value.Value) (value.Value, error) {
	v := args[0]
	switch v.Kind() {
	case value.Set:
		return v, c.Step(1)
	case value.Array:
		set := value.NewSet(0)
		for i := range v.Len() {
			if err := c.add(set, v.Elem(i)); err != nil {
				return value.Value{}, err
			}
		}
		return set, nil
	}
	return value.Value{}, wrongType("cast_set", 1, v, "array", "set")
}
