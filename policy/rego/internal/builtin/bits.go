package builtin

import (
	"math"
	"math/big"
	"math/bits"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// bitwise calculates with the bits of whole numbers, in two's complement without
// end.
var bitwise = []*Builtin{
	{Name: "bits.or", Func: bitsOf("bits.or", func(x, y int64) int64 { return x | y }, (*big.Int).Or)},
	{Name: "bits.and", Func: bitsOf("bits.and", func(x, y int64) int64 { return x & y }, (*big.Int).And)},
	{Name: "bits.xor", Func: bitsOf("bits.xor", func(x, y int64) int64 { return x ^ y }, (*big.Int).Xor)},
	{Name: "bits.negate", Func: bitsNegate},
	{Name: "bits.lsh", Func: bitsLsh},
	{Name: "bits.rsh", Func: bitsRsh},
}

func bitsOf(name string, small func(x, y int64) int64, large func(z, x, y *big.Int) *big.Int) Func {
	return func(c *Call, args []value.Value) (value.Value, error) {
		if x, y, ok := whole(args); ok {
			return value.Int(small(x, y)), c.Step(1)
		}
		x, y, err := bigInts(c, name, args)
		if err != nil {
			return value.Value{}, err
		}
		return integral(name, large(x, x, y))
	}
}

func bitsNegate(c *Call, args []value.Value) (value.Value, error) {
	if i, ok := args[0].Int64(); ok {
		return value.Int(^i), c.Step(1)
	}
	i, err := bigInt(c, "bits.negate", 1, args[0])
	if err != nil {
		return value.Value{}, err
	}
	return integral("bits.negate", i.Not(i))
}

func bitsLsh(c *Call, args []value.Value) (value.Value, error) {
	if x, by, ok := whole(args); ok && by >= 0 && by < 64 && bits.Len64(magnitude(x))+int(by) < 64 {
		return value.Int(x << by), c.Step(1)
	}
	x, by, err := shift(c, "bits.lsh", args)
	if err != nil {
		return value.Value{}, err
	}
	if x.Sign() == 0 {
		return value.Int(0), nil
	}
	// The result has 3.3 bits to a decimal digit.
	if err := c.calculate((int64(x.BitLen()) + int64(min(by, math.MaxInt64/2))) / 3); err != nil {
		return value.Value{}, err
	}
	return integral("bits.lsh", x.Lsh(x, by))
}

func bitsRsh(c *Call, args []value.Value) (value.Value, error) {
	if x, by, ok := whole(args); ok && by >= 0 {
		return value.Int(x >> by), c.Step(1)
	}
	x, by, err := shift(c, "bits.rsh", args)
	if err != nil {
		return value.Value{}, err
	}
	return integral("bits.rsh", x.Rsh(x, by))
}

// shift returns the operands of a shift. OPA shifts by the lowest 64 bits of the
// second one.
func shift(c *Call, name string, args []value.Value) (*big.Int, uint, error) {
	x, by, err := bigInts(c, name, args)
	if err != nil {
		return nil, 0, err
	}
	if by.Sign() < 0 {
		return nil, 0, typeError(name, "operand 2 must be an unsigned integer number but got a negative integer")
	}
	return x, uint(by.Uint64()), nil
}

func bigInts(c *Call, name string, args []value.Value) (x, y *big.Int, err error) {
	if x, err = bigInt(c, name, 1, args[0]); err == nil {
		y, err = bigInt(c, name, 2, args[1])
	}
	return x, y, err
}

// bigInt returns an operand that must be a whole number of any size and spelling.
func bigInt(c *Call, name string, position int, v value.Value) (*big.Int, error) {
	if v.Kind() != value.Number {
		return nil, wrongType(name, position, v, "integer")
	}
	if err := c.calculate(digitsOf(v)); err != nil {
		return nil, err
	}
	i, err := builtins.NumberToInt(ast.Number(v.Numeral()))
	if err != nil {
		return nil, typeError(name, "operand %d must be integer number but got floating-point number", position)
	}
	return i, nil
}
