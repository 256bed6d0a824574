package builtin

import (
	"strings"
	"unicode/utf8"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// texts are the functions on strings. Where OPA counts characters, a byte that
// is not UTF-8 is one.
var texts = []*Builtin{
	{Name: "startswith", Func: startsWith},
	{Name: "endswith", Func: endsWith},
	{Name: "contains", Func: contains},
	{Name: "strings.count", Func: stringsCount},
	{Name: "strings.reverse", Func: stringsReverse},
	{Name: "lower", Func: transform("lower", strings.ToLower)},
	{Name: "upper", Func: transform("upper", strings.ToUpper)},
	{Name: "trim", Func: trim("trim", strings.Trim)},
	{Name: "trim_left", Func: trim("trim_left", strings.TrimLeft)},
	{Name: "trim_right", Func: trim("trim_right", strings.TrimRight)},
	{Name: "trim_prefix", Func: cut("trim_prefix", strings.TrimPrefix)},
	{Name: "trim_suffix", Func: cut("trim_suffix", strings.TrimSuffix)},
	{Name: "trim_space", Func: transform("trim_space", strings.TrimSpace)},
	{Name: "substring", Func: substring},
	{Name: "indexof", Func: indexOf},
	{Name: "indexof_n", Func: indexOfN},
	{Name: "concat", Func: concat},
	{Name: "split", Func: split},
	{Name: "strings.split_n", Func: splitN},
	{Name: "replace", Func: replace},
	{Name: "strings.replace_n", Func: replaceN, binds: []int{0}, bind: bindReplaceN},
}

// textOf returns an operand that must be a string.
func textOf(name string, position int, v value.Value) (string, error) {
	if v.Kind() != value.String {
		return "", wrongType(name, position, v, "string")
	}
	return v.Text(), nil
}

// twoTexts returns the first two operands, which must be strings.
func twoTexts(name string, args []value.Value) (a, b string, err error) {
	if a, err = textOf(name, 1, args[0]); err == nil {
		b, err = textOf(name, 2, args[1])
	}
	return a, b, err
}

func startsWith(c *Call, args []value.Value) (value.Value, error) {
	s, prefix, err := twoTexts("startswith", args)
	if err != nil {
		return value.Value{}, err
	}
	return value.Boolean(strings.HasPrefix(s, prefix)), c.Step(1 + textSteps(len(prefix)))
}

func endsWith(c *Call, args []value.Value) (value.Value, error) {
	s, suffix, err := twoTexts("endswith", args)
	if err != nil {
		return value.Value{}, err
	}
	return value.Boolean(strings.HasSuffix(s, suffix)), c.Step(1 + textSteps(len(suffix)))
}

func contains(c *Call, args []value.Value) (value.Value, error) {
	s, part, err := twoTexts("contains", args)
	if err != nil {
		return value.Value{}, err
	}
	if err := c.block(1 + int64(len(s))/4); err != nil {
		return value.Value{}, err
	}
	return value.Boolean(strings.Contains(s, part)), nil
}

func stringsCount(c *Call, args []value.Value) (value.Value, error) {
	s, part, err := twoTexts("strings.count", args)
	if err != nil {
		return value.Value{}, err
	}
	if err := c.block(1 + int64(len(s))/8); err != nil {
		return value.Value{}, err
	}
	return value.Int(int64(strings.Count(s, part))), nil
}

// transform makes a string of a string.
func transform(name string, f func(string) string) Func {
	return func(c *Call, args []value.Value) (value.Value, error) {
		s, err := textOf(name, 1, args[0])
		if err != nil {
			return value.Value{}, err
		}
		if err := c.block(1 + int64(len(s))/4); err != nil {
			return value.Value{}, err
		}
		if result := f(s); result != s {
			return value.Text(result), c.Bytes(int64(len(result)))
		}
		return args[0], nil
	}
}

func trim(name string, f func(s, cutset string) string) Func {
	return func(c *Call, args []value.Value) (value.Value, error) {
		s, cutset, err := twoTexts(name, args)
		if err != nil {
			return value.Value{}, err
		}
		steps := 1 + int64(len(s)+len(cutset))/8
		if !isASCII(cutset) { // every character that goes is looked for in it
			steps += int64(len(s)) * (1 + textSteps(len(cutset)))
		}
		if err := c.block(steps); err != nil {
			return value.Value{}, err
		}
		return value.Text(f(s, cutset)), nil
	}
}

func cut(name string, f func(s, part string) string) Func {
	return func(c *Call, args []value.Value) (value.Value, error) {
		s, part, err := twoTexts(name, args)
		if err != nil {
			return value.Value{}, err
		}
		return value.Text(f(s, part)), c.Step(1 + textSteps(len(part)))
	}
}

func stringsReverse(c *Call, args []value.Value) (value.Value, error) {
	s, err := textOf("strings.reverse", 1, args[0])
	if err != nil {
		return value.Value{}, err
	}
	if err := c.block(1 + int64(len(s))/4); err != nil {
		return value.Value{}, err
	}
	if err := c.Bytes(2 * int64(len(s))); err != nil {
		return value.Value{}, err
	}
	reversed := make([]byte, len(s))
	at := len(s)
	for len(s) > 0 {
		_, n := utf8.DecodeRuneInString(s)
		at -= n
		copy(reversed[at:], s[:n])
		s = s[n:]
	}
	return value.Text(string(reversed)), nil
}

func substring(c *Call, args []value.Value) (value.Value, error) {
	const name = "substring"
	s, err := textOf(name, 1, args[0])
	if err != nil {
		return value.Value{}, err
	}
	offset, err := integer(name, 2, args[1])
	if err != nil {
		return value.Value{}, err
	}
	length, err := integer(name, 3, args[2])
	if err != nil {
		return value.Value{}, err
	}
	if offset < 0 {
		return value.Value{}, fail(name, "negative offset")
	}
	if err := c.block(1 + int64(len(s))/8); err != nil {
		return value.Value{}, err
	}
	if isASCII(s) {
		s = s[min(offset, int64(len(s))):]
		if length >= 0 {
			s = s[:min(length, int64(len(s)))]
		}
		return value.Text(s), nil
	}
	if offset == 0 && length >= int64(utf8.RuneCountInString(s)) {
		return args[0], nil
	}
	if s, err = c.characters(s); err != nil {
		return value.Value{}, err
	}
	s = s[skip(s, offset):]
	if length >= 0 {
		s = s[:skip(s, length)]
	}
	return value.Text(s), nil
}

// skip returns how many bytes the first n characters take.
func skip(s string, n int64) int {
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// characters returns a string with every byte that is not UTF-8 made U+FFFD, which
// is what OPA does with a string that it takes apart.
func (c *Call) characters(s string) (string, error) {
	if utf8.ValidString(s) {
		return s, nil
	}
	if err := c.Bytes(3 * int64(len(s))); err != nil {
		return "", err
	}
	if err := c.block(int64(len(s))); err != nil {
		return "", err
	}
	return string([]rune(s)), nil
}

// searched returns the operands of a search by characters.
func searched(c *Call, name string, args []value.Value) (s, part string, err error) {
	if s, part, err = twoTexts(name, args); err != nil {
		return "", "", err
	}
	if part == "" {
		return "", "", fail(name, "empty search character")
	}
	if err = c.block(1 + int64(len(s)+len(part))/4); err != nil {
		return "", "", err
	}
	if s, err = c.characters(s); err == nil {
		part, err = c.characters(part)
	}
	return s, part, err
}

func indexOf(c *Call, args []value.Value) (value.Value, error) {
	s, part, err := searched(c, "indexof", args)
	if err != nil {
		return value.Value{}, err
	}
	before, _, found := strings.Cut(s, part)
	if !found {
		return value.Int(-1), nil
	}
	return value.Int(int64(utf8.RuneCountInString(before))), nil
}

// indexOfN finds parts that overlap, too.
func indexOfN(c *Call, args []value.Value) (value.Value, error) {
	s, part, err := searched(c, "indexof_n", args)
	if err != nil {
		return value.Value{}, err
	}
	_, width := utf8.DecodeRuneInString(part)
	list := value.NewArray()
	for at := int64(0); ; at++ {
		i := strings.Index(s, part)
		if i < 0 {
			return list, nil
		}
		if err := c.Work(1+textSteps(len(part)), elemBytes); err != nil {
			return value.Value{}, err
		}
		at += int64(utf8.RuneCountInString(s[:i]))
		list.Append(value.Int(at))
		s = s[i+width:]
	}
}

func concat(c *Call, args []value.Value) (value.Value, error) {
	const name = "concat"
	delimiter, err := textOf(name, 1, args[0])
	if err != nil {
		return value.Value{}, err
	}
	list := args[1]
	if k := list.Kind(); k != value.Array && k != value.Set {
		return value.Value{}, wrongType(name, 2, list, "set", "array")
	}
	members, err := c.scan(list)
	if err != nil {
		return value.Value{}, err
	}
	size := len(delimiter) * max(list.Len()-1, 0)
	for _, e := range members.All() {
		if e.Kind() != value.String {
			return value.Value{}, wrongElement(name, 2, list, e, "string")
		}
		if err := c.Step(1); err != nil {
			return value.Value{}, err
		}
		size += len(e.Text())
	}
	if err := c.Work(textSteps(size), int64(size)); err != nil {
		return value.Value{}, err
	}
	var b strings.Builder
	b.Grow(size)
	var key, e value.Value
	for first := true; members.Next(&key, &e); first = false {
		if list.Len() == 1 {
			return e, nil
		}
		if !first {
			b.WriteString(delimiter)
		}
		b.WriteString(e.Text())
	}
	return value.Text(b.String()), nil
}

func split(c *Call, args []value.Value) (value.Value, error) {
	s, delimiter, err := twoTexts("split", args)
	if err != nil {
		return value.Value{}, err
	}
	n, err := c.parts(s, delimiter)
	if err != nil {
		return value.Value{}, err
	}
	list := make([]value.Value, 0, n)
	if n > 1 || delimiter == "" {
		for part := range strings.SplitSeq(s, delimiter) {
			list = append(list, value.Text(part))
		}
		return value.NewArray(list...), nil
	}
	return value.NewArray(append(list, args[0])...), nil
}

// parts counts the parts of a string that is about to be split, and charges for
// them.
func (c *Call) parts(s, delimiter string) (int, error) {
	if err := c.block(1 + int64(len(s))/8); err != nil {
		return 0, err
	}
	n := strings.Count(s, delimiter) + 1
	return n, c.Work(4*int64(n), int64(n)*elemBytes)
}

// splitN gives the first n parts, or with a negative n the last ones.
func splitN(c *Call, args []value.Value) (value.Value, error) {
	const name = "strings.split_n"
	s, delimiter, err := twoTexts(name, args)
	if err != nil {
		return value.Value{}, err
	}
	n, err := integer(name, 3, args[2])
	if err != nil {
		return value.Value{}, err
	}
	if _, err := c.parts(s, delimiter); err != nil {
		return value.Value{}, err
	}
	parts := strings.Split(s, delimiter)
	if n >= 0 {
		parts = parts[:min(n, int64(len(parts)))]
	} else {
		parts = parts[max(int64(len(parts))+n, 0):]
	}
	list := make([]value.Value, len(parts))
	for i, part := range parts {
		list[i] = value.Text(part)
	}
	return value.NewArray(list...), nil
}
