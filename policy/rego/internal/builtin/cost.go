package builtin

import (
	"math/bits"

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

// atATime is how much is weighed without a look at the meter: some tens of
// microseconds' worth.
const atATime = 1 << 12

// look charges for one look at all of v, such as hashing it takes, or comparing
// it with something of the same size. It takes about that long itself.
func (c *Call) look(v value.Value) error {
	if w := v.Weight(atATime); w <= atATime || !v.IsComposite() {
		return c.Step(w)
	}
	_, err := c.measure(v)
	return err
}

// measure says what v amounts to, and charges like look.
func (c *Call) measure(v value.Value) (value.Size, error) { return v.Measure(c.Step) }

// scan returns a cursor over a composite in order. It charges for putting the
// members in order, also where they are, and for more where they are long. What
// goes through an object, or through a set for the first time, gets its cursor here.
func (c *Call) scan(v value.Value) (value.Cursor, error) {
	n := int64(v.Len())
	if err := c.Step(1 + n*log2(n)/4); err != nil {
		return value.Cursor{}, err
	}
	if v.InOrder() {
		return v.Scan(), nil
	}
	return v.ScanFor(c.Step)
}

// log2 returns how often n can be halved, and 1.
func log2(n int64) int64 { return int64(bits.Len64(uint64(n))) }

// equal compares, and charges for that.
func (c *Call) equal(a, b value.Value) (bool, error) {
	if err := c.Step(comparing(a, b)); err != nil {
		return false, err
	}
	if a.IsComposite() && a.Kind() == b.Kind() {
		return value.EqualFor(a, b, c.Step)
	}
	return value.Equal(a, b), nil
}

// compare compares, and charges for that.
func (c *Call) compare(a, b value.Value) (int, error) {
	if err := c.Step(comparing(a, b)); err != nil {
		return 0, err
	}
	if a.IsComposite() && a.Kind() == b.Kind() {
		return value.CompareFor(a, b, c.Step)
	}
	return value.Compare(a, b), nil
}

// comparing is what it costs to compare two values that are no composites. Of two
// numbers both are read, of two texts as much as they share.
func comparing(a, b value.Value) int64 {
	switch a.Kind() {
	case value.Number:
		if a.IsBuilt(value.Number) && b.IsBuilt(value.Number) {
			return 1
		}
		return a.Weight(0) + b.Weight(0)
	case value.String:
		return 1 + textSteps(min(len(a.Text()), len(b.Text())))
	}
	return 1
}

// longAddress is longer than any address or network, but for zeros before its
// length.
const longAddress = 64

// address charges for reading what is an address or a network: if it is too long
// for one, all of it is gone through, and copied for the error.
func (c *Call) address(v value.Value) error {
	if s := v.Text(); len(s) > longAddress {
		return c.blockOf(s, 1, 3)
	}
	return nil
}

// inTable is what it costs to find something among n members: the more there
// are, the less likely it is that they are in the processor's cache.
func inTable(n int) int64 { return 1 + int64(bits.Len(uint(n)))/2 }

// has looks a member of a set up, and charges for that.
func (c *Call) has(set, member value.Value) (bool, error) {
	if err := c.find(set, member); err != nil {
		return false, err
	}
	return set.Has(member), nil
}

// get looks a key up, and charges for that.
func (c *Call) get(v, key value.Value) (value.Value, error) {
	if err := c.find(v, key); err != nil {
		return value.Value{}, err
	}
	return v.Get(key), nil
}

// find charges for looking a key up.
func (c *Call) find(v, key value.Value) error {
	if err := c.look(key); err != nil {
		return err
	}
	return c.Step(inTable(v.Len()))
}

// add adds a member to a set that is being built, and charges for that.
func (c *Call) add(set, member value.Value) error {
	if err := c.find(set, member); err != nil {
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
	if err := c.find(object, key); err != nil {
		return err
	}
	if err := c.Work(2, pairBytes); err != nil {
		return err
	}
	object.Insert(key, val)
	return nil
}
