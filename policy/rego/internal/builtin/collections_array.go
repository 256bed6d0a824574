package builtin

import "github.com/microwall/microwall/policy/rego/internal/value"

var arrays = []*Builtin{
	{Name: "array.concat", Func: arrayConcat},
	{Name: "array.flatten", Func: arrayFlatten},
	{Name: "array.slice", Func: arraySlice},
	{Name: "array.reverse", Func: arrayReverse},
}

// elements appends the elements of an array, or the members of a set in order.
func (c *Call) elements(to []value.Value, v value.Value) ([]value.Value, error) {
	n := v.Len()
	if err := c.Bytes(int64(n) * elemBytes); err != nil {
		return nil, err
	}
	members, err := c.scan(v)
	if err != nil {
		return nil, err
	}
	if to == nil {
		to = make([]value.Value, 0, n)
	}
	if v.Kind() == value.Array {
		for i := range n {
			if i%chunk == 0 {
				if err := c.Step(int64(min(chunk, n-i))); err != nil {
					return nil, err
				}
			}
			to = append(to, v.Elem(i))
		}
		return to, nil
	}
	var key, elem value.Value
	for members.Next(&key, &elem) {
		if err := c.Step(1); err != nil {
			return nil, err
		}
		to = append(to, elem)
	}
	return to, nil
}

func arrayConcat(c *Call, args []value.Value) (value.Value, error) {
	a, b := args[0], args[1]
	switch {
	case a.Kind() != value.Array:
		return value.Value{}, wrongType("array.concat", 1, a, "array")
	case b.Kind() != value.Array:
		return value.Value{}, wrongType("array.concat", 2, b, "array")
	case a.Len() == 0:
		return b, nil
	case b.Len() == 0:
		return a, nil
	}
	if err := c.Bytes(int64(b.Len()) * elemBytes); err != nil {
		return value.Value{}, err
	}
	elems, err := c.elements(make([]value.Value, 0, a.Len()+b.Len()), a)
	if err == nil {
		elems, err = c.elements(elems, b)
	}
	return value.NewArray(elems...), err
}

func arrayFlatten(c *Call, args []value.Value) (value.Value, error) {
	v := args[0]
	if v.Kind() != value.Array {
		return value.Value{}, wrongType("array.flatten", 1, v, "array")
	}
	n := 0
	for i := range v.Len() {
		if err := c.Step(4); err != nil {
			return value.Value{}, err
		}
		if e := v.Elem(i); e.Kind() == value.Array {
			n += e.Len()
		} else {
			n++
		}
	}
	if err := c.Bytes(int64(n) * elemBytes); err != nil {
		return value.Value{}, err
	}
	flat := make([]value.Value, 0, n)
	for i := range v.Len() {
		e := v.Elem(i)
		if e.Kind() != value.Array {
			flat = append(flat, e)
			continue
		}
		for j := range e.Len() {
			if err := c.Step(1); err != nil {
				return value.Value{}, err
			}
			flat = append(flat, e.Elem(j))
		}
	}
	return value.NewArray(flat...), nil
}

func arraySlice(c *Call, args []value.Value) (value.Value, error) {
	v := args[0]
	if v.Kind() != value.Array {
		return value.Value{}, wrongType("array.slice", 1, v, "array")
	}
	from, err := integer("array.slice", 2, args[1])
	if err != nil {
		return value.Value{}, err
	}
	to, err := integer("array.slice", 3, args[2])
	if err != nil {
		return value.Value{}, err
	}
	n := int64(v.Len())
	to = min(max(to, 0), n)
	from = min(max(from, 0), to)
	if from == 0 && to == n {
		return v, nil
	}
	if err := c.Bytes((to - from) * elemBytes); err != nil {
		return value.Value{}, err
	}
	part := make([]value.Value, 0, to-from)
	for i := from; i < to; i++ {
		if err := c.Step(1); err != nil {
			return value.Value{}, err
		}
		part = append(part, v.Elem(int(i)))
	}
	return value.NewArray(part...), nil
}

func arrayReverse(c *Call, args []value.Value) (value.Value, error) {
	v := args[0]
	if v.Kind() != value.Array {
		return value.Value{}, wrongType("array.reverse", 1, v, "array")
	}
	n := v.Len()
	if n < 2 {
		return v, nil
	}
	if err := c.Bytes(int64(n) * elemBytes); err != nil {
		return value.Value{}, err
	}
	reversed := make([]value.Value, n)
	for i := range n {
		if err := c.Step(1); err != nil {
			return value.Value{}, err
		}
		reversed[n-1-i] = v.Elem(i)
	}
	return value.NewArray(reversed...), nil
}
