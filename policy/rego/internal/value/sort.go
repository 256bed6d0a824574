package value

import (
	"cmp"
	"math/bits"
	"strings"
)

// Charge is what work is paid with that may take long: it is told how many steps are
// about to be taken, of which each is some ten nanoseconds, and returns an error if
// they are too many. The work ends then, and returns the error.
type Charge func(steps int64) error

// CompareFor is [Compare] for a charge.
func CompareFor(a, b Value, charge Charge) (int, error) {
	c := comparer{charge: charge}
	order := c.compare(a, b)
	return order, c.end()
}

// EqualFor is [Equal] for a charge.
func EqualFor(a, b Value, charge Charge) (bool, error) {
	c := comparer{charge: charge}
	same := c.equal(a, b)
	return same, c.end()
}

// ScanFor is [Value.Scan] for a charge. What is cheap to compare is charged hardly
// anything: only so that the charge is asked now and then. To go through a
// composite once more takes only [Value.Scan], if it is no object.
func (v Value) ScanFor(charge Charge) (Cursor, error) {
	c := comparer{charge: charge}
	cursor := c.scan(v)
	return cursor, c.end()
}

// InOrder reports whether [Value.Scan] has nothing to put in order.
func (v Value) InOrder() bool {
	switch {
	case v.Kind() < Object || v.form() == packed || v.form() == view:
		return true
	case v.form() == held:
		return v.Len() < 2
	}
	return v.ref.(*table).inOrder()
}

// comparer compares values and puts them in order, for a charge. Its zero value does
// it for nothing.
type comparer struct {
	charge Charge
	spent  int64 // sixteenths of steps that are not charged for yet
	err    error // of the charge: nothing means anything from then on
}

const (
	oneStep  = 16             // what is spent on a step
	settleAt = oneStep * 1024 // what is spent between two charges
)

// goesOn charges if it is time to, and reports whether to go on.
func (c *comparer) goesOn() bool {
	if c.spent >= settleAt {
		c.settle()
	}
	return c.err == nil
}

func (c *comparer) settle() {
	if c.charge != nil && c.err == nil {
		c.err = c.charge(c.spent / oneStep)
	}
	c.spent %= oneStep
}

// end charges for what is left.
func (c *comparer) end() error {
	if c.spent > 0 {
		c.spent += oneStep - 1
		c.settle()
	}
	return c.err
}

func (c *comparer) compare(a, b Value) int {
	if a.Kind() != b.Kind() || !a.IsComposite() {
		if c.spendOn(a, b); !c.goesOn() {
			return 0
		}
		return Compare(a, b)
	}
	c.spent += oneStep
	if a.Kind() != Array {
		return c.compareMembers(a, b)
	}
	n, m := a.Len(), b.Len()
	for i := range min(n, m) {
		if c.spent += oneStep; !c.goesOn() {
			return 0
		}
		if order := c.compare(a.Elem(i), b.Elem(i)); order != 0 {
			return order
		}
	}
	return cmp.Compare(n, m)
}

// spendOn is for comparing values that are no composites, or not both of one kind.
func (c *comparer) spendOn(a, b Value) {
	c.spent++
	switch {
	case a.Kind() == String && b.Kind() == String:
		c.spent += textSpent(int(min(a.num, b.num)))
	case a.form() == spelled || b.form() == spelled:
		c.spent += oneStep * (a.Weight(0) + b.Weight(0))
	}
}

func (c *comparer) equal(a, b Value) bool {
	if a.Kind() != b.Kind() || !a.IsComposite() {
		c.spendOn(a, b)
		return c.goesOn() && Equal(a, b)
	}
	c.spent += oneStep
	n := a.Len()
	if n != b.Len() {
		return false
	}
	if a.Kind() == Array {
		for i := range n {
			if c.spent += oneStep; !c.goesOn() || !c.equal(a.Elem(i), b.Elem(i)) {
				return false
			}
		}
		return true
	}
	members := a.members()
	if c.charge != nil && a.form() == held { // the way to a difference is as long each time
		members = c.scan(a)
	}
	var key, val Value
	for members.Next(&key, &val) {
		if key.IsComposite() {
			// To find it among the others it would be compared with them, and what is in
			// it with what is in those, at every level again.
			return c.compare(a, b) == 0
		}
		c.spent += 2*oneStep + textSpent(key.textSize())
		if !c.goesOn() {
			return false
		}
		if w := b.Get(key); !w.Defined() || a.Kind() == Object && !c.equal(val, w) {
			return false
		}
	}
	return true
}

