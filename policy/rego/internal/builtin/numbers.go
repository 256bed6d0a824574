package builtin

import (
	"math/big"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// numbering makes numbers, and their texts.
var numbering = []*Builtin{
	{Name: "numbers.range", Func: numbersRange},
	{Name: "numbers.range_step", Func: numbersRangeStep},
	{Name: "to_number", Func: toNumber},
	{Name: "format_int", Func: formatInt},
}

func numbersRange(c *Call, args []value.Value) (value.Value, error) {
	if from, to, ok := whole(args); ok {
		return smallRange(c, from, to, 1)
	}
	from, to, err := bigInts(c, "numbers.range", args)
	if err != nil {
		return value.Value{}, err
	}
	return largeRange(c, from, to, big.NewInt(1))
}

func numbersRangeStep(c *Call, args []value.Value) (value.Value, error) {
	const name = "numbers.range_step"
	if from, to, ok := whole(args); ok {
		if step, ok := args[2].Int64(); ok && step > 0 {
			return smallRange(c, from, to, uint64(step))
		}
	}
	from, to, err := bigInts(c, name, args)
	if err != nil {
		return value.Value{}, err
	}
	step, err := bigInt(c, name, 3, args[2])
	if err != nil {
		return value.Value{}, err
	}
	if step.Sign() <= 0 {
		return value.Value{}, fail(name, "%s: step must be a positive integer", name)
	}
	return largeRange(c, from, to, step)
}

// smallRange counts up or down.
func smallRange(c *Call, from, to int64, step uint64) (value.Value, error) {
	distance := uint64(to) - uint64(from)
	if to < from {
		distance = -distance
	}
	n := distance/step + 1
	if distance/step > 1<<40 {
		n = 1 << 40 // more than any budget has
	}
	if err := c.Bytes(int64(n) * elemBytes); err != nil {
		return value.Value{}, err
	}
	list := make([]value.Value, 0, n)
	for i := range n {
		if i%chunk == 0 {
			if err := c.Step(chunk); err != nil {
				return value.Value{}, err
			}
		}
		if to < from {
			list = append(list, value.Int(from-int64(i*step)))
		} else {
			list = append(list, value.Int(from+int64(i*step)))
		}
	}
	return value.NewArray(list...), nil
}

func largeRange(c *Call, from, to, step *big.Int) (value.Value, error) {
	up := from.Cmp(to) <= 0
	if !up {
		step = step.Neg(step)
	}
	list := value.NewArray()
	for i := from; i.Cmp(to) == 0 || (i.Cmp(to) < 0) == up; i.Add(i, step) {
		digits := int64(i.BitLen()) / 3
		if err := c.calculate(digits); err != nil {
			return value.Value{}, err
		}
		if err := c.Bytes(elemBytes); err != nil {
			return value.Value{}, err
		}
		elem, err := integral("numbers.range", i)
		if err != nil {
			return value.Value{}, err
		}
		list.Append(elem)
	}
	return list, nil
}

func toNumber(c *Call, args []value.Value) (value.Value, error) {
	v := args[0]
	switch v.Kind() {
	case value.Null:
		return value.Int(0), c.Step(1)
	case value.Bool:
		if v.IsTrue() {
			return value.Int(1), c.Step(1)
		}
		return value.Int(0), c.Step(1)
	case value.Number:
		return v, c.Step(1)
	case value.String:
		return parseNumber(c, v)
	}
	return value.Value{}, wrongType("to_number", 1, v, "null", "boolean", "number", "string")
}

// parseNumber reads what strconv.ParseFloat takes, and keeps it as it is spelled.
func parseNumber(c *Call, v value.Value) (value.Value, error) {
	text := v.Text()
	if err := c.calculate(int64(len(text))); err != nil {
		return value.Value{}, err
	}
	switch strings.ToLower(strings.TrimLeft(text, "+-")) {
	case "inf", "infinity", "nan":
		return value.Value{}, wrongType("to_number", 1, v, "valid number string")
	}
	if _, err := strconv.ParseFloat(text, 64); err != nil {
		return value.Value{}, fail("to_number", "%v", err)
	}
	n, err := ast.NumberChecked(text)
	if err != nil {
		return value.Value{}, fail("to_number", "%v", err)
	}
	return number("to_number", n)
}

func formatInt(c *Call, args []value.Value) (value.Value, error) {
	const name = "format_int"
	for i, arg := range args {
		if arg.Kind() != value.Number {
			return value.Value{}, wrongType(name, i+1, arg, "number")
		}
	}
	var base int
	switch args[1].Numeral() {
	case "2":
		base = 2
	case "8":
		base = 8
	case "10":
		base = 10
	case "16":
		base = 16
	default:
		return value.Value{}, typeError(name, "operand 2 must be one of {2, 8, 10, 16}")
	}
	if i, ok := args[0].Int64(); ok {
		return value.Text(strconv.FormatInt(i, base)), c.Work(1, 64)
	}
	if err := c.calculate(digitsOf(args[0])); err != nil {
		return value.Value{}, err
	}
	text := args[0].Numeral()
	i, ok := new(big.Int).SetString(text, 10)
	if !ok { // a fraction is cut off
		f, ok := new(big.Float).SetString(text)
		if !ok {
			return value.Value{}, fail(name, "illegal value")
		}
		i, _ = f.Int(nil)
	}
	return value.Text(i.Text(base)), nil
}
