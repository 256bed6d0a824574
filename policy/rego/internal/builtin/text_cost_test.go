package builtin_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// TestHostilePatterns calls built-ins with patterns, texts and numbers that are
// made to take long, in sizes up to what is refused.
func TestHostilePatterns(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long")
	}
	inChild(t, func(t *testing.T) {
		for _, tc := range hostilePatterns {
			fits := false
			for _, n := range []int{10, 100, 1000, 10_000, 30_000, 100_000, 1_000_000, 4_000_000} {
				args := tc.args(n)
				if !measure(t, fmt.Sprintf("%s, size %d", tc.does, n), tc.name, args...) {
					break
				}
				fits = true
			}
			if !fits {
				t.Errorf("%s: %s does not fit in the smallest size", tc.does, tc.name)
			}
		}
	})
}

var rep = strings.Repeat

func texts2(s ...string) []value.Value {
	list := make([]value.Value, len(s))
	for i := range s {
		list[i] = value.Text(s[i])
	}
	return list
}

// descending makes many different parts of a text.
func descending(n int, format string) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

var hostilePatterns = []struct {
	does, name string
	args       func(n int) []value.Value
}{
	{"folded ranges", "regex.match", func(n int) []value.Value { return texts2(`(?i)`+rep(`[C-\x{1e000}]`, n/13), "a") }},
	{"folded ranges", "regex.is_valid", func(n int) []value.Value { return texts2(`(?si)` + rep(`[C-𞀀]`, n/13)) }},
	{"Unicode classes", "regex.match", func(n int) []value.Value { return texts2(rep(`\pL`, n/3), "a") }},
	{"folded Unicode classes", "regex.match", func(n int) []value.Value { return texts2(`(?i)[`+rep(`\pL`, n/3+1)+`]`, "a") }},
	{"other Unicode classes", "regex.match", func(n int) []value.Value { return texts2(rep(`\PL`, n/3), "a") }},
	{"alternatives of classes", "regex.match", func(n int) []value.Value { return texts2(rep(`[a\pN]|`, n/7)+"x", "a") }},
	{"dots", "regex.match", func(n int) []value.Value { return texts2(rep(`.`, n), "a") }},
	{"dots and stars", "regex.match", func(n int) []value.Value { return texts2(rep(`.*`, n/2), rep("a", n)) }},
	{"assertions", "regex.match", func(n int) []value.Value { return texts2(rep(`^`, n), "a") }},
	{"assertions that repeat", "regex.match", func(n int) []value.Value { return texts2(rep(`^*`, n/2), "a") }},
	{"repetitions", "regex.match", func(n int) []value.Value { return texts2(rep(`a{1000}`, n/7), rep("a", n)) }},
	{"optional repetitions", "regex.match", func(n int) []value.Value { return texts2(rep(`(?:ab){0,500}`, n/13), rep("ab", n/2)) }},
	{"nested repetitions", "regex.match", func(n int) []value.Value { return texts2(`((a{0,10}){0,10}){0,10}b`, rep("a", n)) }},
	{"disjoint branches", "regex.match", func(n int) []value.Value {
		var b strings.Builder
		for r := rune(0x4e00); b.Len() < n; r += 40 {
			b.WriteString("[")
			for i := range rune(20) {
				b.WriteRune(r + 2*i)
			}
			b.WriteString("]x|")
		}
		return texts2("^(?:"+b.String()+"y)$", "a")
	}},
	{"branches", "regex.match", func(n int) []value.Value { return texts2(descending(n, "%dx|")+"y", rep("1", n)) }},
	{"empty branches", "regex.match", func(n int) []value.Value { return texts2(rep("(|a)*", n/5), rep("a", n)) }},
	{"groups", "regex.find_all_string_submatch_n", func(n int) []value.Value {
		return append(texts2(rep("()", min(n/2, 300))+"(a)", rep("a", n)), value.Int(-1))
	}},
	{"a match that looks at the whole text each time", "regex.find_n", func(n int) []value.Value {
		return append(texts2("a.*b|a", rep("a", n)), value.Int(-1))
	}},
	{"a match at each character", "regex.find_n", func(n int) []value.Value { return append(texts2("a", rep("a", n)), value.Int(-1)) }},
	{"an empty match at each character", "regex.split", func(n int) []value.Value { return texts2("", rep("é", n/2)) }},
	{"a match at each word", "regex.replace", func(n int) []value.Value { return texts2(rep("ab ", n/3), `\b`, "$0$0x") }},
	{"a template that grows", "regex.replace", func(n int) []value.Value { return texts2(rep("a", n), `.*`, rep("$0", n/2)) }},
	{"classes in a search", "regex.find_n", func(n int) []value.Value {
		return append(texts2(`(?i)[\pL\pN]+[^a-z]`, rep("é", n/2)), value.Int(-1))
	}},
	{"expressions in a template", "regex.template_match", func(n int) []value.Value {
		return texts2(descending(n, "<[a-z]{%d}>"), "a", "<", ">")
	}},
	{"a literal over a long text", "regex.match", func(n int) []value.Value { return texts2("b$", rep("a", n)) }},
	{"a fold over a long text", "regex.match", func(n int) []value.Value { return texts2("(?i)kkkkkb$", rep("k", n)) }},

	{"globs of stars", "regex.globs_match", func(n int) []value.Value { return texts2(rep("a*b*", n/4)+"c", rep("b*a*", n/4)+"d") }},
	{"globs of pluses", "regex.globs_match", func(n int) []value.Value { return texts2(rep(".+", n/2)+"c", rep("a+", n/2)+"d") }},
	{"globs of dots and stars", "regex.globs_match", func(n int) []value.Value { return texts2(rep(".*a", n/3)+"c", rep(".*b", n/3)+"d") }},
	{"sets written out", "regex.globs_match", func(n int) []value.Value { return texts2(rep("[a-\u0fff]", n/8+1), rep("[b-\u0ffe]", n/8+1)) }},

	{"stars", "glob.match", globArgs(func(n int) (string, string) { return rep("*a", min(n/2, 200)) + "b", rep("a", n) })},
	{"stars with a delimiter", "glob.match", globArgs(func(n int) (string, string) { return "**" + rep("*a", min(n/2, 30)) + "b", rep("a", n) + "." })},
	{"stars and no match", "glob.match", globArgs(func(n int) (string, string) { return rep("*a?", min(n/3, 50)) + "b", rep("ac", n/2) })},
	{"alternatives", "glob.match", globArgs(func(n int) (string, string) { return rep("{a,aa}", n/6) + "b", rep("a", n/4) })},
	{"nested alternatives", "glob.match", globArgs(func(n int) (string, string) { return rep("{a,", n/4) + rep("}", n/4) + "b", rep("a", n) })},
	{"many alternatives", "glob.match", globArgs(func(n int) (string, string) { return "*{" + descending(n, "x%d,") + "}b", rep("x1", n/2) })},
	{"stars in alternatives", "glob.match", globArgs(func(n int) (string, string) { return rep("{*a,*b,?}", min(n/9+1, 100)), rep("a", n) })},
	{"a long class", "glob.match", globArgs(func(n int) (string, string) { return "*[" + descending(n, "%d") + "]*x", rep("1", n) })},
	{"a long text for a star", "glob.match", globArgs(func(n int) (string, string) { return "*" + rep("a", n/2) + "*b", rep("a", n) })},

	{"a long needle", "contains", func(n int) []value.Value { return texts2(rep("a", n), rep("a", n/2)+"b") }},
	{"a long needle", "indexof", func(n int) []value.Value { return texts2(rep("é", n/2), rep("é", n/4)+"b") }},
	{"overlaps", "indexof_n", func(n int) []value.Value { return texts2(rep("a", n), rep("a", n/2)) }},
	{"a long cutset", "trim", func(n int) []value.Value { return texts2(rep("é", n/2), descending(n, "ab%d")+"é") }},
	{"capitals", "lower", func(n int) []value.Value { return texts2(rep("İ", n/2)) }},
	{"a long text", "strings.reverse", func(n int) []value.Value { return texts2(rep("é", n/2)) }},
	{"not UTF-8", "substring", func(n int) []value.Value { return append(texts2(rep("\xff", n)), value.Int(1), value.Int(int64(n))) }},
	{"many parts", "split", func(n int) []value.Value { return texts2(rep("a,", n/2), ",") }},
	{"characters", "split", func(n int) []value.Value { return texts2(rep("é", n/2), "") }},
	{"many replacements", "replace", func(n int) []value.Value { return texts2(rep("a", n), "a", "bcd") }},
	{"replacements of nothing", "replace", func(n int) []value.Value { return texts2(rep("a", n), "", "bcd") }},
	{"a long key", "replace", func(n int) []value.Value { return texts2(rep("a", n), rep("a", n/2)+"b", "") }},
	{"a key that begins everywhere", "strings.replace_n", func(n int) []value.Value {
		return []value.Value{object(rep("a", n/2)+"b", value.Text("")), value.Text(rep("a", n))}
	}},
	{"many keys", "strings.replace_n", func(n int) []value.Value {
		pairs := value.NewObject(0)
		for i := range n / 10 {
			pairs.Insert(value.Text(fmt.Sprintf("%c%d", 'a'+i%26, i)), value.Text("x"))
		}
		return []value.Value{pairs, value.Text(rep("abc1", n/4))}
	}},
	{"many prefixes", "strings.any_prefix_match", func(n int) []value.Value {
		list := value.NewArray()
		for i := range n / 4 {
			list.Append(value.Text(fmt.Sprint(i)))
		}
		return []value.Value{list, list}
	}},
	{"strings that print badly", "sprintf", func(n int) []value.Value {
		return []value.Value{value.Text("%v"), value.NewArray(value.NewArray(value.Text(rep("\x01", n))))}
	}},
	{"a verb for each byte", "sprintf", func(n int) []value.Value {
		return []value.Value{value.Text(rep("%[1]q", n/5)), value.NewArray(value.Text(rep("\x01", n/100)))}
	}},
	{"widths", "sprintf", func(n int) []value.Value {
		return []value.Value{value.Text(rep("%1000d", n/6)), value.NewArray(value.Int(1))}
	}},
	{"a large number", "sprintf", func(n int) []value.Value {
		return []value.Value{value.Text("%x"), value.NewArray(value.NumberText("1" + rep("7", n)))}
	}},
	{"a precise number", "sprintf", func(n int) []value.Value {
		return []value.Value{value.Text(fmt.Sprintf("%%.%df", n)), value.NewArray(value.NumberText("0.1"))}
	}},
	{"digits", "plus", func(n int) []value.Value {
		return []value.Value{value.NumberText("1" + rep("7", n)), value.NumberText("1" + rep("3", n))}
	}},
	{"digits", "mul", func(n int) []value.Value {
		return []value.Value{value.NumberText("1" + rep("7", n)), value.NumberText("1" + rep("3", n))}
	}},
	{"digits", "rem", func(n int) []value.Value {
		return []value.Value{value.NumberText("1" + rep("7", n)), value.NumberText("1" + rep("3", n/2))}
	}},
	{"digits of a fraction", "div", func(n int) []value.Value {
		return []value.Value{value.NumberText("1." + rep("7", n)), value.NumberText("0." + rep("3", n))}
	}},
	{"exponents", "mul", func(n int) []value.Value {
		return []value.Value{value.NumberText(fmt.Sprint("1.5e", n)), value.NumberText(fmt.Sprint("7e", n))}
	}},
	{"negative exponents", "plus", func(n int) []value.Value {
		return []value.Value{value.NumberText(fmt.Sprint("1.5e-", n)), value.NumberText(fmt.Sprint("7e-", n))}
	}},
	{"a large exponent", "floor", func(n int) []value.Value { return []value.Value{value.NumberText(fmt.Sprint("1.5e", n))} }},
	{"a shift", "bits.lsh", func(n int) []value.Value { return []value.Value{value.Int(1), value.Int(int64(n))} }},
	{"a large number", "bits.and", func(n int) []value.Value {
		return []value.Value{value.NumberText("-1" + rep("7", n)), value.NumberText("1" + rep("3", n))}
	}},
	{"digits", "to_number", func(n int) []value.Value { return texts2("1" + rep("7", n) + "e1") }},
	{"digits", "format_int", func(n int) []value.Value { return []value.Value{value.NumberText("1" + rep("7", n)), value.Int(2)} }},
	{"large steps", "numbers.range", func(n int) []value.Value {
		return []value.Value{value.NumberText("10000000000000000000"), value.NumberText(fmt.Sprintf("100000000000%08d", n))}
	}},
	{"a text that is no network", "net.cidr_contains", func(n int) []value.Value { return texts2(rep("1", n), "10.0.0.1") }},
	{"a text that is no address", "net.cidr_overlap", func(n int) []value.Value { return texts2("10.0.0.0/8", rep("\xff", n)) }},
	{"a text that is no network", "net.cidr_intersects", func(n int) []value.Value { return texts2("10.0.0.0/8", rep("1", n)) }},
	{"a text that is no network", "net.cidr_is_valid", func(n int) []value.Value { return texts2(rep("1", n)) }},
	{"a text that is no network", "net.cidr_expand", func(n int) []value.Value { return texts2(rep("1", n)) }},
	{"a text that is no network", "net.cidr_merge", func(n int) []value.Value { return []value.Value{value.NewArray(texts2(rep("1", n))...)} }},
	{"a text that is no network", "net.cidr_contains_matches", func(n int) []value.Value { return texts2(rep("1", n), "10.0.0.1") }},
	{"many zeros", "net.cidr_contains", func(n int) []value.Value { return texts2("10.0.0.0/"+rep("0", n)+"8", "10.0.0.1") }},
	{"networks", "net.cidr_contains_matches", func(n int) []value.Value {
		list := value.NewArray()
		for i := range n / 10 {
			list.Append(value.Text(fmt.Sprintf("10.%d.%d.%d/8", i%200, i/200%200, i/40_000)))
		}
		return []value.Value{list, list}
	}},
	{"addresses", "net.cidr_expand", func(n int) []value.Value { return texts2(fmt.Sprintf("2001:db8::/%d", 128-len(fmt.Sprint(n))*3)) }},
	{"identifiers", "semver.compare", func(n int) []value.Value {
		return texts2("1.0.0-"+rep("1.", n/2)+"1", "1.0.0-"+rep("1.", n/2)+"2")
	}},
}

func globArgs(of func(n int) (pattern, text string)) func(int) []value.Value {
	return func(n int) []value.Value {
		pattern, text := of(n)
		return []value.Value{value.Text(pattern), value.NewArray(), value.Text(text)}
	}
}
