package builtin

import "github.com/microwall/microwall/policy/rego/internal/value"

var setOperations = []*Builtin{
	{Name: "and", Func: and},
	{Name: "or", Func: or},
	{Name: "set_diff", Func: setDiff},
	{Name: "intersection", Func: intersection},
	{Name: "union", Func: union},
}

// sets returns an error unless both operands are sets.
func sets(name string, args []value.Value) error {
	for i, arg := range args {
		if arg.Kind() != value.Set {
			return wrongType(name, i+1, arg, "set")
		}
	}
	return nil
}

func and(c *Call, args []value.Value) (value.Value, error) {
	if err := sets("and", args); err != nil {
		return value.Value{}, err
	}
	return c.intersect(args[0], args[1])
}

// intersect gives what two sets share, spelled as in the smaller one.
func (c *Call) intersect(a, b value.Value) (value.Value, error) {
	if b.Len() < a.Len() {
		a, b = b, a
	}
	return c.sift(a, b, true)
}

// difference gives what is in a and not in b.
func (c *Call) difference(a, b value.Value) (value.Value, error) { return c.sift(a, b, false) }

// sift gives the members of a that are in b, or those that are not.
func (c *Call) sift(a, b value.Value, in bool) (value.Value, error) {
	members, err := c.scan(a)
	if err != nil {
		return value.Value{}, err
	}
	result := value.NewSet(0)
	for m := range members.All() {
		found, err := c.has(b, m)
		if err == nil && found == in {
			err = c.add(result, m)
		}
		if err != nil {
			return value.Value{}, err
		}
	}
	return result, nil
}

func or(c *Call, args []value.Value) (value.Value, error) {
	if err := sets("or", args); err != nil {
		return value.Value{}, err
	}
	a, b := args[0], args[1]
	switch {
	case a.Len() == 0:
		return b, nil
	case b.Len() == 0:
		return a, nil
	}
	result := value.NewSet(0)
	if err := c.addAll(result, a); err != nil {
		return value.Value{}, err
	}
	return result, c.addAll(result, b)
}

// addAll adds the members of a set to one that is being built.
func (c *Call) addAll(to, from value.Value) error {
	members, err := c.scan(from)
	if err != nil {
		return err
	}
	for m := range members.All() {
		if err := c.add(to, m); err != nil {
			return err
		}
	}
	return nil
}

func setDiff(c *Call, args []value.Value) (value.Value, error) {
	if err := sets("set_diff", args); err != nil {
		return value.Value{}, err
	}
	return c.difference(args[0], args[1])
}

func intersection(c *Call, args []value.Value) (value.Value, error) {
	if err := setOfSets(c, "intersection", args[0]); err != nil {
		return value.Value{}, err
	}
	result := value.NewSet(0)
	first := true
	for set := range args[0].All() {
		if first {
			result, first = set, false
			continue
		}
		var err error
		if result, err = c.intersect(result, set); err != nil {
			return value.Value{}, err
		}
	}
	return result, nil
}

func union(c *Call, args []value.Value) (value.Value, error) {
	if err := setOfSets(c, "union", args[0]); err != nil {
		return value.Value{}, err
	}
	result := value.NewSet(0)
	for set := range args[0].All() {
		if err := c.addAll(result, set); err != nil {
			return value.Value{}, err
		}
	}
	return result, nil
}

func setOfSets(c *Call, name string, v value.Value) error {
	if v.Kind() != value.Set {
		return wrongType(name, 1, v, "set")
	}
	members, err := c.scan(v)
	if err != nil {
		return err
	}
	for m := range members.All() {
		if err := c.Step(1); err != nil {
			return err
		}
		if m.Kind() != value.Set {
			return wrongType(name, 1, m, "set")
		}
	}
	return nil
}
