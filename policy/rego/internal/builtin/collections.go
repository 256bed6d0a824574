package builtin

import (
	"slices"
	"unicode/utf8"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

var aggregates = []*Builtin{
	{Name: "count", Func: count},
	{Name: "max", Func: extreme("max", 1)},
	{Name: "min", Func: extreme("min", -1)},
	{Name: "sort", Func: sort},
	{Name: "all", Func: all},
	{Name: "any", Func: anyOf},
	{Name: "internal.member_2", Func: member, Total: true},
	{Name: "internal.member_3", Func: memberWithKey, Total: true},
}

func count(c *Call, args []value.Value) (value.Value, error) {
	v := args[0]
	switch {
	case v.IsComposite():
		return value.Int(int64(v.Len())), c.Step(1)
	case v.Kind() == value.String:
		if err := c.Step(1 + int64(len(v.Text()))/8); err != nil {
			return value.Value{}, err
		}
		return value.Int(int64(utf8.RuneCountInString(v.Text()))), nil
	}
	return value.Value{}, wrongType("count", 1, v, "array", "object", "set", "string")
}

// extreme gives the largest element or the smallest, of equal ones the last.
func extreme(name string, sign int) Func {
	return func(c *Call, args []value.Value) (value.Value, error) {
		v := args[0]
		if v.Kind() != value.Array && v.Kind() != value.Set {
			return value.Value{}, wrongType(name, 1, v, "set", "array")
		}
		if _, err := c.scan(v); err != nil {
			return value.Value{}, err
		}
		if v.Kind() == value.Set { // in order, and no two are equal
			elems, err := c.elements(nil, v)
			if err != nil || len(elems) == 0 {
				return value.Value{}, err
			}
			if sign > 0 {
				return elems[len(elems)-1], nil
			}
			return elems[0], nil
		}
		var best value.Value
		for i := range v.Len() {
			elem := v.Elem(i)
			if !best.Defined() {
				best = elem
				continue
			}
			order, err := c.compare(elem, best)
			if err != nil {
				return value.Value{}, err
			}
			if order*sign >= 0 {
				best = elem
			}
		}
		return best, nil
	}
}

func sort(c *Call, args []value.Value) (value.Value, error) {
	v := args[0]
	if v.Kind() != value.Array && v.Kind() != value.Set {
		return value.Value{}, wrongType("sort", 1, v, "set", "array")
	}
	elems, err := c.elements(nil, v)
	if err != nil || v.Kind() == value.Set {
		return value.NewArray(elems...), err
	}
	// OPA sorts with the same function. It is not stable, so that which of two
	// equal elements comes first depends on it.
	slices.SortFunc(elems, func(a, b value.Value) int {
		if err != nil {
			return 0
		}
		var order int
		order, err = c.compare(a, b)
		return order
	})
	return value.NewArray(elems...), err
}

func all(c *Call, args []value.Value) (value.Value, error) {
	v := args[0]
	if v.Kind() != value.Array && v.Kind() != value.Set {
		return value.Value{}, wrongType("all", 1, v, "array", "set")
	}
	members, err := c.scan(v)
	if err != nil {
		return value.Value{}, err
	}
	var key, elem value.Value
	for members.Next(&key, &elem) {
		if err := c.Step(1); err != nil || !elem.IsTrue() {
			return value.False, err
		}
	}
	return value.True, nil
}

func anyOf(c *Call, args []value.Value) (value.Value, error) {
	v := args[0]
	switch v.Kind() {
	case value.Set:
		return value.Boolean(v.Has(value.True)), c.Step(1)
	case value.Array:
		for i := range v.Len() {
			if err := c.Step(1); err != nil || v.Elem(i).IsTrue() {
				return value.True, err
			}
		}
		return value.False, nil
	}
	return value.Value{}, wrongType("any", 1, v, "array", "set")
}

func member(c *Call, args []value.Value) (value.Value, error) {
	x, in := args[0], args[1]
	switch in.Kind() {
	case value.Set:
		found, err := c.has(in, x)
		return value.Boolean(found), err
	case value.Array:
		for i := range in.Len() {
			if same, err := c.equal(x, in.Elem(i)); same || err != nil {
				return value.Boolean(same), err
			}
		}
	case value.Object:
		members, err := c.scan(in)
		if err != nil {
			return value.Value{}, err
		}
		var key, val value.Value
		for members.Next(&key, &val) {
			if same, err := c.equal(x, val); same || err != nil {
				return value.Boolean(same), err
			}
		}
	}
	return value.False, c.Step(1)
}

func memberWithKey(c *Call, args []value.Value) (value.Value, error) {
	key, val, in := args[0], args[1], args[2]
	found, err := c.get(in, key)
	if err != nil || !found.Defined() {
		return value.False, err
	}
	same, err := c.equal(val, found)
	return value.Boolean(same), err
}
