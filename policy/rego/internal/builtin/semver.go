package builtin

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// semanticVersions are the functions on versions of https://semver.org, 2.0.0. A
// version may begin with a v.
var semanticVersions = []*Builtin{
	{Name: "semver.compare", Func: semverCompare},
	{Name: "semver.is_valid", Func: semverIsValid, Total: true},
}

func semverCompare(c *Call, args []value.Value) (value.Value, error) {
	const name = "semver.compare"
	a, b, err := twoTexts(name, args)
	if err != nil {
		return value.Value{}, err
	}
	if err := c.block(1 + int64(len(a)+len(b))); err != nil {
		return value.Value{}, err
	}
	x, ok := parseSemver(a)
	if !ok {
		return value.Value{}, fail(name, "operand 1: string %s is not a valid SemVer", args[0])
	}
	y, ok := parseSemver(b)
	if !ok {
		return value.Value{}, fail(name, "operand 2: string %s is not a valid SemVer", args[1])
	}
	return value.Int(int64(x.compare(y))), nil
}

func semverIsValid(c *Call, args []value.Value) (value.Value, error) {
	if args[0].Kind() != value.String {
		return value.False, c.Step(1)
	}
	if err := c.block(1 + int64(len(args[0].Text()))); err != nil {
		return value.Value{}, err
	}
	_, ok := parseSemver(args[0].Text())
	return value.Boolean(ok), nil
}

// semver is a version without its metadata, which no comparison looks at.
type semver struct {
	numbers    [3]int64
	preRelease string
}

var semverIdentifiers = regexp.MustCompile(`^[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*$`)

func parseSemver(s string) (semver, bool) {
	var v semver
	s, metadata, ok := strings.Cut(strings.TrimPrefix(s, "v"), "+")
	if ok && !semverIdentifiers.MatchString(metadata) {
		return v, false
	}
	if s, v.preRelease, ok = strings.Cut(s, "-"); ok {
		if !semverIdentifiers.MatchString(v.preRelease) {
			return v, false
		}
		for id := range strings.SplitSeq(v.preRelease, ".") {
			if len(id) > 1 && id[0] == '0' && isDecimal(id) {
				return v, false
			}
		}
	}
	for i := range v.numbers {
		part, rest, more := strings.Cut(s, ".")
		n, err := strconv.ParseInt(part, 10, 64)
		if err != nil || !isDecimal(part) || part[0] == '0' && len(part) > 1 || more != (i < len(v.numbers)-1) {
			return v, false
		}
		v.numbers[i], s = n, rest
	}
	return v, true
}

func (v semver) compare(o semver) int {
	for i := range v.numbers {
		if order := cmp.Compare(v.numbers[i], o.numbers[i]); order != 0 {
			return order
		}
	}
	switch {
	case v.preRelease == o.preRelease:
		return 0
	case v.preRelease == "":
		return 1
	case o.preRelease == "":
		return -1
	}
	a, b := v.preRelease, o.preRelease
	for a != "" && b != "" {
		var x, y string
		x, a, _ = strings.Cut(a, ".")
		y, b, _ = strings.Cut(b, ".")
		if order := compareIdentifiers(x, y); order != 0 {
			return order
		}
	}
	// More identifiers come after fewer. What is beyond the range of numbers is all
	// the same, as it is in OPA, which never comes to an end where nothing else
	// differs.
	return cmp.Compare(len(a), len(b))
}

// compareIdentifiers orders numbers, which come first, by value.
func compareIdentifiers(a, b string) int {
	switch x, y := isDecimal(a), isDecimal(b); {
	case x && y:
		i, _ := strconv.Atoi(a) // out of range it is the largest
		j, _ := strconv.Atoi(b)
		return cmp.Compare(i, j)
	case x:
		return -1
	case y:
		return 1
	}
	return strings.Compare(a, b)
}

func isDecimal(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
