package builtin

import (
	"strings"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

func replace(c *Call, args []value.Value) (value.Value, error) {
	const name = "replace"
	_, old, err := twoTexts(name, args)
	if err != nil {
		return value.Value{}, err
	}
	by, err := textOf(name, 3, args[2])
	if err != nil {
		return value.Value{}, err
	}
	if old == "" { // goes in between bytes, not characters
		return c.replaced(&replacer{Replacer: strings.NewReplacer(old, by), longest: 1}, args[0])
	}
	return c.replaceAll(args[0], old, by)
}

// replaceAll replaces one string, which is not empty.
func (c *Call) replaceAll(v value.Value, old, by string) (value.Value, error) {
	s := v.Text()
	if err := c.block(1 + int64(len(s))/8); err != nil {
		return value.Value{}, err
	}
	n := strings.Count(s, old)
	if n == 0 {
		return v, nil
	}
	size := int64(len(s)) + int64(n)*int64(len(by)-len(old))
	if err := c.Work(int64(n)+textSteps(int(size)), size); err != nil {
		return value.Value{}, err
	}
	return value.Text(strings.ReplaceAll(s, old, by)), nil
}

// replacer replaces several strings at once. Its own Replacer is nil if it is only
// one, for which package strings would take time quadratic in its length.
type replacer struct {
	*strings.Replacer
	longest int // of what it looks for
	old, by string
}

func replaceN(c *Call, args []value.Value) (value.Value, error) {
	r, err := newReplacer(c, args[0], args[1])
	if err != nil {
		return value.Value{}, err
	}
	return c.replaced(r, args[1])
}

func bindReplaceN(c *Call, consts []value.Value) (Func, error) {
	r, err := newReplacer(c, consts[0], value.Text(""))
	if err != nil {
		return nil, err
	}
	return func(c *Call, args []value.Value) (value.Value, error) {
		if _, err := textOf("strings.replace_n", 2, args[1]); err != nil {
			return value.Value{}, err
		}
		return c.replaced(r, args[1])
	}, nil
}

// newReplacer reads the pairs of an object in its order: where two of its keys
// match at a place, the first one is replaced.
func newReplacer(c *Call, pairs, s value.Value) (*replacer, error) {
	const name = "strings.replace_n"
	if pairs.Kind() != value.Object {
		return nil, wrongType(name, 1, pairs, "object")
	}
	if _, err := textOf(name, 2, s); err != nil {
		return nil, err
	}
	members, err := c.scan(pairs)
	if err != nil {
		return nil, err
	}
	r := &replacer{}
	list := make([]string, 0, 2*pairs.Len())
	var size int64
	for old, by := range members.All() {
		if old.Kind() != value.String {
			return nil, typeError(name, "operand 1 non-string key found in pattern object")
		}
		if by.Kind() != value.String {
			return nil, typeError(name, "operand 1 non-string value found in pattern object")
		}
		r.longest = max(r.longest, len(old.Text()))
		size += int64(len(old.Text()))
		list = append(list, old.Text(), by.Text())
	}
	// Every byte of a key may become a node, every key one with a table of the
	// bytes that occur in keys.
	if err := c.Bytes(128*size + 8*min(size, 256)*int64(len(list))); err != nil {
		return nil, err
	}
	if err := c.block(20*size + 20*int64(len(list))); err != nil {
		return nil, err
	}
	if len(list) == 2 && list[0] != "" {
		r.old, r.by = list[0], list[1]
		return r, nil
	}
	r.Replacer = strings.NewReplacer(list...)
	_ = r.Replace("") // it is made when it is used first
	return r, nil
}

// replaced replaces in a string.
func (c *Call) replaced(r *replacer, s value.Value) (value.Value, error) {
	if r.Replacer == nil {
		return c.replaceAll(s, r.old, r.by)
	}
	text := s.Text()
	if err := c.block(1 + int64(len(text))*(2+int64(r.longest)/64)/2); err != nil {
		return value.Value{}, err
	}
	w := sink{c: c}
	if _, err := r.WriteString(&w, text); err != nil {
		return value.Value{}, err
	}
	if result := w.String(); result != text {
		return value.Text(result), nil
	}
	return s, nil
}

// sink charges for what is written to it.
type sink struct {
	strings.Builder
	c *Call
}

func (w *sink) Write(p []byte) (int, error) {
	if err := w.c.Work(1+textSteps(len(p)), int64(len(p))); err != nil {
		return 0, err
	}
	return w.Builder.Write(p)
}

func (w *sink) WriteString(s string) (int, error) {
	if err := w.c.Work(1+textSteps(len(s)), int64(len(s))); err != nil {
		return 0, err
	}
	return w.Builder.WriteString(s)
}
