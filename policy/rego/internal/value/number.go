package value

import (
	"cmp"
	"math"
	"strconv"
	"strings"
)

// numeral is a number in a spelling of its own.
type numeral struct {
	text    string
	approx  float64 // the nearest double, an infinity if it has none
	whole   int64   // the number, if isWhole
	isWhole bool    // it is a whole one of 64 bits, for instance 1.0 or 1e3
}

// NumberText returns a number as it is spelled in text, which must be a number in
// JSON's grammar (a leading + or zeros and the like are the caller's business).
func NumberText(text string) Value {
	if i, err := strconv.ParseInt(text, 10, 64); err == nil && isCanonical(text) {
		return Int(i)
	}
	n := newNumeral(text)
	return Value{kind: Number, form: spelled, ref: &n}
}

// isCanonical reports whether a text that strconv reads as an int64 is how
// strconv would spell it.
func isCanonical(text string) bool {
	digits := strings.TrimPrefix(text, "-")
	return text[0] != '+' && (digits[0] != '0' || text == "0")
}

func newNumeral(text string) numeral {
	n := numeral{text: text}
	n.approx, _ = strconv.ParseFloat(text, 64)
	n.whole, n.isWhole = parseDecimal(text).int64()
	return n
}

// Float returns a finite double, spelled as OPA spells it.
func Float(f float64) Value {
	if f != math.Trunc(f) && !math.IsInf(f, 0) && !math.IsNaN(f) {
		return Value{kind: Number, form: double, num: math.Float64bits(f)}
	}
	return NumberText(strconv.FormatFloat(f, 'g', -1, 64))
}

// Float64 returns the double that is nearest to a number, and whether v is one
// within the range of doubles.
func (v Value) Float64() (float64, bool) {
	if v.kind != Number {
		return 0, false
	}
	f := v.float()
	return f, !math.IsInf(f, 0)
}

func (v Value) float() float64 {
	switch v.form {
	case spelled:
		return v.ref.(*numeral).approx
	case double:
		return math.Float64frombits(v.num)
	}
	return float64(int64(v.num))
}

// compareNumbers compares by value: 1, 1.0 and 1e0 are equal.
func compareNumbers(a, b Value) int {
	if a.form == built && b.form == built {
		return cmp.Compare(int64(a.num), int64(b.num))
	}
	if a.form == double && b.form == double {
		return cmp.Compare(a.float(), b.float())
	}
	ai, aok := a.Int64()
	bi, bok := b.Int64()
	if aok && bok {
		return cmp.Compare(ai, bi)
	}
	return parseDecimal(a.Numeral()).compare(parseDecimal(b.Numeral()))
}

// hashNumber is the same for numbers that are equal.
func (v Value) hashNumber() uint64 {
	if i, ok := v.Int64(); ok {
		return mix(uint64(i))
	}
	return mix(math.Float64bits(v.float()))
}

// decimal is a number written as 0.DIGITS * 10^point; digits has no zero at
// either end, and is empty for zero.
type decimal struct {
	negative bool
	digits   string
	point    int
}

// parseDecimal reads a number in JSON's grammar. What the exponent says beyond
// the range of int is clamped, which keeps the order.
func parseDecimal(text string) decimal {
	var d decimal
	if strings.HasPrefix(text, "-") {
		d.negative, text = true, text[1:]
	} else {
		text = strings.TrimPrefix(text, "+")
	}
	exponent := 0
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		e, err := strconv.Atoi(text[i+1:])
		if err != nil { // out of range: strconv gives the nearest
			e = max(min(e, math.MaxInt32), math.MinInt32)
		}
		exponent, text = e, text[:i]
	}
	whole, fraction, _ := strings.Cut(text, ".")
	d.point = len(whole) + exponent
	d.digits = whole
	if fraction != "" {
		d.digits = whole + fraction
	}
	stripped := strings.TrimLeft(d.digits, "0")
	d.point -= len(d.digits) - len(stripped)
	d.digits = strings.TrimRight(stripped, "0")
	if d.digits == "" {
		return decimal{}
	}
	return d
}

func (d decimal) compare(o decimal) int {
	sign := func(d decimal) int {
		switch {
		case d.digits == "":
			return 0
		case d.negative:
			return -1
		}
		return 1
	}
	ds, os := sign(d), sign(o)
	if ds != os || ds == 0 {
		return cmp.Compare(ds, os)
	}
	return ds * cmp.Or(cmp.Compare(d.point, o.point), strings.Compare(d.digits, o.digits))
}

// int64 returns a whole number within the range.
func (d decimal) int64() (int64, bool) {
	if d.digits == "" {
		return 0, true
	}
	if d.point < len(d.digits) || d.point > 19 {
		return 0, false
	}
	text := d.digits + strings.Repeat("0", d.point-len(d.digits))
	if d.negative {
		text = "-" + text
	}
	i, err := strconv.ParseInt(text, 10, 64)
	return i, err == nil
}
