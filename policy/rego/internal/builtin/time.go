package builtin

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zones do not depend on the host's files, as in OPA

	"github.com/open-policy-agent/opa/v1/topdown/durationparser"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

var times = []*Builtin{
	{Name: "time.parse_rfc3339_ns", Func: parseRFC3339},
	{Name: "time.parse_ns", Func: parseTime},
	{Name: "time.parse_duration_ns", Func: parseDuration},
	{Name: "time.clock", Func: clock},
	{Name: "time.date", Func: date},
	{Name: "time.weekday", Func: weekday},
	{Name: "time.format", Func: formatTime},
	{Name: "time.add_date", Func: addDate},
	{Name: "time.diff", Func: timeDiff},
}

// layouts that have names.
var layouts = map[string]string{
	"ANSIC": time.ANSIC, "UnixDate": time.UnixDate, "RubyDate": time.RubyDate, "RFC822": time.RFC822, "RFC822Z": time.RFC822Z,
	"RFC850": time.RFC850, "RFC1123": time.RFC1123, "RFC1123Z": time.RFC1123Z, "RFC3339": time.RFC3339, "RFC3339Nano": time.RFC3339Nano,
}

// The range of times that 64 bits of nanoseconds can say.
var firstTime, lastTime = time.Unix(0, math.MinInt64), time.Unix(0, math.MaxInt64)

func nanoseconds(name string, t time.Time) (value.Value, error) {
	if t.Before(firstTime) || t.After(lastTime) {
		return value.Value{}, fail(name, "time outside of valid range")
	}
	return value.Int(t.UnixNano()), nil
}

func parseRFC3339(c *Call, args []value.Value) (value.Value, error) {
	const name = "time.parse_rfc3339_ns"
	if args[0].Kind() != value.String {
		return value.Value{}, wrongType(name, 1, args[0], "string")
	}
	s := args[0].Text()
	if err := c.blockOf(s, 8, 0); err != nil {
		return value.Value{}, err
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return value.Value{}, fail(name, "%v", err)
	}
	return nanoseconds(name, t)
}

func parseTime(c *Call, args []value.Value) (value.Value, error) {
	const name = "time.parse_ns"
	for i, arg := range args {
		if arg.Kind() != value.String {
			return value.Value{}, wrongType(name, i+1, arg, "string")
		}
	}
	layout, s := args[0].Text(), args[1].Text()
	if known, ok := layouts[layout]; ok {
		layout = known
	}
	if err := c.blockOf(layout, 32, 0); err != nil {
		return value.Value{}, err
	}
	if err := c.blockOf(s, 8, 0); err != nil {
		return value.Value{}, err
	}
	t, err := time.Parse(layout, s)
	if err != nil {
		return value.Value{}, fail(name, "%v", err)
	}
	return nanoseconds(name, t)
}

func parseDuration(c *Call, args []value.Value) (value.Value, error) {
	const name = "time.parse_duration_ns"
	if args[0].Kind() != value.String {
		return value.Value{}, wrongType(name, 1, args[0], "string")
	}
	s := args[0].Text()
	if !strings.ContainsAny(s, "dwy") {
		if err := c.blockOf(s, 8, 0); err != nil {
			return value.Value{}, err
		}
		d, err := time.ParseDuration(s)
		if err != nil {
			return value.Value{}, fail(name, "%v", err)
		}
		return value.Int(int64(d)), nil
	}
	if err := c.blockOf(s, 8*200, 1000); err != nil {
		return value.Value{}, err
	}
	in, err := inHours(s)
	if err != nil {
		return value.Value{}, fail(name, "time: invalid duration %q", s)
	}
	d, err := time.ParseDuration(in)
	if err != nil {
		message := err.Error()
		if i := strings.LastIndex(message, " "); i >= 0 {
			message = message[:i]
		}
		return value.Value{}, fail(name, "%s %q", message, s)
	}
	return value.Int(int64(d)), nil
}

// hours that OPA has more units for than Go.
var hours = map[string]float64{"d": 24, "w": 7 * 24, "y": 365 * 24}

// inHours returns a duration with OPA's units as one with Go's.
func inHours(s string) (string, error) {
	parsed, err := durationparser.Parse("", []byte(s))
	if err != nil {
		return "", err
	}
	d := parsed.(durationparser.Result)
	var text strings.Builder
	text.WriteString(d.Sign)
	for _, segment := range d.Segments {
		in, ok := hours[segment.Unit]
		if !ok {
			text.WriteString(segment.Digits + segment.Unit)
			continue
		}
		n, err := strconv.ParseFloat(segment.Digits, 64)
		if err != nil {
			return "", err
		}
		text.WriteString(strconv.FormatFloat(n*in, 'f', -1, 64) + "h")
	}
	return text.String(), nil
}

