package builtin_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// compareWith returns a function that compares calls with OPA's.
func compareWith() func(t *testing.T, name string, args ...value.Value) {
	diffs := map[string]*diff{}
	return func(t *testing.T, name string, args ...value.Value) {
		if diffs[name] == nil {
			diffs[name] = newDiff(t, name)
		}
		diffs[name].call(t, rand.New(rand.NewPCG(uint64(len(args)), 3)), args)
	}
}

func FuzzGlobs(f *testing.F) {
	for _, pattern := range []string{"", "a*", "*.b", "a.*.c", "**a*b", "{a*,b}c", "[!a-c]?", "{,a}{a,}a", `\*\`, "*{*0,}", "[a", "{a", "a}b,c", "[]", "[!]", "[a-", "{{a,b},c}*", "é*?", "{**,a}.*"} {
		f.Add(pattern, ".", "a.b.c")
	}
	compare := compareWith()
	f.Fuzz(func(t *testing.T, pattern, delimiters, text string) {
		if len(text) > 40 || strings.Count(pattern, "*")+strings.Count(pattern, "{") > 7 {
			t.Skip("OPA may not come back")
		}
		list := value.NewArray()
		for _, d := range delimiters {
			list.Append(value.Text(string(d)))
		}
		compare(t, "glob.match", value.Text(pattern), list, value.Text(text))
		compare(t, "glob.match", value.Text(pattern), value.NullValue, value.Text(text))
		compare(t, "glob.quote_meta", value.Text(pattern))
	})
}

func FuzzRegularExpressions(f *testing.F) {
	for _, pattern := range []string{"", "a*", "(a|b)+c", `^\w+$`, "(?i)[a-z]{2,3}", "(?P<n>a)(b)?", "(", `\pL`, "a**", "[[:alpha:]]", `\bx`, "(?m)^a$", "<a+>b"} {
		f.Add(pattern, "ab xé\nA", "$1-${n}", int8(-1))
	}
	compare := compareWith()
	f.Fuzz(func(t *testing.T, pattern, text, template string, n int8) {
		if len(pattern) > 200 || len(text) > 500 || len(template) > 50 {
			t.Skip("too long")
		}
		p, s, r := value.Text(pattern), value.Text(text), value.Text(template)
		compare(t, "regex.is_valid", p)
		compare(t, "regex.match", p, s)
		compare(t, "regex.find_n", p, s, value.Int(int64(n)))
		compare(t, "regex.find_all_string_submatch_n", p, s, value.Int(int64(n)))
		compare(t, "regex.split", p, s)
		compare(t, "regex.replace", s, p, r)
		compare(t, "regex.template_match", p, s, value.Text("<"), value.Text(">"))
	})
}

func FuzzGlobsThatMeet(f *testing.F) {
	f.Add("a*b", "a+b")
	f.Add(".*[a-c]", `\.x[b]`)
	compare := compareWith()
	f.Fuzz(func(t *testing.T, a, b string) {
		if len(a) > 20 || len(b) > 20 {
			t.Skip("OPA may not come back")
		}
		compare(t, "regex.globs_match", value.Text(a), value.Text(b))
	})
}

func FuzzNetworks(f *testing.F) {
	f.Add("10.0.0.0/8", "10.1.2.3")
	f.Add("::ffff:10.0.0.0/104", "10.0.0.1/32")
	f.Add("2001:db8::/32", "2001:db8::%eth0/64")
	f.Add("::/0", "::ffff:1.2.3.4/08")
	f.Add("010.0.0.1/24", "1.2.3.4/+8")
	compare := compareWith()
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := value.Text(a), value.Text(b)
		compare(t, "net.cidr_contains", x, y)
		compare(t, "net.cidr_intersects", x, y)
		compare(t, "net.cidr_is_valid", x)
		compare(t, "net.cidr_merge", value.NewArray(x, y))
		compare(t, "net.cidr_contains_matches", value.NewArray(x, y), value.SetOf(x, y))
	})
}

func FuzzFormats(f *testing.F) {
	f.Add("%s %d %v", "a", int64(1), 1.5)
	f.Add("%[2]*.[1]*f|%-08x|%+q", "é", int64(-3), 1e21)
	f.Add("%!%%%", "\xff", int64(1), 0.0)
	compare := compareWith()
	f.Fuzz(func(t *testing.T, format, text string, i int64, x float64) {
		if strings.Contains(format, "p") {
			t.Skip("OPA may show an address")
		}
		n := value.Int(i)
		if x == x && x-x == 0 {
			n = value.Float(x)
		}
		compare(t, "sprintf", value.Text(format), value.NewArray(value.Text(text), value.Int(i), n, value.SetOf(value.Text(text), n)))
		compare(t, "sprintf", value.Text(format), value.NewArray(n, value.NumberText("123456789012345678901234567890"), value.Text(text)))
		compare(t, "units.parse", value.Text(format))
		compare(t, "units.parse_bytes", value.Text(format))
		compare(t, "semver.compare", value.Text(format), value.Text(text))
		compare(t, "to_number", value.Text(format))
	})
}

func FuzzTexts(f *testing.F) {
	f.Add("a,b,é", ",", "\xff", int8(1), int8(-1))
	f.Add("\xe2\x82\xac\xe2\x82", "\ufffd", "", int8(0), int8(2))
	compare := compareWith()
	f.Fuzz(func(t *testing.T, a, b, c string, i, j int8) {
		x, y, z := value.Text(a), value.Text(b), value.Text(c)
		for _, name := range []string{"startswith", "endswith", "contains", "indexof", "indexof_n", "strings.count", "split", "trim", "trim_left", "trim_right", "trim_prefix", "trim_suffix", "lt", "equal"} {
			compare(t, name, x, y)
		}
		for _, name := range []string{"lower", "upper", "trim_space", "strings.reverse"} {
			compare(t, name, x)
		}
		compare(t, "substring", x, value.Int(int64(i)), value.Int(int64(j)))
		compare(t, "strings.split_n", x, y, value.Int(int64(i)))
		compare(t, "replace", x, y, z)
		pairs := value.NewObject(2)
		pairs.Insert(y, z)
		pairs.Insert(z, y)
		compare(t, "strings.replace_n", pairs, x)
		list := value.NewArray(y, z, x)
		compare(t, "concat", y, list)
		compare(t, "strings.any_prefix_match", x, value.NewArray(y, z))
		compare(t, "strings.any_suffix_match", list, value.SetOf(y, z))
	})
}
