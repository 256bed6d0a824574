package builtin_test

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// maker makes the operands of a call that has a chance to get past the first
// checks.
type maker struct{ *rand.Rand }

func one[T any](m maker, list ...T) T { return list[m.IntN(len(list))] }

// makers of operands, by the beginning of a built-in's name. Beside these, the
// operands that the declared types allow are tried.
var makers = map[string]func(m maker, name string) []value.Value{
	"regex.":     regexOperands,
	"re_match":   regexOperands,
	"glob.":      globOperands,
	"net.":       cidrOperands,
	"semver.":    semverOperands,
	"sprintf":    formatOperands,
	"units.":     unitOperands,
	"to_number":  func(m maker, _ string) []value.Value { return []value.Value{value.Text(m.numeral())} },
	"format_int": func(m maker, _ string) []value.Value { return []value.Value{m.number(), one(m, radixes...)} },
	"strings.":   stringOperands,
	"replace":    stringOperands,
	"trim":       stringOperands,
	"index":      stringOperands,
	"substring":  stringOperands,
	"split":      stringOperands,
	"lower":      stringOperands,
	"upper":      stringOperands,
	"plus":       numberOperands,
	"minus":      numberOperands,
	"mul":        numberOperands,
	"div":        numberOperands,
	"rem":        numberOperands,
	"round":      numberOperands,
	"ceil":       numberOperands,
	"floor":      numberOperands,
	"abs":        numberOperands,
	"bits.":      numberOperands,
	"gt":         numberOperands,
	"lte":        numberOperands,
	"neq":        numberOperands,
	"internal.template_string": func(m maker, _ string) []value.Value {
		list := value.NewArray()
		for range m.IntN(4) {
			switch m.IntN(3) {
			case 0:
				list.Append(value.Text(m.text()))
			case 1:
				list.Append(value.SetOf(m.number()))
			case 2:
				list.Append(value.SetOf(one(m, value.NewArray(m.number(), value.Text(m.text())), value.Text(m.text()))))
			}
		}
		return []value.Value{list}
	},
}

// arity of the built-ins whose operands the makers make in a row.
func arity(name string) int {
	switch name {
	case "bits.negate", "round", "ceil", "floor", "abs", "strings.reverse", "lower", "upper", "trim_space":
		return 1
	case "substring", "replace", "strings.split_n":
		return 3
	}
	return 2
}

func (m maker) join(n int, parts ...string) string {
	var b strings.Builder
	for range m.IntN(n + 1) {
		b.WriteString(one(m, parts...))
	}
	return b.String()
}

func (m maker) text() string {
	return m.join(6, "a", "b", "ab", "A", "é", "日", "\xff", "\xe2\x82", "\ufffd", "🙂", " ", "\n", ".", "-", "ß", "İ", "x")
}

var radixes = []value.Value{value.Int(2), value.Int(8), value.Int(10), value.Int(16), value.Int(7), value.NumberText("10.0")}

func (m maker) numeral() string {
	digits := func(n int) string { return m.join(n, "0", "1", "9", "5", "12", "00", "99999") }
	switch m.IntN(8) {
	case 0:
		return one(m, "0", "-0", "0.0", "-0.0", "-0e0", "0e5", "1", "-1", "1.0", "1e0", "10e-1", "2147483647", "2147483648", "-2147483648", "-2147483649",
			"9223372036854775807", "-9223372036854775808", "9223372036854775808", "-9223372036854775809", "18446744073709551615", "18446744073709551616",
			"4611686018427387904", "3037000500", "-3037000500", "0.5", "-0.5", "1.5", "2.5", "1e-30", "1e30", "1e19", "1.7976931348623157e308", "5e-324", "1e400")
	case 1:
		return one(m, "+1", ".5", "1.", "-.5", "01", "0x1p4", "0x_1p4", "Inf", "-inf", "nan", "1e400", "1e", "", " 1", "1_0", "+", "0x10", "1e+5", "infinity", "+-nan", "1E5", "1e99999")
	case 2:
		return one(m, "", "-") + "1" + digits(10)
	case 3:
		return one(m, "", "-") + "1" + digits(3) + "." + digits(4) + "1"
	case 4:
		return one(m, "", "-") + "1" + digits(2) + "." + digits(2) + "0e" + one(m, "", "+", "-") + one(m, "0", "1", "5", "17", "18", "19", "25", "300")
	case 5:
		return one(m, "0.5", "0.1", "0.2", "0.3", "0.7", "2.675", "1.005", "100.0", "3.0", "33.333333333333336")
	}
	return one(m, "", "-") + one(m, "1", "2", "3", "7", "10", "64", "100", "4294967296", "9007199254740993")
}

