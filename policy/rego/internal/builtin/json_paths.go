package builtin

import (
	"strconv"
	"strings"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

var jsonPaths = []*Builtin{
	{Name: "json.filter", Func: jsonFilter},
	{Name: "json.remove", Func: jsonRemove},
}

// paths are kept as an object of objects: where a path ends there is null. An
// array's index is the string of its digits.

func jsonFilter(c *Call, args []value.Value) (value.Value, error) {
	paths, err := c.jsonPaths("json.filter", args)
	if err != nil {
		return value.Value{}, err
	}
	return c.keepPaths(args[0], paths)
}

func jsonRemove(c *Call, args []value.Value) (value.Value, error) {
	paths, err := c.jsonPaths("json.remove", args)
	if err != nil {
		return value.Value{}, err
	}
	return c.dropPaths(args[0], paths)
}

// jsonPaths checks that the first operand is an object, and returns the paths
// that the second one names.
func (c *Call) jsonPaths(name string, args []value.Value) (value.Value, error) {
	if args[0].Kind() != value.Object {
		return value.Value{}, wrongType(name, 1, args[0], "object")
	}
	list := args[1]
	if list.Kind() != value.Array && list.Kind() != value.Set {
		return value.Value{}, wrongType(name, 2, list, "set", "array")
	}
	members, err := c.scan(list)
	if err != nil {
		return value.Value{}, err
	}
	root := value.NewObject(0)
	for _, path := range members.All() {
		segments, err := c.segments(name, path)
		if err == nil {
			err = c.plant(root, segments)
		}
		if err != nil {
			return value.Value{}, err
		}
	}
	return root, nil
}

// segments returns the steps of a path, which is an array of them or a JSON
// pointer.
func (c *Call) segments(name string, path value.Value) ([]value.Value, error) {
	switch path.Kind() {
	case value.Array:
		return c.elements(nil, path)
	case value.String:
		s := path.Text()
		if s == "" {
			return nil, nil
		}
		s = strings.TrimLeft(s, "/")
		n := int64(strings.Count(s, "/") + 1)
		if err := c.Bytes(n*elemBytes + int64(len(s))); err != nil {
			return nil, err
		}
		if err := c.block(n*4 + int64(len(s))/4); err != nil {
			return nil, err
		}
		segments := make([]value.Value, 0, n)
		for part := range strings.SplitSeq(s, "/") {
			if strings.Contains(part, "~") {
				part = strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")
			}
			segments = append(segments, value.Text(part))
		}
		return segments, nil
	}
	return nil, typeError(name, "operand 2 must be one of {set, array} containing string paths or array of path segments but got %s", path.Kind())
}

// plant adds a path to those beneath root.
func (c *Call) plant(root value.Value, path []value.Value) error {
	for i, step := range path {
		if i == len(path)-1 {
			return c.insert(root, step, value.NullValue)
		}
		below, err := c.get(root, step)
		if err != nil {
			return err
		}
		switch below.Kind() {
		case value.Null:
			return nil // all beneath it is meant already
		case value.Undefined:
			below = value.NewObject(0)
			if err := c.insert(root, step, below); err != nil {
				return err
			}
		}
		root = below
	}
	return nil
}

// keepPaths returns what of v lies on a path.
func (c *Call) keepPaths(v, paths value.Value) (value.Value, error) {
	if paths.Kind() == value.Null || !v.IsComposite() {
		return v, c.Step(1)
	}
	through, in := v, paths
	if v.Kind() == value.Object && v.Len() < paths.Len() {
		through, in = paths, v
	}
	members, err := c.scan(through)
	if err != nil {
		return value.Value{}, err
	}
	kept := emptyLike(v)
	for key, elem := range members.All() {
		key = pathKey(through, key, elem)
		below, err := c.get(in, key)
		if err != nil {
			return value.Value{}, err
		}
		if !below.Defined() {
			continue
		}
		if v.Kind() == value.Object {
			elem, below = v.Get(key), paths.Get(key)
		}
		if elem, err = c.keepPaths(elem, below); err == nil {
			err = c.put(kept, key, elem)
		}
		if err != nil {
			return value.Value{}, err
		}
	}
	return kept, nil
}

// dropPaths returns v without what a path leads to.
func (c *Call) dropPaths(v, paths value.Value) (value.Value, error) {
	if paths.Kind() != value.Object || !v.IsComposite() {
		return v, c.Step(1)
	}
	members, err := c.scan(v)
	if err != nil {
		return value.Value{}, err
	}
	rest := emptyLike(v)
	for key, elem := range members.All() {
		key = pathKey(v, key, elem)
		below, err := c.get(paths, key)
		if err != nil {
			return value.Value{}, err
		}
		if below.Kind() == value.Null {
			continue
		}
		if elem, err = c.dropPaths(elem, below); err == nil {
			err = c.put(rest, key, elem)
		}
		if err != nil {
			return value.Value{}, err
		}
	}
	return rest, nil
}

// pathKey is the step of a path that leads from v to a member.
func pathKey(v, key, elem value.Value) value.Value {
	switch v.Kind() {
	case value.Array:
		i, _ := key.Int64()
		return value.Text(strconv.FormatInt(i, 10))
	case value.Set:
		return elem
	}
	return key
}

func emptyLike(v value.Value) value.Value {
	switch v.Kind() {
	case value.Array:
		return value.NewArray()
	case value.Set:
		return value.NewSet(0)
	}
	return value.NewObject(0)
}

// put adds a member to a composite that is being built.
func (c *Call) put(to, key, elem value.Value) error {
	switch to.Kind() {
	case value.Array:
		to.Append(elem)
		return c.Work(1, elemBytes)
	case value.Set:
		return c.add(to, elem)
	}
	return c.insert(to, key, elem)
}
