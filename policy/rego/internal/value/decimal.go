package value

import (
	"cmp"
	"math"
	"strconv"
	"strings"
)

// decimal is a number 0.DIGITS * 10^point. The digits are those of whole and then
// those of fraction, from first on and before last: none of these two is a zero.
// Zero has no digits.
type decimal struct {
	negative        bool
	whole, fraction string
	first, last     int
	point           int
}

// parseDecimal reads a number as [NumberText] takes it, without allocating. An
// exponent beyond 32 bits is taken for the largest of these.
func parseDecimal(text string) decimal {
	var d decimal
	if len(text) > 0 && (text[0] == '-' || text[0] == '+') {
		d.negative, text = text[0] == '-', text[1:]
	}
	if len(text) > 1 && text[1]|0x20 == 'x' {
		return parseHex(text, d.negative)
	}
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		e, err := strconv.Atoi(text[i+1:])
		if err != nil { // out of range: strconv gives the nearest
			e = max(min(e, math.MaxInt32), math.MinInt32)
		}
		d.point, text = e, text[:i]
	}
	d.whole, d.fraction, _ = strings.Cut(text, ".")
	d.last = len(d.whole) + len(d.fraction)
	for d.first < d.last && d.digit(d.first) == '0' {
		d.first++
	}
	if d.first == d.last {
		return decimal{}
	}
	for d.digit(d.last-1) == '0' {
		d.last--
	}
	d.point += len(d.whole) - d.first
	return d
}

// parseHex reads what to_number takes from Go's grammar. Exactly 766 digits after
// the first are enough for any double.
func parseHex(text string, negative bool) decimal {
	f, _ := strconv.ParseFloat(text, 64)
	if math.IsInf(f, 0) {
		f = math.MaxFloat64
	}
	d := parseDecimal(strconv.FormatFloat(f, 'e', 766, 64))
	d.negative = negative && d.first < d.last
	return d
}

func (d *decimal) digit(i int) byte {
	if i < len(d.whole) {
		return d.whole[i]
	}
	return d.fraction[i-len(d.whole)]
}

func (d *decimal) sign() int {
	switch {
	case d.first == d.last:
		return 0
	case d.negative:
		return -1
	}
	return 1
}

func (d decimal) compare(o decimal) int {
	sign := d.sign()
	if c := cmp.Compare(sign, o.sign()); c != 0 || sign == 0 {
		return c
	}
	return sign * cmp.Or(cmp.Compare(d.point, o.point), d.compareDigits(&o))
}

func (d *decimal) compareDigits(o *decimal) int {
	n, m := d.last-d.first, o.last-o.first
	for i := range min(n, m) {
		if c := cmp.Compare(d.digit(d.first+i), o.digit(o.first+i)); c != 0 {
			return c
		}
	}
	return cmp.Compare(n, m)
}

// int64 returns a whole number within the range.
func (d decimal) int64() (int64, bool) {
	digits := d.last - d.first
	if digits == 0 {
		return 0, true
	}
	if d.point < digits || d.point > 19 {
		return 0, false
	}
	var n uint64 // below 10^19 it cannot overflow
	for i := range d.point {
		n *= 10
		if i < digits {
			n += uint64(d.digit(d.first+i) - '0')
		}
	}
	if d.negative {
		return -int64(n), n <= 1<<63
	}
	return int64(n), n < 1<<63
}