// timeOperand reads the first operand or the second, which both count as the
// first in errors: a number of nanoseconds, or an array of that, a zone and a
// layout, of which both can be missing.
func (c *Call) timeOperand(name string, v value.Value) (t time.Time, layout string, err error) {
	if err := c.Step(20); err != nil {
		return t, "", err
	}
	ns, zone := v, time.UTC
	if v.Kind() == value.Array && v.Len() > 0 {
		if ns = v.Elem(0); ns.Kind() != value.Number {
			return t, "", wrongType(name, 1, ns, "number")
		}
		if v.Len() > 1 {
			if zone, err = c.zone(name, v.Elem(1)); err != nil {
				return t, "", err
			}
		}
		if v.Len() > 2 {
			if v.Elem(2).Kind() != value.String {
				return t, "", wrongType(name, 1, v.Elem(2), "string")
			}
			layout = v.Elem(2).Text()
		}
	}
	if ns.Kind() != value.Number {
		return t, "", wrongType(name, 1, v, "either number (ns) or [number (ns), string (tz)]")
	}
	i, ok := ns.PlainInt64()
	if !ok {
		if err := c.calculate(digitsOf(ns)); err != nil {
			return t, "", err
		}
		// OPA reads a number into 64 bits, and asks then whether it is whole.
		f, _, err := big.ParseFloat(ns.Numeral(), 0, 64, big.ToNearestEven)
		if err != nil {
			return t, "", fail(name, "timestamp too big")
		}
		var accuracy big.Accuracy
		if i, accuracy = f.Int64(); accuracy != big.Exact {
			return t, "", fail(name, "timestamp too big")
		}
	}
	return time.Unix(0, i).In(zone), layout, nil
}

func (c *Call) zone(name string, v value.Value) (*time.Location, error) {
	if v.Kind() != value.String {
		return nil, wrongType(name, 1, v, "string")
	}
	switch v.Text() {
	case "", "UTC":
		return time.UTC, nil
	case "Local":
		return time.Local, nil
	}
	if err := c.block(20_000 + int64(len(v.Text()))); err != nil {
		return nil, err
	}
	zone, err := time.LoadLocation(v.Text())
	if err != nil {
		return nil, fail(name, "%v", err)
	}
	return zone, nil
}

func clock(c *Call, args []value.Value) (value.Value, error) {
	t, _, err := c.timeOperand("time.clock", args[0])
	if err != nil {
		return value.Value{}, err
	}
	hour, minute, second := t.Clock()
	return ints(hour, minute, second), nil
}

func ints(list ...int) value.Value {
	elems := make([]value.Value, len(list))
	for i, n := range list {
		elems[i] = value.Int(int64(n))
	}
	return value.NewArray(elems...)
}

func date(c *Call, args []value.Value) (value.Value, error) {
	t, _, err := c.timeOperand("time.date", args[0])
	if err != nil {
		return value.Value{}, err
	}
	year, month, day := t.Date()
	return ints(year, int(month), day), nil
}

func weekday(c *Call, args []value.Value) (value.Value, error) {
	t, _, err := c.timeOperand("time.weekday", args[0])
	if err != nil {
		return value.Value{}, err
	}
	return value.Text(t.Weekday().String()), nil
}

func formatTime(c *Call, args []value.Value) (value.Value, error) {
	t, layout, err := c.timeOperand("time.format", args[0])
	if err != nil {
		return value.Value{}, err
	}
	if known, ok := layouts[layout]; ok {
		layout = known
	} else if layout == "" {
		layout = time.RFC3339Nano
	}
	if err := c.blockOf(layout, 24, 6); err != nil {
		return value.Value{}, err
	}
	return value.Text(t.Format(layout)), nil
}

func addDate(c *Call, args []value.Value) (value.Value, error) {
	const name = "time.add_date"
	t, _, err := c.timeOperand(name, args[0])
	if err != nil {
		return value.Value{}, err
	}
	var add [3]int
	for i := range add {
		n, err := integer(name, i+2, args[i+1])
		if err != nil {
			return value.Value{}, err
		}
		add[i] = int(n)
	}
	return nanoseconds(name, t.AddDate(add[0], add[1], add[2]))
}

// timeDiff is github.com/icza/gox's timex.Diff, as in OPA.
func timeDiff(c *Call, args []value.Value) (value.Value, error) {
	a, _, err := c.timeOperand("time.diff", args[0])
	if err != nil {
		return value.Value{}, err
	}
	b, _, err := c.timeOperand("time.diff", args[1])
	if err != nil {
		return value.Value{}, err
	}
	b = b.In(a.Location())
	if a.After(b) {
		a, b = b, a
	}
	y1, m1, d1 := a.Date()
	y2, m2, d2 := b.Date()
	hour1, min1, sec1 := a.Clock()
	hour2, min2, sec2 := b.Clock()
	year, month, day := y2-y1, int(m2-m1), d2-d1
	hour, minute, sec := hour2-hour1, min2-min1, sec2-sec1
	if sec < 0 {
		sec += 60
		minute--
	}
	if minute < 0 {
		minute += 60
		hour--
	}
	if hour < 0 {
		hour += 24
		day--
	}
	if day < 0 {
		inMonth := 32 - time.Date(y1, m1, 32, 0, 0, 0, 0, time.UTC).Day()
		day += inMonth
		month--
	}
	if month < 0 {
		month += 12
		year--
	}
	return ints(year, month, day, hour, minute, sec), nil
}
