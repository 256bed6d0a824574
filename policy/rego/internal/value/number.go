package value

import (
	"cmp"
	"math"
	"strconv"
	"unsafe"
)

// MaxNumeral is in how many characters a number may be spelled, wherever it comes
// from, so that comparing two never takes long. It is enough for the numbers in an
// RSA key of 8,192 bits. OPA knows no such bound.
const MaxNumeral = 2500

// NumberText returns a number that is spelled as text: in JSON's grammar, or as
// Rego and to_number take it beside that: with a leading + or zeros, without
// digits before or after the point. What is in hexadecimal is the double that is
// nearest to it.
func NumberText(text string) Value {
	if i, ok := canonicalInt(text); ok {
		return Int(i)
	}
	if isShortDouble(text) {
		if f, err := strconv.ParseFloat(text, 64); err == nil {
			return Value{tag: Number.as(double), num: math.Float64bits(f)}
		}
	}
	return spelledNumber(text)
}

func spelledNumber(text string) Value {
	return Value{tag: Number.as(spelled), num: uint64(len(text)), ref: unsafe.StringData(text)}
}

// canonicalInt reads a whole number that is spelled as strconv spells it.
func canonicalInt(text string) (int64, bool) {
	digits := text
	if len(digits) > 0 && digits[0] == '-' {
		digits = digits[1:]
	}
	switch {
	case digits == "" || len(digits) > 19:
		return 0, false
	case digits[0] == '0':
		return 0, text == "0" // -0 is spelled otherwise than what it equals
	}
	if len(digits) == 19 { // may be out of range
		i, err := strconv.ParseInt(text, 10, 64)
		return i, err == nil && text[0] != '+'
	}
	var n int64
	for i := range len(digits) {
		c := digits[i] - '0'
		if c > 9 {
			return 0, false
		}
		n = n*10 + int64(c)
	}
	if len(digits) < len(text) {
		n = -n
	}
	return n, true
}

// isShortDouble reports whether text is how strconv spells the double that is
// nearest to it, by 'g' in the shortest form. It says no where that would have to
// be tried out: it takes a point, up to six digits before and at least one after
// it, no zero at the end, at most three after the point at the start of a number
// below one, and 15 digits in all: so few are told apart by doubles, so that
// there is no shorter spelling.
func isShortDouble(text string) bool {
	if len(text) > 0 && text[0] == '-' {
		text = text[1:]
	}
	if len(text) < 3 || len(text) > 16 || text[len(text)-1] == '0' {
		return false
	}
	point := -1
	for i := range len(text) {
		if c := text[i]; c == '.' && point < 0 {
			point = i
		} else if c < '0' || c > '9' {
			return false
		}
	}
	switch {
	case point < 1 || point > 6 || point == len(text)-1:
		return false
	case text[0] != '0':
		return true
	}
	return point == 1 && (len(text) <= 5 || text[2:5] != "000" || text[5] != '0')
}

// Float returns a finite double, spelled as OPA spells it.
func Float(f float64) Value {
	if f != math.Trunc(f) {
		return Value{tag: Number.as(double), num: math.Float64bits(f)}
	}
	return NumberText(strconv.FormatFloat(f, 'g', -1, 64))
}

// Int64 returns a number that is whole and within the range of int64, however it
// is spelled: also 1.0 and 1e3.
func (v Value) Int64() (int64, bool) {
	if v.Kind() != Number {
		return 0, false
	}
	switch v.form() {
	case built:
		return int64(v.num), true
	case spelled:
		return parseDecimal(v.text()).int64()
	}
	return 0, false
}

// PlainInt64 returns a number that OPA takes for a whole one where it asks for no
// calculation, an array's index for instance: in 64 bits, spelled in at most 19
// characters without exponent; a fraction of zeros is fine. That is
// ast.Number.Int64.
func (v Value) PlainInt64() (int64, bool) {
	if v.Kind() != Number || v.form() == double {
		return 0, false
	}
	if v.form() == built {
		return int64(v.num), true
	}
	text := v.text()
	if text[0] == '-' || text[0] == '+' {
		text = text[1:]
	}
	if len(text) > 19 {
		return 0, false
	}
	for i := range len(text) {
		if c := text[i]; c != '.' && (c < '0' || c > '9') {
			return 0, false
		}
	}
	return parseDecimal(v.text()).int64()
}

// Float64 returns the double that is nearest to a number, and whether v is one
// within the range of doubles.
func (v Value) Float64() (float64, bool) {
	if v.Kind() != Number {
		return 0, false
	}
	f := v.float()
	return f, !math.IsInf(f, 0)
}

// float is infinite beyond the range of doubles.
func (v Value) float() float64 {
	switch v.form() {
	case spelled:
		f, _ := strconv.ParseFloat(v.text(), 64)
		return f
	case double:
		return math.Float64frombits(v.num)
	}
	return float64(int64(v.num))
}

// Numeral returns a number as it is spelled, "" for every other kind.
func (v Value) Numeral() string {
	if v.Kind() != Number {
		return ""
	}
	if v.form() == spelled {
		return v.text()
	}
	var buf [24]byte
	return string(v.AppendNumeral(buf[:0]))
}

// AppendNumeral appends a number as it is spelled.
func (v Value) AppendNumeral(dst []byte) []byte {
	if v.Kind() != Number {
		return dst
	}
	switch v.form() {
	case spelled:
		return append(dst, v.text()...)
	case double:
		return strconv.AppendFloat(dst, v.float(), 'g', -1, 64)
	}
	return strconv.AppendInt(dst, int64(v.num), 10)
}

// compareNumbers compares by value, exactly: 1, 1.0 and 1e0 are equal.
//
// OPA does, too, but for one case: it takes two numbers of more than 15 digits
// for equal if their doubles are, and both have a point and end in zeros. (Its
// equality is not transitive there.)
func compareNumbers(a, b Value) int {
	if a.form() == built && b.form() == built {
		return cmp.Compare(int64(a.num), int64(b.num))
	}
	if i, ok := a.Int64(); ok {
		if j, ok := b.Int64(); ok {
			return cmp.Compare(i, j)
		}
	}
	if a.isShort() && b.isShort() {
		// Rounding keeps the order, so doubles that differ tell.
		if c := cmp.Compare(a.float(), b.float()); c != 0 {
			return c
		}
		if a.form() == double && b.form() == double {
			return 0
		}
	}
	var abuf, bbuf [32]byte
	return parseDecimal(a.numeral(&abuf)).compare(parseDecimal(b.numeral(&bbuf)))
}

// isShort reports whether a number's double is found faster than its digits are
// gone through.
func (v Value) isShort() bool {
	return v.form() != spelled || v.num <= 64
}

// numeral is Numeral in borrowed memory.
func (v Value) numeral(buf *[32]byte) string {
	if v.form() == spelled {
		return v.text()
	}
	text := v.AppendNumeral(buf[:0])
	return unsafe.String(unsafe.SliceData(text), len(text))
}

// hashNumber is the same for numbers that are equal.
func (v Value) hashNumber() uint64 {
	if i, ok := v.Int64(); ok {
		return mix(uint64(i))
	}
	return mix(math.Float64bits(v.float()))
}
