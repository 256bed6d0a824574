package builtin

import "github.com/microwall/microwall/policy/rego/internal/value"

var objects = []*Builtin{
	{Name: "object.get", Func: objectGet},
	{Name: "object.keys", Func: objectKeys},
	{Name: "object.remove", Func: objectRemove},
	{Name: "object.filter", Func: objectFilter},
	{Name: "object.union", Func: objectUnion},
	{Name: "object.union_n", Func: objectUnionN},
	{Name: "object.subset", Func: objectSubset},
}

func objectGet(c *Call, args []value.Value) (value.Value, error) {
	v, path := args[0], args[1]
	if v.Kind() != value.Object {
		return value.Value{}, wrongType("object.get", 1, v, "object")
	}
	var err error
	if path.Kind() != value.Array {
		v, err = c.get(v, path)
	} else {
		for i := 0; i < path.Len() && v.Defined() && err == nil; i++ {
			v, err = c.get(v, path.Elem(i))
		}
	}
	if err == nil && !v.Defined() {
		v = args[2]
	}
	return v, err
}

func objectKeys(c *Call, args []value.Value) (value.Value, error) {
	v := args[0]
	if v.Kind() != value.Object {
		return value.Value{}, wrongType("object.keys", 1, v, "object")
	}
	return c.keySet(v)
}

// keySet gives the keys of an object as a set.
func (c *Call) keySet(object value.Value) (value.Value, error) {
	members, err := c.scan(object)
	if err != nil {
		return value.Value{}, err
	}
	keys := value.NewSet(object.Len())
	for key := range members.All() {
		if err := c.add(keys, key); err != nil {
			return value.Value{}, err
		}
	}
	return keys, nil
}

// keyOperand returns as a set the keys that the second operand of a built-in
// names.
func (c *Call) keyOperand(name string, v value.Value) (value.Value, error) {
	switch v.Kind() {
	case value.Set:
		return v, nil
	case value.Object:
		return c.keySet(v)
	case value.Array:
		keys := value.NewSet(v.Len())
		for i := range v.Len() {
			if err := c.add(keys, v.Elem(i)); err != nil {
				return value.Value{}, err
			}
		}
		return keys, nil
	}
	return value.Value{}, wrongType(name, 2, v, "object", "set", "array")
}

func objectRemove(c *Call, args []value.Value) (value.Value, error) {
	v := args[0]
	if v.Kind() != value.Object {
		return value.Value{}, wrongType("object.remove", 1, v, "object")
	}
	keys, err := c.keyOperand("object.remove", args[1])
	if err != nil {
		return value.Value{}, err
	}
	members, err := c.scan(v)
	if err != nil {
		return value.Value{}, err
	}
	rest := value.NewObject(0)
	for key, val := range members.All() {
		found, err := c.has(keys, key)
		if err == nil && !found {
			err = c.insert(rest, key, val)
		}
		if err != nil {
			return value.Value{}, err
		}
	}
	return rest, nil
}

func objectFilter(c *Call, args []value.Value) (value.Value, error) {
	v := args[0]
	if v.Kind() != value.Object {
		return value.Value{}, wrongType("object.filter", 1, v, "object")
	}
	keys, err := c.keyOperand("object.filter", args[1])
	if err != nil {
		return value.Value{}, err
	}
	// OPA goes through the one that is smaller, and takes the keys' spelling from
	// it.
	through, in := v, keys
	if v.Len() < keys.Len() {
		through, in = keys, v
	}
	members, err := c.scan(through)
	if err != nil {
		return value.Value{}, err
	}
	part := value.NewObject(0)
	for key := range members.All() {
		found, err := c.get(in, key)
		if err == nil && found.Defined() {
			err = c.insert(part, key, v.Get(key))
		}
		if err != nil {
			return value.Value{}, err
		}
	}
	return part, nil
}

func objectUnion(c *Call, args []value.Value) (value.Value, error) {
	a, b := args[0], args[1]
	switch {
	case a.Kind() != value.Object:
		return value.Value{}, wrongType("object.union", 1, a, "object")
	case b.Kind() != value.Object:
		return value.Value{}, wrongType("object.union", 2, b, "object")
	case a.Len() == 0:
		return b, nil
	case b.Len() == 0:
		return a, nil
	}
	if same, err := c.equal(a, b); same || err != nil {
		return a, err
	}
	return c.overwrite(a, b)
}

// overwrite gives a with the members of b in it; of two objects under one key it
// does the same.
func (c *Call) overwrite(a, b value.Value) (value.Value, error) {
	merged := value.NewObject(0)
	members, err := c.scan(a)
	if err != nil {
		return value.Value{}, err
	}
	for key, val := range members.All() {
		over, err := c.get(b, key)
		if err != nil {
			return value.Value{}, err
		}
		switch {
		case !over.Defined():
		case val.Kind() == value.Object && over.Kind() == value.Object:
			if val, err = c.overwrite(val, over); err != nil {
				return value.Value{}, err
			}
		default:
			val = over
		}
		if err := c.insert(merged, key, val); err != nil {
			return value.Value{}, err
		}
	}
	if members, err = c.scan(b); err != nil {
		return value.Value{}, err
	}
	for key, val := range members.All() {
		under, err := c.get(a, key)
		if err == nil && !under.Defined() {
			err = c.insert(merged, key, val)
		}
		if err != nil {
			return value.Value{}, err
		}
	}
	return merged, nil
}