// number is in JSON's grammar.
func (m maker) number() value.Value {
	for {
		text := m.numeral()
		if isJSONNumber(text) {
			return value.NumberText(text)
		}
	}
}

func isJSONNumber(text string) bool {
	digits := strings.TrimPrefix(text, "-")
	if digits == "" || digits[0] < '0' || digits[0] > '9' || len(digits) > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9' {
		return false
	}
	last := digits[len(digits)-1]
	return last >= '0' && last <= '9' && !strings.ContainsAny(text, "xX_ni") && !strings.Contains(text, ".e")
}

func numberOperands(m maker, name string) []value.Value {
	args := make([]value.Value, arity(name))
	for i := range args {
		args[i] = m.number()
	}
	if strings.HasSuffix(name, "sh") { // a shift by little
		args[1] = one(m, args[1], value.Int(int64(m.IntN(200)-1)), value.NumberText("3.0"))
	}
	return args
}

func stringOperands(m maker, name string) []value.Value {
	texts := func() value.Value {
		list := value.NewArray()
		for range m.IntN(12) {
			list.Append(value.Text(m.text()))
		}
		if m.IntN(2) == 0 {
			set := value.NewSet(0)
			for _, e := range list.All() {
				set.Add(e)
			}
			return set
		}
		return list
	}
	switch name {
	case "strings.any_prefix_match", "strings.any_suffix_match":
		return []value.Value{one(m, value.Text(m.text()+m.text()), texts()), one(m, value.Text(m.text()), texts())}
	case "strings.replace_n":
		pairs := value.NewObject(0)
		for range m.IntN(5) {
			pairs.Insert(value.Text(m.join(2, "a", "b", "é", "x", "")), value.Text(m.text()))
		}
		return []value.Value{pairs, value.Text(m.text() + m.text())}
	}
	args := make([]value.Value, arity(name))
	for i := range args {
		args[i] = value.Text(m.text())
	}
	if len(args) > 1 && m.IntN(2) == 0 {
		args[1] = value.Text(m.join(2, "a", "b", "é", "\xff", "\ufffd", ""))
	}
	switch name {
	case "substring":
		args[1], args[2] = value.Int(int64(m.IntN(12)-2)), one(m, value.Int(int64(m.IntN(12)-2)), value.Int(1<<62), value.NumberText("2.0"), value.NumberText("2e0"))
	case "strings.split_n":
		args[2] = value.Int(int64(m.IntN(8) - 3))
	}
	return args
}

func regexOperands(m maker, name string) []value.Value {
	pattern := m.join(6, "a", "b", ".", "a*", "(a|b)", "(?:ab)+", "[a-c]", "[^a]", `\b`, "^", "$", "(a)?", "(b*)", "é", "(?i)A", `\d`, "x{2,3}", "(?m)^", "(?m)$", `\pL`, "|", "(", "+", "(?P<n>a)", `\Qa.`, "a*?", `\xff`)
	text := m.text() + m.text()
	if m.IntN(10) == 0 { // too long for package regexp to find all in it at once
		text = strings.Repeat(text, 60) + m.text()
	}
	count := one(m, value.Int(-1), value.Int(int64(m.IntN(4))), value.NumberText("1.0"))
	switch name {
	case "regex.replace":
		return []value.Value{value.Text(text), value.Text(pattern), value.Text(m.join(3, "$1", "${1}x", "$0", "x", "$n", "$$", "é", "${"))}
	case "regex.find_n", "regex.find_all_string_submatch_n":
		return []value.Value{value.Text(pattern), value.Text(text), count}
	case "regex.template_match":
		template := m.join(5, "a", "b", "<a*>", "<.+>", "{[ab]}", "<", ">", "{x{2}}", "é", ".", "<(>")
		return []value.Value{value.Text(template), value.Text(text), value.Text(one(m, "<", "{", "<", "é", "", "|")), value.Text(one(m, ">", "}", ">", "xx", "|"))}
	case "regex.globs_match":
		glob := func() value.Value {
			return value.Text(m.join(6, "a", "b", "c", ".", "[ab]", "[a-c]", "a*", "b+", ".*", ".+", "[bc]*", `\*`, "[", "]", "-", "é", "x"))
		}
		return []value.Value{glob(), glob()}
	case "regex.is_valid":
		return []value.Value{value.Text(pattern)}
	}
	return []value.Value{value.Text(pattern), value.Text(text)}
}

