package builtin

import (
	"math"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// How many bytes what a built-in makes takes.
const (
	elemBytes   = 32  // an element of an array
	memberBytes = 64  // a member of a set, with its place in the index and the order
	pairBytes   = 96  // a member of an object
	chunk       = 256 // elements between two looks at the meter
)

// textSteps is what one look at a text of n bytes costs beside a step.
func textSteps(n int) int64 { return int64(n) / 64 }

// look charges for one look at all of v, such as hashing it takes, or comparing
// it with something of the same size. It takes that many steps itself.
func (c *Call) look(v value.Value) error {
	switch v.Kind() {
	case value.String:
		return c.Step(1 + textSteps(len(v.Text())))
	case value.Number:
		return c.Step(1 + numberSteps(v))
	case value.Array:
		if err := c.Step(1); err != nil {
			return err
		}
		for i := range v.Len() {
			if err := c.look(v.Elem(i)); err != nil {
				return err
			}
		}
		return nil
	case value.Object, value.Set:
		if err := c.ordered(v); err != nil {
			return err
		}
		for key, val := range v.All() {
			if err := c.look(key); err != nil {
				return err
			}
			if v.Kind() == value.Object {
				if err := c.look(val); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return c.Step(1)
}

// ordered charges for putting the members of an object or a set in order, which
// going through them takes.
func (c *Call) ordered(v value.Value) error {
	n := int64(v.Len())
	return c.Step(1 + n*log2(n)/4)
}

// log2 returns how often n can be halved, at least 1.
func log2(n int64) int64 {
	l := int64(1)
	for ; n > 2; n /= 2 {
		l++
	}
	return l
}

// numberSteps is what a look at a number in a spelling of its own costs beside a
// step.
func numberSteps(v value.Value) int64 {
	if v.IsBuilt(value.Number) {
		return 0
	}
	if f, ok := v.Float64(); ok && f != math.Trunc(f) && v == value.Float(f) {
		return 0
	}
	return int64(len(v.Numeral())) / 16
}

// equal compares, and charges for that.
func (c *Call) equal(a, b value.Value) (bool, error) {
	if a.Kind() != b.Kind() {
		return false, c.Step(1)
	}
	if err := c.look(smaller(a, b)); err != nil {
		return false, err
	}
	return value.Equal(a, b), nil
}

// compare compares, and charges for that.
func (c *Call) compare(a, b value.Value) (int, error) {
	if a.Kind() == b.Kind() {
		if err := c.look(smaller(a, b)); err != nil {
			return 0, err
		}
	} else if err := c.Step(1); err != nil {
		return 0, err
	}
	return value.Compare(a, b), nil
}

// smaller returns the one that ends a comparison of both first.
func smaller(a, b value.Value) value.Value {
	if a.IsComposite() && a.Len() > b.Len() || a.Kind() == value.String && len(a.Text()) > len(b.Text()) {
		return b
	}
	return a
}

// has looks a member of a set up, and charges for that.
func (c *Call) has(set, member value.Value) (bool, error) {
	if err := c.look(member); err != nil {
		return false, err
	}
	return set.Has(member), nil
}

// get looks a key up, and charges for that.
func (c *Call) get(v, key value.Value) (value.Value, error) {
	if err := c.look(key); err != nil {
		return value.Value{}, err
	}
	return v.Get(key), nil
}

// add adds a member to a set that is being built, and charges for that.
func (c *Call) add(set, member value.Value) error {
	if err := c.look(member); err != nil {
		return err
	}
	if err := c.Work(2, memberBytes); err != nil {
		return err
	}
	set.Add(member)
	return nil
}

// insert sets a member of an object that is being built, and charges for that.
func (c *Call) insert(object, key, val value.Value) error {
	if err := c.look(key); err != nil {
		return err
	}
	if err := c.Work(2, pairBytes); err != nil {
		return err
	}
	object.Insert(key, val)
	return nil
}

// costs charges the calls of built-ins that run in OPA, by name.
var costs = map[string]func(c *Call, args []value.Value) error{}

// sizes charges by the sizes of the operands.
func sizes(c *Call, args []value.Value) error {
	for _, arg := range args {
		if err := c.look(arg); err != nil {
			return err
		}
	}
	return nil
}
