package builtin

import (
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// formatting makes texts of values.
var formatting = []*Builtin{
	{Name: "sprintf", Func: sprintf},
	{Name: "internal.template_string", Func: templateString},
}

// sprintf formats with package fmt. It is given a string as a string, a number
// as an int64, a *big.Int or a float64, by its spelling, and everything else as
// the string that is its text in Rego.
//
// OPA shows the address of a large number for %p; here that is an error.
func sprintf(c *Call, args []value.Value) (value.Value, error) {
	const name = "sprintf"
	format, err := textOf(name, 1, args[0])
	if err != nil {
		return value.Value{}, err
	}
	list := args[1]
	if list.Kind() != value.Array {
		return value.Value{}, wrongType(name, 2, list, "array")
	}
	if err := c.Work(1+int64(len(format))/8, int64(len(format))); err != nil {
		return value.Value{}, err
	}
	if text, ok, err := plainly(c, format, list); ok || err != nil {
		return value.Text(text), err
	}
	operands := make([]any, list.Len())
	var sizes operandSizes
	for i := range operands {
		if operands[i], err = c.operand(list.Elem(i), &sizes); err != nil {
			return value.Value{}, err
		}
	}
	v := verbsOf(format)
	if v.pointer && slices.ContainsFunc(operands, func(x any) bool { _, ok := x.(*big.Int); return ok }) {
		return value.Value{}, fail(name, "%%p would show where in memory a number is")
	}
	size := v.bound(int64(len(format)), sizes)
	if err := c.Bytes(size); err != nil {
		return value.Value{}, err
	}
	if err := c.block(size / 4); err != nil {
		return value.Value{}, err
	}
	return value.Text(fmt.Sprintf(format, operands...)), nil
}

// plainly formats if the format has no other verbs than %s, %v and %d, without
// anything in between, and each of them has its operand, of a fitting type. It
// gives what package fmt does.
func plainly(c *Call, format string, list value.Value) (string, bool, error) {
	var b []byte
	next := 0
	for rest := format; ; {
		i := strings.IndexByte(rest, '%')
		if i < 0 {
			if next != list.Len() {
				return "", false, nil
			}
			return string(append(b, rest...)), true, nil
		}
		if i+1 == len(rest) {
			return "", false, nil
		}
		b = append(b, rest[:i]...)
		verb := rest[i+1]
		rest = rest[i+2:]
		if verb == '%' {
			b = append(b, '%')
			continue
		}
		if next == list.Len() {
			return "", false, nil
		}
		v := list.Elem(next)
		next++
		switch {
		case v.Kind() == value.Number:
			if verb != 'd' && verb != 'v' || !v.IsBuilt(value.Number) {
				return "", false, nil
			}
			b = v.AppendNumeral(b)
		case verb != 's' && verb != 'v':
			return "", false, nil
		case v.Kind() == value.String:
			if err := c.Work(1+textSteps(len(v.Text())), int64(len(v.Text()))); err != nil {
				return "", false, err
			}
			b = append(b, v.Text()...)
		default:
			var err error
			if b, err = c.appendText(b, v); err != nil {
				return "", false, err
			}
		}
	}
}

// operandSizes is how long the texts of operands may be.
type operandSizes struct {
	longest, all int64
	widest       int64 // where an operand is a width
}

func (s *operandSizes) add(size int64) {
	s.longest = max(s.longest, size)
	s.all += size + 32
}

// operand returns what package fmt is given for a value.
func (c *Call) operand(v value.Value, sizes *operandSizes) (any, error) {
	switch v.Kind() {
	case value.String:
		sizes.add(int64(len(v.Text())))
		return v.Text(), c.Step(1)
	case value.Number:
		text := v.Numeral()
		if strings.ContainsAny(text, ".eE") {
			if f, err := strconv.ParseFloat(text, 64); err == nil {
				sizes.add(330) // 1e308 by %f
				return f, c.Step(1 + textSteps(len(text)))
			}
			sizes.add(int64(len(text)))
			return text, c.Step(1 + textSteps(len(text)))
		}
		if i, ok := v.PlainInt64(); ok {
			sizes.add(80) // in binary
			sizes.widest = max(sizes.widest, min(int64(magnitude(i)), maxWidth))
			return i, c.Step(1)
		}
		if err := c.calculate(int64(len(text))); err != nil {
			return nil, err
		}
		sizes.add(4 * int64(len(text))) // in binary
		if i, ok := new(big.Int).SetString(text, 10); ok {
			return i, nil
		}
		return text, nil
	}
	text, err := c.text(v)
	sizes.add(int64(len(text)))
	return text, err
}

// text returns a value's text in Rego.
func (c *Call) text(v value.Value) (string, error) {
	b, err := c.appendText(nil, v)
	return string(b), err
}

// appendText appends what [value.Value.AppendText] does, and charges for it.
func (c *Call) appendText(dst []byte, v value.Value) ([]byte, error) {
	var s value.Cursor
	switch v.Kind() {
	case value.Array:
		s = v.Scan()
		dst = append(dst, '[')
	case value.Object, value.Set:
		if v.Len() == 0 {
			return v.AppendText(dst), c.Work(1, 5)
		}
		var err error
		if s, err = c.scan(v); err != nil {
			return nil, err
		}
		dst = append(dst, '{')
	default:
		size := int64(20)
		if k := v.Kind(); k == value.String {
			size = 2 * int64(len(v.Text()))
		} else if k == value.Number && !v.IsBuilt(k) {
			size = int64(len(v.Numeral()))
		}
		if err := c.Bytes(size); err != nil {
			return nil, err
		}
		if err := c.block(1 + size/2); err != nil {
			return nil, err
		}
		return v.AppendText(dst), nil
	}
	var key, val value.Value
	for first := true; s.Next(&key, &val); first = false {
		if !first {
			dst = append(dst, ", "...)
		}
		var err error
		if v.Kind() == value.Object {
			if dst, err = c.appendText(dst, key); err != nil {
				return nil, err
			}
			dst = append(dst, ": "...)
		}
		if dst, err = c.appendText(dst, val); err != nil {
			return nil, err
		}
	}
	if v.Kind() == value.Array {
		return append(dst, ']'), nil
	}
	return append(dst, '}'), nil
}

// verbs is what is known of the verbs of a format before it is used.
type verbs struct {
	n        int64
	widths   int64 // widths and precisions, in all
	plain    bool  // only verbs that show an operand as it is
	ordered  bool  // each verb takes the next operand
	operands bool  // widths and precisions among the operands
	pointer  bool  // a verb %p
}

// verbsOf reads a format as package fmt does, and sees widths wherever there may
// be some.
func verbsOf(format string) verbs {
	v := verbs{plain: true, ordered: true}
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			continue
		}
		v.n++
		for i++; i < len(format) && strings.IndexByte("+-# 0123456789.*[]", format[i]) >= 0; {
			switch c := format[i]; {
			case c == '[':
				v.ordered = false
			case c == '*':
				v.operands = true
			case c == '+' || c == '#':
				v.plain = false
			case c >= '1' && c <= '9':
				width := int64(0)
				for ; i < len(format) && format[i] >= '0' && format[i] <= '9'; i++ {
					width = min(width*10+int64(format[i]-'0'), maxWidth)
				}
				v.widths += width
				continue
			}
			i++
		}
		if i < len(format) && strings.IndexByte("svd%", format[i]) < 0 {
			v.plain = false
			v.pointer = v.pointer || format[i] == 'p'
		}
	}
	return v
}

