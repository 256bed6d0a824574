package builtin

import (
	"slices"
	"unicode/utf8"

	"github.com/gobwas/glob"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// globbing are the functions on globs of github.com/gobwas/glob.
var globbing = []*Builtin{
	{Name: "glob.match", Func: globMatch, binds: []int{0, 1}, bind: bindGlobMatch},
	{Name: "glob.quote_meta", Func: globQuoteMeta},
}

var compiledGlobs = patterns[*globProgram]{compile: compileGlob}

func globMatch(c *Call, args []value.Value) (value.Value, error) {
	pattern, err := textOf("glob.match", 1, args[0])
	if err != nil {
		return value.Value{}, err
	}
	delimiters, err := delimitersOf(args[1])
	if err != nil {
		return value.Value{}, err
	}
	text, err := textOf("glob.match", 3, args[2])
	if err != nil {
		return value.Value{}, err
	}
	e, err := compiledGlobs.get(c, pattern, delimiters)
	if err != nil {
		return value.Value{}, err
	}
	if e.err != nil {
		return value.Value{}, fail("glob.match", "%v", e.err)
	}
	matched, err := e.value.match(c, text)
	return value.Boolean(matched), err
}

func bindGlobMatch(c *Call, consts []value.Value) (Func, error) {
	const name = "glob.match"
	pattern, err := textOf(name, 1, consts[0])
	if err != nil {
		return nil, err
	}
	delimiters, err := delimitersOf(consts[1])
	if err != nil {
		return nil, err
	}
	e, err := compiledGlobs.get(c, pattern, delimiters)
	if err != nil {
		return nil, err
	}
	if e.err != nil {
		return nil, fail(name, "%v", e.err)
	}
	program := e.value
	return func(c *Call, args []value.Value) (value.Value, error) {
		text, err := textOf(name, 3, args[2])
		if err != nil {
			return value.Value{}, err
		}
		matched, err := program.match(c, text)
		return value.Boolean(matched), err
	}, nil
}

// delimitersOf returns the characters that a star does not match: with null none,
// with an empty array the dot.
func delimitersOf(v value.Value) (string, error) {
	const name = "glob.match"
	switch v.Kind() {
	case value.Null:
		return "", nil
	case value.Array:
	default:
		return "", wrongType(name, 2, v, "array", "null")
	}
	if v.Len() == 0 {
		return ".", nil
	}
	var buf [16]byte
	delimiters := buf[:0]
	for i := range v.Len() {
		e := v.Elem(i)
		if e.Kind() != value.String {
			return "", wrongElement(name, 2, v, e, "string")
		}
		r, n := utf8.DecodeRuneInString(e.Text())
		if n == 0 || n != len(e.Text()) {
			return "", wrongElement(name, 2, v, e, "rune")
		}
		if v.Len() == 1 && r != utf8.RuneError {
			return e.Text(), nil
		}
		delimiters = utf8.AppendRune(delimiters, r)
	}
	return string(delimiters), nil
}

func globQuoteMeta(c *Call, args []value.Value) (value.Value, error) {
	text, err := textOf("glob.quote_meta", 1, args[0])
	if err != nil {
		return value.Value{}, err
	}
	if err := c.Bytes(4 * int64(len(text))); err != nil {
		return value.Value{}, err
	}
	if err := c.block(1 + int64(len(text))/4); err != nil {
		return value.Value{}, err
	}
	return value.Text(glob.QuoteMeta(text)), nil
}

// class is a character class of a glob: the characters from lo to hi, or those of
// a sorted list, or all others.
type class struct {
	lo, hi rune
	list   []rune
	not    bool
}

func (s *class) has(r rune) bool {
	in := s.lo <= r && r <= s.hi
	if s.list != nil {
		_, in = slices.BinarySearch(s.list, r)
	}
	return in != s.not
}
