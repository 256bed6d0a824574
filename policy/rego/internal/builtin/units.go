package builtin

import (
	"math/big"
	"strings"
	"unicode"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// measures read quantities with a unit, such as "10Ki".
var measures = []*Builtin{
	{Name: "units.parse", Func: unitsParse},
	{Name: "units.parse_bytes", Func: unitsParseBytes},
}

// Multiples by the first letter of their names, of 1000 and with an i of 1024.
const multiples = "kmgtpe"

// multiple returns what a unit without its last letter stands for, in lower case:
// "" is one, "k" a thousand, "ki" 1024.
func multiple(unit string) (int64, bool) {
	if unit == "" {
		return 1, true
	}
	base := int64(1000)
	switch {
	case len(unit) == 2 && unit[1] == 'i':
		base = 1024
	case len(unit) != 1:
		return 0, false
	}
	times := strings.IndexByte(multiples, unit[0]) + 1
	result := int64(1)
	for range times {
		result *= base
	}
	return result, times > 0
}

// unitsParse takes SI's units, exactly; a small m is a thousandth.
func unitsParse(c *Call, args []value.Value) (value.Value, error) {
	const name = "units.parse"
	s, err := textOf(name, 1, args[0])
	if err != nil {
		return value.Value{}, err
	}
	digits, unit, err := quantity(c, name, strings.ReplaceAll(s, `"`, ""), "amount")
	if err != nil {
		return value.Value{}, err
	}
	if len(unit) > 1 {
		unit = unit[:1] + strings.ToLower(unit[1:])
	}
	by := new(big.Rat)
	if unit == "m" {
		by.SetFloat64(0.001)
	} else {
		factor, ok := multiple(strings.ToLower(unit))
		if !ok {
			return value.Value{}, fail(name, "%s: unit %s not recognized", name, unit)
		}
		by.SetInt64(factor)
	}
	amount, ok := new(big.Rat).SetString(digits)
	if !ok {
		return value.Value{}, fail(name, "%s: could not parse amount to a number", name)
	}
	if amount.Mul(amount, by); amount.IsInt() {
		return integral(name, amount.Num())
	}
	return number(name, ast.Number(amount.FloatString(10)))
}

// unitsParseBytes takes numbers of bytes; a b at the end says nothing, and so does
// the case of letters.
func unitsParseBytes(c *Call, args []value.Value) (value.Value, error) {
	const name = "units.parse_bytes"
	s, err := textOf(name, 1, args[0])
	if err != nil {
		return value.Value{}, err
	}
	digits, unit, err := quantity(c, name, strings.ReplaceAll(strings.ToLower(s), `"`, ""), "byte amount")
	if err != nil {
		return value.Value{}, err
	}
	short := unit
	if len(unit) > 1 {
		short = strings.TrimSuffix(unit, "b")
	}
	factor, ok := multiple(short)
	if !ok {
		return value.Value{}, fail(name, "%s: byte unit %s not recognized", name, unit)
	}
	amount, ok := new(big.Float).SetString(digits)
	if !ok {
		return value.Value{}, fail(name, "%s: could not parse byte amount to a number", name)
	}
	i, _ := amount.Mul(amount, new(big.Float).SetInt64(factor)).Int(nil)
	return integral(name, i)
}

// quantity takes a number and its unit apart, and charges for calculating with
// the number.
func quantity(c *Call, name, s, what string) (number, unit string, err error) {
	if err := c.block(1 + int64(len(s))/4); err != nil {
		return "", "", err
	}
	if strings.Contains(s, " ") {
		return "", "", fail(name, "%s: spaces not allowed in resource strings", name)
	}
	end, exponent, ok := numberLength(s)
	if !ok {
		return "", "", fail(name, "%s: exponent too large", name)
	}
	if end == 0 {
		return "", "", fail(name, "%s: no %s provided", name, what)
	}
	return s[:end], s[end:], c.calculate(int64(len(s)) + 9*exponent)
}

// numberLength returns how many bytes of a quantity are its number, and the sum of
// what is written as exponents. An exponent of more than six digits is refused.
func numberLength(s string) (end int, exponents int64, ok bool) {
	isDigit := func(i int) bool { return i < len(s) && unicode.IsDigit(rune(s[i])) }
	isSign := func(i int) bool { return i < len(s) && (s[i] == '+' || s[i] == '-') }
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == 'e' || s[i] == 'E':
			if !isDigit(i+1) && !isSign(i+1) {
				return i, exponents, true
			}
			if isSign(i + 1) {
				i++
			}
			from, to := i+1, i+1
			for isDigit(to) {
				to++
			}
			if to-from > 6 {
				return 0, 0, false
			}
			exponents += exponent(s[from:to])
		case !isDigit(i) && s[i] != '.' && !isSign(i):
			return i, exponents, true
		}
	}
	return len(s), exponents, true
}
