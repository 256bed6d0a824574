package builtin

import "github.com/microwall/microwall/policy/rego/internal/value"

// comparisons take every pair of values: those of different kinds are ordered
// by kind.
var comparisons = []*Builtin{
	{Name: "equal", Func: equality(true), Total: true},
	{Name: "neq", Func: equality(false), Total: true},
	{Name: "lt", Func: comparison(func(order int) bool { return order < 0 }), Total: true},
	{Name: "lte", Func: comparison(func(order int) bool { return order <= 0 }), Total: true},
	{Name: "gt", Func: comparison(func(order int) bool { return order > 0 }), Total: true},
	{Name: "gte", Func: comparison(func(order int) bool { return order >= 0 }), Total: true},
}

func equality(want bool) Func {
	return func(c *Call, args []value.Value) (value.Value, error) {
		same, err := c.equal(args[0], args[1])
		return value.Boolean(same == want), err
	}
}

func comparison(holds func(order int) bool) Func {
	return func(c *Call, args []value.Value) (value.Value, error) {
		order, err := c.compare(args[0], args[1])
		return value.Boolean(holds(order)), err
	}
}
