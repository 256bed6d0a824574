package builtin

import (
	"slices"
	"strings"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// affixes are the searches for one of several prefixes or suffixes.
var affixes = []*Builtin{
	{Name: anyPrefix.name, Func: anyPrefix.call, binds: []int{1}, bind: anyPrefix.bind},
	{Name: anySuffix.name, Func: anySuffix.call, binds: []int{1}, bind: anySuffix.bind},
}

// end is one of the two ends of a string.
type end struct {
	name string
	has  func(s, affix string) bool
	// compare orders strings from this end on.
	compare func(a, b string) int
}

var (
	anyPrefix = &end{"strings.any_prefix_match", strings.HasPrefix, strings.Compare}
	anySuffix = &end{"strings.any_suffix_match", strings.HasSuffix, compareBackwards}
)

func compareBackwards(a, b string) int {
	i, j := len(a)-1, len(b)-1
	for ; i >= 0 && j >= 0; i, j = i-1, j-1 {
		if a[i] != b[j] {
			return int(a[i]) - int(b[j])
		}
	}
	return i - j
}

// call compares every string with every affix.
func (e *end) call(c *Call, args []value.Value) (value.Value, error) {
	if err := e.check(c, args); err != nil {
		return value.Value{}, err
	}
	if args[0].Kind() == value.String {
		found, err := e.any(c, args[0].Text(), args[1])
		return value.Boolean(found), err
	}
	for s := range eachText(args[0]) {
		if found, err := e.any(c, s, args[1]); found || err != nil {
			return value.Boolean(found), err
		}
	}
	return value.False, nil
}

// any reports whether a string has one of the affixes.
func (e *end) any(c *Call, s string, affixes value.Value) (bool, error) {
	if affixes.Kind() == value.String {
		return e.has(s, affixes.Text()), c.Step(1)
	}
	var key, affix value.Value
	for cursor := affixes.Scan(); cursor.Next(&key, &affix); {
		if err := c.Step(1 + textSteps(len(affix.Text()))); err != nil {
			return false, err
		}
		if e.has(s, affix.Text()) {
			return true, nil
		}
	}
	return false, nil
}

// bind puts constant affixes into order.
func (e *end) bind(c *Call, consts []value.Value) (Func, error) {
	affixes := consts[1]
	if affixes.Kind() == value.String {
		return nil, nil //nolint:nilnil // there is nothing to prepare
	}
	if err := e.checkOne(c, 2, affixes); err != nil {
		return nil, err
	}
	size, err := c.measure(affixes)
	if err != nil {
		return nil, err
	}
	if err := c.Bytes(size.Values * elemBytes); err != nil {
		return nil, err
	}
	if err := c.block((size.Values + size.Text/64) * log2(size.Values)); err != nil {
		return nil, err
	}
	table := e.newTable(affixes)
	return func(c *Call, args []value.Value) (value.Value, error) {
		if err := e.checkOne(c, 1, args[0]); err != nil {
			return value.Value{}, err
		}
		for s := range eachText(args[0]) {
			if err := c.Step(1 + int64(len(table))/64 + textSteps(len(s))); err != nil {
				return value.Value{}, err
			}
			if e.find(table, s) {
				return value.True, nil
			}
		}
		return value.False, nil
	}, nil
}

// newTable returns affixes in order, without those that have another one of them
// as theirs: that one comes before them.
func (e *end) newTable(affixes value.Value) []string {
	var table []string
	for _, affix := range slices.SortedFunc(eachText(affixes), e.compare) {
		if len(table) == 0 || !e.has(affix, table[len(table)-1]) {
			table = append(table, affix)
		}
	}
	return table
}

// find reports whether s has an affix of a table. In order, what has an affix
// comes after it and before all else that does: so only the last entry that does
// not come after s can be one.
func (e *end) find(table []string, s string) bool {
	i, ok := slices.BinarySearchFunc(table, s, e.compare)
	return ok || i > 0 && e.has(s, table[i-1])
}

// check checks both operands: strings, or collections of them.
func (e *end) check(c *Call, args []value.Value) error {
	if err := e.checkOne(c, 1, args[0]); err != nil {
		return err
	}
	return e.checkOne(c, 2, args[1])
}

func (e *end) checkOne(c *Call, position int, v value.Value) error {
	switch v.Kind() {
	case value.String:
		return c.Step(1)
	case value.Array, value.Set:
	default:
		return wrongType(e.name, position, v, "string", "set", "array")
	}
	members, err := c.scan(v)
	if err != nil {
		return err
	}
	var key, elem value.Value
	for members.Next(&key, &elem) {
		if elem.Kind() != value.String {
			return wrongElement(e.name, position, v, elem, "string")
		}
	}
	return nil
}

// eachText yields a string, or those of a collection.
func eachText(v value.Value) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		if v.Kind() == value.String {
			yield(v.Text())
			return
		}
		var key, elem value.Value
		for s := v.Scan(); s.Next(&key, &elem); {
			if !yield(elem.Text()) {
				return
			}
		}
	}
}
