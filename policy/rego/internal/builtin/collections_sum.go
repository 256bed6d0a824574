package builtin

import (
	"math/big"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

var totals = []*Builtin{
	{Name: "sum", Func: sum},
	{Name: "product", Func: product},
}

func sum(c *Call, args []value.Value) (value.Value, error) {
	v := args[0]
	if v.Kind() != value.Array && v.Kind() != value.Set {
		return value.Value{}, wrongType("sum", 1, v, "set", "array")
	}
	members, err := c.scan(v)
	if err != nil {
		return value.Value{}, err
	}
	var total int64
	if v.Kind() == value.Array {
		for i := range v.Len() {
			if err := c.Step(1); err != nil {
				return value.Value{}, err
			}
			if !addTo(&total, v.Elem(i)) {
				return c.sumUp(v)
			}
		}
		return value.Int(total), nil
	}
	var key, elem value.Value
	for members.Next(&key, &elem) {
		if err := c.Step(1); err != nil {
			return value.Value{}, err
		}
		if !addTo(&total, elem) {
			return c.sumUp(v)
		}
	}
	return value.Int(total), nil
}

// addTo adds a whole number of 64 bits, and reports whether it is one and the
// sum, too.
func addTo(total *int64, v value.Value) bool {
	i, ok := v.PlainInt64()
	sum := *total + i
	if !ok || i != 0 && (sum > *total) != (i > 0) {
		return false
	}
	*total = sum
	return true
}

func (c *Call) sumUp(v value.Value) (value.Value, error) {
	return c.total("sum", v, totalOf{
		whole: new(big.Int), add: (*big.Int).Add,
		float: new(big.Float), addFloat: (*big.Float).Add,
		size: func(a, b int64) int64 { return max(a, b) + 1 },
		work: func(a, b int64) int64 { return max(a, b) / 128 },
	})
}

func product(c *Call, args []value.Value) (value.Value, error) {
	v := args[0]
	if v.Kind() != value.Array && v.Kind() != value.Set {
		return value.Value{}, wrongType("product", 1, v, "set", "array")
	}
	if _, err := c.scan(v); err != nil {
		return value.Value{}, err
	}
	return c.total("product", v, totalOf{
		whole: big.NewInt(1), add: (*big.Int).Mul,
		float: big.NewFloat(1), addFloat: (*big.Float).Mul, // of 53 bits, as in OPA
		size: func(a, b int64) int64 { return a + b },
		work: func(a, b int64) int64 { return (a / 16) * (b / 16) / 8 },
	})
}

// totalOf is how numbers are put together to one.
type totalOf struct {
	whole    *big.Int
	add      func(z, x, y *big.Int) *big.Int
	float    *big.Float
	addFloat func(z, x, y *big.Float) *big.Float
	// size is how many digits the result of two numbers has that have so many, and
	// work how many steps it takes.
	size, work func(a, b int64) int64
}

// total puts the numbers of a set or an array together: exactly if all are whole
// ones, and otherwise in floating point.
func (c *Call) total(name string, v value.Value, t totalOf) (value.Value, error) {
	exact := true
	digits := int64(1)
	var key, elem value.Value
	for s := v.Scan(); exact && s.Next(&key, &elem); {
		if elem.Kind() != value.Number {
			exact = false
			break
		}
		if err := c.join(&digits, elem, t); err != nil {
			return value.Value{}, err
		}
		i, err := builtins.NumberToInt(ast.Number(elem.Numeral()))
		if exact = err == nil; exact {
			t.add(t.whole, t.whole, i)
		}
	}
	if exact {
		if err := c.calculate(digits); err != nil {
			return value.Value{}, err
		}
		return integral(name, t.whole)
	}
	digits = 1
	for s := v.Scan(); s.Next(&key, &elem); {
		if elem.Kind() != value.Number {
			return value.Value{}, wrongElement(name, 1, v, elem, "number")
		}
		if err := c.join(&digits, elem, t); err != nil {
			return value.Value{}, err
		}
		t.addFloat(t.float, t.float, builtins.NumberToFloat(ast.Number(elem.Numeral())))
	}
	if err := c.calculate(digits); err != nil {
		return value.Value{}, err
	}
	return number(name, builtins.FloatToNumber(t.float))
}

// join charges for taking one more number into a total of so many digits.
func (c *Call) join(digits *int64, elem value.Value, t totalOf) error {
	n := digitsOf(elem)
	if err := c.calculate(n); err != nil {
		return err
	}
	if err := c.block(1 + t.work(*digits, n)); err != nil {
		return err
	}
	*digits = t.size(*digits, n)
	return nil
}
