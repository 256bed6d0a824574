package builtin

import (
	"math"
	"math/big"
	"math/bits"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// arithmetic calculates as OPA does: with whole numbers exactly, however large
// and however they are spelled; with all others in binary floating point of 64
// bits' precision (math/big's default when it reads a number), whose results are
// spelled in the shortest way that is read back as the same.
//
// What is whole and fits 64 bits before and after needs no math/big.
var arithmetic = []*Builtin{
	{Name: "plus", Func: plus},
	{Name: "minus", Func: minus},
	{Name: "mul", Func: mul},
	{Name: "div", Func: div},
	{Name: "rem", Func: rem},
	{Name: "abs", Func: unary("abs", func(i int64) (int64, bool) { return max(i, -i), i != math.MinInt64 }, (*big.Float).Abs)},
	{Name: "round", Func: unary("round", same, round)},
	{Name: "ceil", Func: unary("ceil", same, ceil)},
	{Name: "floor", Func: unary("floor", same, floor)},
}

// whole returns two operands that are whole numbers of 64 bits.
func whole(args []value.Value) (x, y int64, ok bool) {
	if x, ok = args[0].Int64(); ok {
		y, ok = args[1].Int64()
	}
	return x, y, ok
}

func plus(c *Call, args []value.Value) (value.Value, error) {
	if x, y, ok := whole(args); ok {
		if sum := x + y; (sum > x) == (y > 0) {
			return value.Int(sum), c.Step(1)
		}
	}
	return binary(c, "plus", args, (*big.Int).Add, (*big.Float).Add)
}

func minus(c *Call, args []value.Value) (value.Value, error) {
	if x, y, ok := whole(args); ok {
		if difference := x - y; (difference < x) == (y > 0) {
			return value.Int(difference), c.Step(1)
		}
	}
	x, y := args[0], args[1]
	switch {
	case x.Kind() == value.Set && y.Kind() == value.Set:
		return c.difference(x, y)
	case x.Kind() != value.Number && x.Kind() != value.Set:
		return value.Value{}, wrongType("minus", 1, x, "number", "set")
	case x.Kind() == value.Set && y.Kind() == value.Number:
		return value.Value{}, wrongType("minus", 2, y, "set")
	case x.Kind() == value.Set || y.Kind() != value.Number:
		return value.Value{}, wrongType("minus", 2, y, "number")
	}
	return binary(c, "minus", args, (*big.Int).Sub, (*big.Float).Sub)
}

func mul(c *Call, args []value.Value) (value.Value, error) {
	if x, y, ok := whole(args); ok {
		hi, lo := bits.Mul64(magnitude(x), magnitude(y))
		if hi == 0 && lo <= math.MaxInt64 {
			return value.Int(x * y), c.Step(1)
		}
	}
	return binary(c, "mul", args, (*big.Int).Mul, (*big.Float).Mul)
}

// magnitude is a number without its sign.
func magnitude(i int64) uint64 {
	if i < 0 {
		return -uint64(i)
	}
	return uint64(i)
}

func div(c *Call, args []value.Value) (value.Value, error) {
	// Zero divided by a negative number is -0, and so is left to math/big.
	if x, y, ok := whole(args); ok && x != 0 && y != 0 && x != math.MinInt64 && x%y == 0 {
		return value.Int(x / y), c.Step(1)
	}
	if err := numbers(c, "div", args); err != nil {
		return value.Value{}, err
	}
	y := builtins.NumberToFloat(ast.Number(args[1].Numeral()))
	if y.Sign() == 0 {
		return value.Value{}, fail("div", "divide by zero")
	}
	x := builtins.NumberToFloat(ast.Number(args[0].Numeral()))
	return number("div", builtins.FloatToNumber(x.Quo(x, y)))
}

func rem(c *Call, args []value.Value) (value.Value, error) {
	if x, y, ok := whole(args); ok && y != 0 {
		return value.Int(x % y), c.Step(1)
	}
	if err := numbers(c, "rem", args); err != nil {
		return value.Value{}, err
	}
	x, xErr := builtins.NumberToInt(ast.Number(args[0].Numeral()))
	y, yErr := builtins.NumberToInt(ast.Number(args[1].Numeral()))
	switch {
	case xErr != nil || yErr != nil:
		return value.Value{}, fail("rem", "modulo on floating-point number")
	case y.Sign() == 0:
		return value.Value{}, fail("rem", "modulo by zero")
	}
	return integral("rem", x.Rem(x, y))
}

// binary calculates with numbers of any size.
func binary(c *Call, name string, args []value.Value, exact func(z, x, y *big.Int) *big.Int, float func(z, x, y *big.Float) *big.Float) (value.Value, error) {
	if err := numbers(c, name, args); err != nil {
		return value.Value{}, err
	}
	x, y := ast.Number(args[0].Numeral()), ast.Number(args[1].Numeral())
	if i, err := builtins.NumberToInt(x); err == nil {
		if j, err := builtins.NumberToInt(y); err == nil {
			return integral(name, exact(i, i, j))
		}
	}
	f := builtins.NumberToFloat(x)
	return number(name, builtins.FloatToNumber(float(f, f, builtins.NumberToFloat(y))))
}

func unary(name string, small func(int64) (int64, bool), float func(z, x *big.Float) *big.Float) Func {
	return func(c *Call, args []value.Value) (value.Value, error) {
		if i, ok := args[0].Int64(); ok {
			if i, ok = small(i); ok {
				return value.Int(i), c.Step(1)
			}
		}
		if err := numbers(c, name, args); err != nil {
			return value.Value{}, err
		}
		f := builtins.NumberToFloat(ast.Number(args[0].Numeral()))
		return number(name, builtins.FloatToNumber(float(f, f)))
	}
}

func same(i int64) (int64, bool) { return i, true }

func round(_, x *big.Float) *big.Float {
	half := big.NewFloat(0.5)
	if x.Signbit() {
		half.Neg(half)
	}
	i, _ := new(big.Float).Add(x, half).Int(nil)
	return new(big.Float).SetInt(i)
}

// ceil and floor round what is beyond 64 bits when they add one, as OPA does.
func ceil(_, x *big.Float) *big.Float {
	i, _ := x.Int(nil)
	f := new(big.Float).SetInt(i)
	if f.Signbit() || x.Cmp(f) == 0 {
		return f
	}
	return new(big.Float).Add(f, big.NewFloat(1))
}

func floor(_, x *big.Float) *big.Float {
	i, _ := x.Int(nil)
	f := new(big.Float).SetInt(i)
	if !f.Signbit() || x.Cmp(f) == 0 {
		return f
	}
	return new(big.Float).Sub(f, big.NewFloat(1))
}

// numbers checks that the operands are numbers, and charges for calculating with
// them in math/big.
func numbers(c *Call, name string, args []value.Value) error {
	var digits int64
	for i, arg := range args {
		if arg.Kind() != value.Number {
			return wrongType(name, i+1, arg, "number")
		}
		digits += digitsOf(arg)
	}
	return c.calculate(digits)
}

// digitsOf is as how many decimal digits a number counts. One in its exponent
// stands for nine: what is close to zero takes longest to write.
func digitsOf(v value.Value) int64 {
	if v.IsBuilt(value.Number) {
		return 20
	}
	text := v.Numeral()
	n := int64(len(text))
	for i := range len(text) {
		if c := text[i] | 0x20; c == 'e' || c == 'p' {
			return n + 9*exponent(text[i+1:])
		}
	}
	return n
}

// exponent is the magnitude of an exponent, of one beyond a billion at least that.
func exponent(text string) int64 {
	var n int64
	for i := range len(text) {
		if c := text[i] - '0'; c <= 9 && n < 1e9 {
			n = n*10 + int64(c)
		}
	}
	return n
}

// calculate charges for a calculation in math/big with numbers of so many
// decimal digits in all. Reading and writing them takes longest; it is
// quadratic.
func (c *Call) calculate(digits int64) error {
	words := min(digits/19+1, 1<<20)
	if err := c.Bytes(64 + 2*digits); err != nil {
		return err
	}
	return c.block(20 + digits/8 + words*words/8)
}

// number returns a number of OPA's as the result of a built-in.
func number(name string, n ast.Number) (value.Value, error) {
	if len(n) > value.MaxNumeral {
		return value.Value{}, fail(name, "a number of more than %d digits", value.MaxNumeral)
	}
	return value.NumberText(string(n)), nil
}

// integral is number for a whole one.
func integral(name string, i *big.Int) (value.Value, error) {
	if i.IsInt64() {
		return value.Int(i.Int64()), nil
	}
	return number(name, ast.Number(i.String()))
}