// textSpent is what is spent on looking at a text of n bytes.
func textSpent(n int) int64 { return int64(n) / 64 * oneStep }

func (c *comparer) compareMembers(a, b Value) int {
	ac, bc := c.scan(a), c.scan(b)
	var ak, av, bk, bv Value
	for {
		if c.spent += 2 * oneStep; !c.goesOn() {
			return 0
		}
		aok, bok := ac.Next(&ak, &av), bc.Next(&bk, &bv)
		if !aok || !bok {
			switch {
			case aok:
				return 1
			case bok:
				return -1
			}
			return 0
		}
		if order := c.compare(ak, bk); order != 0 {
			return order
		}
		if a.Kind() == Object {
			if order := c.compare(av, bv); order != 0 {
				return order
			}
		}
	}
}

// scan returns a cursor in order, over nothing once it is over.
func (c *comparer) scan(v Value) Cursor {
	cursor := Cursor{v: v, n: v.Len()}
	switch {
	case v.tag == Object.as(held):
		c.spent += 2 * oneStep * int64(cursor.n)
		cursor.names = v.names()
		c.sortTexts(cursor.names)
	case v.Kind() >= Object && v.form() == built:
		c.sort(v.ref.(*table))
	}
	if c.err != nil {
		return Cursor{}
	}
	return cursor
}

// sortTexts sorts what may come in any order, and in another one each time. What is
// spent is the same each time: the most that it can take.
func (c *comparer) sortTexts(list []string) {
	left := int64(0)
	for _, s := range list {
		left += 1 + textSpent(len(s))
	}
	left *= int64(bits.Len(uint(len(list))))
	spend := func(n int64) {
		c.spent += min(n, left)
		left -= min(n, left)
	}
	sort(c, list, func(a, b string) int {
		spend(1 + textSpent(min(len(a), len(b))))
		return strings.Compare(a, b)
	})
	spend(left)
}

// sort puts a table in order.
func (c *comparer) sort(t *table) {
	if t.inOrder() {
		return
	}
	if c.ascends(t.keys) {
		t.ordered = c.err == nil
		return
	}
	order := make([]uint32, len(t.keys))
	for i := range order {
		order[i] = uint32(i)
	}
	sort(c, order, func(a, b uint32) int { return c.compare(t.keys[a], t.keys[b]) })
	if c.err == nil {
		t.order = order
	}
}

// ascends reports whether a list is in order; what it is if c is over means nothing.
func (c *comparer) ascends(list []Value) bool {
	for i := 1; i < len(list); i++ {
		if c.compare(list[i-1], list[i]) > 0 {
			return false
		}
	}
	return true
}

// sort sorts a list by merging parts of it, which takes the fewest comparisons: they
// may be long. It ends early when c is over.
func sort[T any](c *comparer, list []T, compare func(a, b T) int) {
	const few = 12
	n := len(list)
	for i := 0; i < n; i += few {
		insert(list[i:min(i+few, n)], compare)
		if !c.goesOn() {
			return
		}
	}
	if n <= few {
		return
	}
	from, to := list, make([]T, n)
	for size := few; size < n; size *= 2 {
		for i := 0; i < n; i += 2 * size {
			mid, end := min(i+size, n), min(i+2*size, n)
			merge(c, to[i:i], from[i:mid], from[mid:end], compare)
			if !c.goesOn() {
				return
			}
		}
		from, to = to, from
	}
	copy(list, from) // which may be list itself
}

func insert[T any](list []T, compare func(a, b T) int) {
	for i := 1; i < len(list); i++ {
		for j := i; j > 0 && compare(list[j-1], list[j]) > 0; j-- {
			list[j-1], list[j] = list[j], list[j-1]
		}
	}
}

// merge appends two lists that are in order, in order.
func merge[T any](c *comparer, to, a, b []T, compare func(a, b T) int) {
	if len(b) > 0 && compare(a[len(a)-1], b[0]) > 0 {
		for len(a) > 0 && len(b) > 0 {
			if !c.goesOn() {
				return
			}
			if compare(a[0], b[0]) <= 0 {
				to, a = append(to, a[0]), a[1:]
			} else {
				to, b = append(to, b[0]), b[1:]
			}
		}
	}
	_ = append(append(to, a...), b...)
}
