package reads

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// A Kind is the type of a [Key].
type Kind uint8

// The types of keys, in the order in which keys are sorted. Of these, JSON has
// only numbers, in arrays, and strings, in objects.
const (
	Null Kind = iota
	Bool
	Number
	String
)

// A Key is one step of a [Path]: a constant and its type. Keys are equal if they
// are ==.
type Key struct {
	Kind Kind
	// Text is the string; the whole number in decimal, as in "0" or "-12"; "true"
	// or "false"; empty for null.
	Text string
}

// Index returns the number of a key that is one, and whether it is.
func (k Key) Index() (int64, bool) {
	if k.Kind != Number {
		return 0, false
	}
	n, err := strconv.ParseInt(k.Text, 10, 64)
	return n, err == nil
}

func (k Key) compare(other Key) int {
	if c := cmp.Compare(k.Kind, other.Kind); c != 0 {
		return c
	}
	if k.Kind == Number {
		a, _ := k.Index()
		b, _ := other.Index()
		return cmp.Compare(a, b)
	}
	return cmp.Compare(k.Text, other.Text)
}

// number returns the key for a number as it is spelled. Only the one usual
// spelling of a whole number of 64 bits is a key: what 1.0 or 1e0 find differs
// between arrays and objects.
func number(text string) (Key, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != text {
		return Key{}, false
	}
	return Key{Kind: Number, Text: text}, true
}

// A Path leads from the input to a value inside it. The empty path is the input
// itself.
type Path []Key

// String writes a path as Rego does: input.list[0].id, input["two words"].
func (p Path) String() string {
	var b strings.Builder
	b.WriteString("input")
	for _, k := range p {
		switch {
		case k.Kind == String && isName(k.Text):
			b.WriteString("." + k.Text)
		case k.Kind == String:
			b.WriteString("[" + strconv.Quote(k.Text) + "]")
		case k.Kind == Null:
			b.WriteString("[null]")
		default:
			b.WriteString("[" + k.Text + "]")
		}
	}
	return b.String()
}

func isName(s string) bool {
	for i, r := range s {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

func (p Path) compare(other Path) int { return slices.CompareFunc(p, other, Key.compare) }

func (p Path) hasPrefix(prefix Path) bool {
	return len(p) >= len(prefix) && slices.Equal(p[:len(prefix)], prefix)
}
