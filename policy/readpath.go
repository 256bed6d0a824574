package policy

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// ReadPath leads from the input of a policy to a value in it that the policy may
// read, with all that is below it. The empty path is the whole input.
type ReadPath []Step

// Step is one step of a [ReadPath]: into a member of an object, or an element of
// an array. Steps are comparable.
type Step struct {
	// Name of the member.
	Name string
	// Element says that it is an element instead, the one at Index, from 0. Name
	// is "" then, and otherwise Index is 0.
	Element bool
	Index   int64
}

// Compare orders paths step by step, elements before members.
func (p ReadPath) Compare(q ReadPath) int { return slices.CompareFunc(p, q, Step.compare) }

func (s Step) compare(t Step) int {
	switch {
	case s.Element && t.Element:
		return cmp.Compare(s.Index, t.Index)
	case s.Element:
		return -1
	case t.Element:
		return 1
	}
	return cmp.Compare(s.Name, t.Name)
}

// String writes the path as Rego does: input.list[0].id, input["two words"].
func (p ReadPath) String() string {
	var b strings.Builder
	b.WriteString("input")
	for _, s := range p {
		switch {
		case s.Element:
			b.WriteString("[" + strconv.FormatInt(s.Index, 10) + "]")
		case isIdentifier(s.Name):
			b.WriteString("." + s.Name)
		default:
			b.WriteString("[" + strconv.Quote(s.Name) + "]")
		}
	}
	return b.String()
}

func isIdentifier(s string) bool {
	for i, r := range s {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}