func objectUnionN(c *Call, args []value.Value) (value.Value, error) {
	v := args[0]
	if v.Kind() != value.Array {
		return value.Value{}, wrongType("object.union_n", 1, v, "array")
	}
	for i := range v.Len() {
		if err := c.Step(1); err != nil {
			return value.Value{}, err
		}
		if e := v.Elem(i); e.Kind() != value.Object {
			return value.Value{}, wrongElement("object.union_n", 1, v, e, "object")
		}
	}
	if v.Len() == 1 {
		return v.Elem(0), nil
	}
	u := underlay{c, map[value.Value]bool{}}
	result := value.NewObject(0)
	for i := v.Len() - 1; i >= 0; i-- {
		if err := u.merge(result, v.Elem(i)); err != nil {
			return value.Value{}, err
		}
	}
	return result, nil
}

// underlay merges objects from the last to the first, so that what is there
// already wins. An object that had something else beneath it has covered what is
// beneath that: it is frozen.
type underlay struct {
	c      *Call
	frozen map[value.Value]bool // objects of the result, which are their own
}

// merge puts the members of an object beneath those of one that is being built.
func (u underlay) merge(to, from value.Value) error {
	members, err := u.c.scan(from)
	if err != nil {
		return err
	}
	for key, val := range members.All() {
		have, err := u.c.get(to, key)
		switch {
		case err != nil:
		case !have.Defined():
			if val, err = u.own(val); err == nil {
				err = u.c.insert(to, key, val)
			}
		case have.Kind() != value.Object:
		case val.Kind() != value.Object:
			u.frozen[have] = true
		case !u.frozen[have]:
			err = u.merge(have, val)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// own returns a value with its objects copied, so that they can be merged into.
func (u underlay) own(v value.Value) (value.Value, error) {
	if v.Kind() != value.Object {
		return v, nil
	}
	members, err := u.c.scan(v)
	if err != nil {
		return value.Value{}, err
	}
	copied := value.NewObject(v.Len())
	for key, val := range members.All() {
		val, err := u.own(val)
		if err == nil {
			err = u.c.insert(copied, key, val)
		}
		if err != nil {
			return value.Value{}, err
		}
	}
	return copied, nil
}

func objectSubset(c *Call, args []value.Value) (value.Value, error) {
	super, sub := args[0], args[1]
	var is bool
	var err error
	switch {
	case super.Kind() == value.Array && sub.Kind() == value.Set:
		is, err = c.arrayHasAll(super, sub)
	case super.Kind() != sub.Kind() || !super.IsComposite():
		return value.Value{}, typeError("object.subset", "both arguments object.subset must be of the same type or array and set")
	default:
		is, err = c.isSubset(super, sub)
	}
	return value.Boolean(is), err
}

// isSubset reports whether super has all that sub has; both are of the same kind
// of composite.
func (c *Call) isSubset(super, sub value.Value) (bool, error) {
	switch super.Kind() {
	case value.Array:
		return c.hasRun(super, sub)
	case value.Set:
		members, err := c.scan(sub)
		if err != nil {
			return false, err
		}
		for m := range members.All() {
			if found, err := c.has(super, m); !found || err != nil {
				return false, err
			}
		}
		return true, nil
	}
	members, err := c.scan(sub)
	if err != nil {
		return false, err
	}
	for key, val := range members.All() {
		in, err := c.get(super, key)
		if err != nil || !in.Defined() {
			return false, err
		}
		is, err := c.equal(val, in)
		if err == nil && !is && val.IsComposite() && val.Kind() == in.Kind() {
			is, err = c.isSubset(in, val)
		}
		if !is || err != nil {
			return false, err
		}
	}
	return true, nil
}

// hasRun reports whether the elements of sub follow one another in super.
func (c *Call) hasRun(super, sub value.Value) (bool, error) {
	if sub.Len() > super.Len() {
		return false, nil
	}
	at, n := 0, 0
	for n < sub.Len() {
		if at+n == super.Len() {
			return false, nil
		}
		same, err := c.equal(super.Elem(at+n), sub.Elem(n))
		switch {
		case err != nil:
			return false, err
		case same:
			n++
		default:
			at++
			n = 0
		}
	}
	return true, nil
}

// arrayHasAll is what OPA makes of an array and a set: as many elements of the
// array are in the set as that has members. One that is there twice counts
// twice, and an empty array has not even nothing.
func (c *Call) arrayHasAll(super, sub value.Value) (bool, error) {
	missing := sub.Len()
	for i := range super.Len() {
		found, err := c.has(sub, super.Elem(i))
		if err != nil {
			return false, err
		}
		if found {
			missing--
		}
		if missing == 0 {
			return true, nil
		}
	}
	return false, nil
}