// maxWidth is the largest width and the largest precision that package fmt takes:
// it looks whether a number is over a million before it reads the last digit.
const maxWidth = 10_000_009

// bound bounds how many bytes formatting may take.
func (v verbs) bound(format int64, operands operandSizes) int64 {
	shown := operands.all
	if !v.ordered {
		shown += budget.Product(v.n, operands.longest)
	}
	if !v.plain {
		shown *= 10 // a byte as \x00, a character as \U0010ffff, a space and 0x before each
	}
	widths := v.widths
	if v.operands {
		widths += 2 * v.n * operands.widest
	}
	return format + widths + 48*v.n + shown
}

// templateString joins the parts of a template: a scalar is itself, a set is what
// an expression gave.
func templateString(c *Call, args []value.Value) (value.Value, error) {
	list := args[0]
	if list.Kind() != value.Array {
		return value.Value{}, wrongType("internal.template_string", 1, list, "array")
	}
	conflict := false
	var b strings.Builder
	for i := range list.Len() {
		part := list.Elem(i)
		switch part.Kind() {
		case value.Array, value.Object:
			return value.Value{}, &Error{Code: "eval_internal_error", Message: "illegal argument type: " + part.Kind().String(), Halts: true}
		case value.Set:
			if part.Len() == 0 {
				part = value.Text("<undefined>")
				break
			}
			conflict = conflict || part.Len() > 1
			s, err := c.scan(part)
			if err != nil {
				return value.Value{}, err
			}
			s.Next(&part, &part)
		}
		text := part.Text()
		if part.Kind() != value.String {
			var err error
			if text, err = c.text(part); err != nil {
				return value.Value{}, err
			}
		}
		if err := c.Work(1+textSteps(len(text)), int64(len(text))); err != nil {
			return value.Value{}, err
		}
		b.WriteString(text)
	}
	if conflict {
		return value.Value{}, &Error{Code: "eval_conflict_error", Message: "template-strings must not produce multiple outputs", Halts: true}
	}
	return value.Text(b.String()), nil
}