func globOperands(m maker, name string) []value.Value {
	if name == "glob.quote_meta" {
		return []value.Value{value.Text(m.join(5, "a", "*", "?", "[", "]", "{", "}", `\`, ",", "!", "-", "é", "\xff"))}
	}
	pattern := m.join(7, "a", "b", "ab", "*", "**", "?", "[ab]", "[!a]", "[a-c]", "{a,b}", "{a*,b}", "{*,a}", "{,a}", "{", "}", ",", ".", "/", "é", `\*`, `\`, "[", "{a,{b,?}}", "\ufffd", "\xff")
	delimiters := value.NewArray()
	for range m.IntN(3) {
		delimiters.Append(value.Text(one(m, ".", "/", ":", "é", "\ufffd", "ab", "", "\xff")))
	}
	text := m.join(8, "a", "b", "ab", "c", ".", "/", "é", "*", "\xff", "\ufffd", "")
	return []value.Value{value.Text(pattern), one(m, value.NullValue, delimiters), value.Text(text)}
}

func elements(list value.Value) iter.Seq[value.Value] {
	return func(yield func(value.Value) bool) {
		for _, e := range list.All() {
			if !yield(e) {
				return
			}
		}
	}
}

func cidrOperands(m maker, name string) []value.Value {
	address := func() string {
		return one(m, "10.0.0.1", "10.0.0.0", "10.1.2.3", "0.0.0.0", "255.255.255.255", "192.168.0.1", "::", "::1", "2001:db8::1", "2001:db8::", "::ffff:10.0.0.1",
			"::ffff:0:0", "::fffe:0:0", "fe80::1%eth0", "010.0.0.1", "10.0.0", "1.2.3.4.5", "::ffff:1.2.3", "x", "", "::ffff:10.0.0.1%a", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
	}
	cidr := func() string {
		return address() + "/" + one(m, "0", "8", "16", "24", "31", "32", "33", "64", "80", "95", "96", "97", "120", "127", "128", "129", "08", "+8", "", "8x", "99999999999999999999")
	}
	small := func() string {
		return one(m, "10.0.0.1/", "255.255.255.255/", "x/", "10.0.0.1") + one(m, "28", "31", "32", "99")
	}
	if m.IntN(2) == 0 {
		small = func() string {
			return one(m, "::1/", "::ffff:10.0.0.1/", "2001:db8::ff/", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/") + one(m, "122", "124", "127", "128", "0")
		}
	}
	list := func() value.Value {
		elems := value.NewArray()
		for range m.IntN(4) {
			e := value.Text(one(m, cidr(), address()))
			elems.Append(one(m, e, e, e, value.NewArray(e, value.Int(1)), value.NewArray(), value.Int(1)))
		}
		return one(m, elems, elems, value.SetOf(), value.Text(cidr()))
	}
	switch name {
	case "net.cidr_expand":
		return []value.Value{value.Text(small())}
	case "net.cidr_is_valid":
		return []value.Value{value.Text(cidr())}
	case "net.cidr_intersects":
		return []value.Value{value.Text(cidr()), value.Text(cidr())}
	case "net.cidr_contains_matches":
		return []value.Value{list(), list()}
	case "net.cidr_merge":
		if m.IntN(4) == 0 {
			return []value.Value{list()}
		}
		near := value.NewArray() // networks that have to do with each other
		for range m.IntN(12) {
			address := fmt.Sprintf("10.0.%d.%d", m.IntN(2), m.IntN(8)*32)
			length := one(m, 24, 25, 26, 27, 29, 32)
			if m.IntN(3) == 0 {
				address, length = fmt.Sprintf("2001:db8::%x", m.IntN(16)), 120+m.IntN(9)
			}
			near.Append(value.Text(fmt.Sprintf("%s/%d", address, length)))
		}
		return []value.Value{one(m, near, near, near, value.SetOf(slices.Collect(elements(near))...))}
	}
	return []value.Value{value.Text(cidr()), value.Text(one(m, cidr(), address()))}
}

func semverOperands(m maker, name string) []value.Value {
	version := func() value.Value {
		if m.IntN(2) == 0 {
			return value.Text(one(m, "1.0.0", "1.0.1", "v1.2.3", "2.0.0", "1.10.0") + one(m, "", "", "-1", "-2", "-10", "-a", "-a.1", "-b-", "-rc.1.x") + one(m, "", "", "+a.b"))
		}
		return value.Text(one(m, "", "v", "V") + one(m, "1.0.0", "1.2.3", "1.10.0", "0.0.1", "01.0.0", "1.0", "1.0.0.0", "1..0", "9223372036854775807.0.0", "9223372036854775808.0.0", "+1.0.0") +
			m.join(1, "-alpha", "-alpha.1", "-alpha.beta", "-1", "-2", "-10", "-1.a", "-01", "-a..b", "-", "-a-b", "-é", "-99999999999999999999.a", "-99999999999999999998.b") + m.join(1, "+x", "+", "+a.b", "+é"))
	}
	if name == "semver.is_valid" {
		return []value.Value{version()}
	}
	return []value.Value{version(), version()}
}

func formatOperands(m maker, _ string) []value.Value {
	format := m.join(5, "%s", "%v", "%d", "%5d", "%-8s|", "%05.1f", "%x", "%q", "%+v", "%#v", "%t", "%%", "%", "%!", "é%s", "%[2]d", "%[1]*d", "%*d", "%.3s", "%c", "%U", "%e", "%g", "%b", "%o", "% x", "%T", "%é", " ", "%.*f", "%6.2f", "%[9]d", "%X", "%+q", "%#x", "%w")
	list := value.NewArray()
	for range m.IntN(5) {
		list.Append(one(m, m.number(), m.number(), value.Text(m.text()), value.True, value.NullValue, value.SetOf(value.Int(1), value.Text("a")), value.NewArray(m.number(), value.Text("é\"")), value.NewSet(0)))
	}
	return []value.Value{value.Text(format), list}
}

func unitOperands(m maker, _ string) []value.Value {
	return []value.Value{value.Text(one(m, m.numeral(), m.join(4, "1", "5", ".", "0", "12")) + m.join(1, "k", "K", "Ki", "kb", "KIB", "m", "M", "Mi", "mib", "g", "Gi", "t", "TB", "p", "Pi", "e", "E", "Ei", "eib", "x", " ", `"`, "e5", "E-3", "é", "e1000000", "e9999999", "kk"))}
}

func makerOf(name string) func(maker, string) []value.Value {
	for prefix, maker := range makers {
		if strings.HasPrefix(name, prefix) {
			return maker
		}
	}
	return nil
}

// made are the built-ins for which there is a maker.
func made() []string {
	var names []string
	for _, name := range builtin.Native() {
		if makerOf(name) != nil {
			names = append(names, name)
		}
	}
	return names
}

// TestTextAndNumberBuiltinsAreOPAs calls built-ins with operands that make sense
// to them, and to OPA.
func TestTextAndNumberBuiltinsAreOPAs(t *testing.T) {
	rounds := 20_000
	if testing.Short() {
		rounds = 1000
	}
	for _, name := range made() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, calls := newDiff(t, name), 0
			for seed := range uint64(rounds) {
				if skipped(seed) {
					continue
				}
				calls++
				m := maker{rand.New(rand.NewPCG(seed, 23))}
				d.call(t, m.Rand, makerOf(name)(m, name))
			}
			if d.results < calls/50 {
				t.Errorf("only %d of %d calls gave a result", d.results, calls)
			}
		})
	}
}

func FuzzTextAndNumberBuiltinsAreOPAs(f *testing.F) {
	names := made()
	for i := range names {
		f.Add(uint16(i), uint64(1), uint64(2))
	}
	diffs := map[string]*diff{}
	f.Fuzz(func(t *testing.T, which uint16, a, b uint64) {
		name := names[int(which)%len(names)]
		if diffs[name] == nil {
			diffs[name] = newDiff(t, name)
		}
		m := maker{rand.New(rand.NewPCG(a, b))}
		diffs[name].call(t, m.Rand, makerOf(name)(m, name))
	})
}
