package builtin

import (
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// Watch is told what a test of a policy does besides computing values. A decision
// has none.
type Watch struct {
	// Print is given what print writes, line by line, without the lines' ends.
	Print func(line string)
	// Case is given the names of the case that a parameterised test has come to.
	Case func(names []string)
	// Reached is given the number of the place that a test has come to, as package
	// front counts them. A policy can make numbers up.
	Reached func(place int64)
	// Failed is given every call that failed without ending the evaluation.
	Failed func(err error)
}

// watched do nothing in a decision.
var watched = []*Builtin{
	{Name: "internal.print", Func: printLines},
	{Name: "internal.test_case", Func: testCase},
}

// printLines writes its operands beside each other. Each is a set, as the
// compiler makes one of every operand of print so that none is undefined: there
// is a line for every combination of their members.
func printLines(c *Call, args []value.Value) (value.Value, error) {
	const name = "internal.print"
	if c.Watch == nil {
		return value.True, nil
	}
	list := args[0]
	if list.Kind() != value.Array {
		return value.Value{}, wrongType(name, 1, list, "array")
	}
	columns := make([][]string, list.Len())
	for i := range columns {
		var err error
		if columns[i], err = c.printed(list.Elem(i)); err != nil {
			return value.Value{}, err
		}
	}
	at := make([]int, len(columns))
	for {
		var line []byte
		size := int64(0)
		for i, column := range columns {
			size += int64(len(column[at[i]])) + 1
		}
		if err := c.Work(1+textSteps(int(size)), size); err != nil {
			return value.Value{}, err
		}
		for i, column := range columns {
			if i > 0 {
				line = append(line, ' ')
			}
			line = append(line, column[at[i]]...)
		}
		c.Watch.Print(string(line))
		i := len(columns) - 1
		for ; i >= 0; i-- {
			if at[i]++; at[i] < len(columns[i]) {
				break
			}
			at[i] = 0
		}
		if i < 0 {
			return value.True, nil
		}
	}
}

// printed returns what print writes for one operand: at least one text.
func (c *Call) printed(operand value.Value) ([]string, error) {
	switch {
	case operand.Kind() == value.Set && operand.Len() == 0:
		return []string{"<undefined>"}, c.Step(1)
	case operand.Kind() == value.Set:
		texts := make([]string, 0, operand.Len())
		members, err := c.scan(operand)
		if err != nil {
			return nil, err
		}
		for member := range members.All() {
			text, err := c.plainText(member)
			if err != nil {
				return nil, err
			}
			texts = append(texts, text)
		}
		return texts, nil
	case operand.IsComposite():
		return nil, &Error{Code: "eval_internal_error", Message: "illegal argument type: " + operand.Kind().String(), Halts: true}
	}
	text, err := c.plainText(operand)
	return []string{text}, err
}

// plainText returns a string as it is, and anything else as Rego writes it.
func (c *Call) plainText(v value.Value) (string, error) {
	if v.Kind() == value.String {
		return v.Text(), c.Step(1)
	}
	return c.text(v)
}

// testCase is what the compiler puts into tests, and what a test may call itself:
// an array has the names of a case, a number is a place.
func testCase(c *Call, args []value.Value) (value.Value, error) {
	if c.Watch == nil {
		return value.True, nil
	}
	if place, ok := args[0].PlainInt64(); ok {
		c.Watch.Reached(place)
		return value.True, c.Step(1)
	}
	if args[0].Kind() != value.Array {
		return value.True, c.Step(1)
	}
	names := make([]string, 0, args[0].Len())
	for _, name := range args[0].All() {
		text, err := c.CaseName(name)
		if err != nil {
			return value.Value{}, err
		}
		names = append(names, text)
	}
	if err := c.Work(1, caseBytes); err != nil {
		return value.Value{}, err
	}
	c.Watch.Case(names)
	return value.True, nil
}

// caseBytes is what a case takes that is noted, its names left out.
const caseBytes = 256

// CaseName returns the name that a value is for a case: a string is its own, what
// is none has its JSON.
func (c *Call) CaseName(v value.Value) (string, error) {
	if v.Kind() == value.String {
		return v.Text(), c.Work(1, int64(len(v.Text())))
	}
	text, _, err := c.jsonText("internal.test_case", v)
	return string(text), err
}
