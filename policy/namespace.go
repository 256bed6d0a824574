package policy

import (
	"strings"
)

// MaxLabels is how many labels a namespace has at most.
const MaxLabels = 8

const maxLabelLen = 63

// Namespace is what one team owns: a dotted path such as "boutique.cart". Its
// first label is the name of the trust domain that it belongs to. The zero
// value is no namespace.
//
// A label is 1 to 63 characters of a-z, 0-9 and "-", and neither starts nor
// ends with "-"; there are at most [MaxLabels] labels. Namespaces are compared
// label by label: "a.bc" is not below "a.b".
type Namespace string

// ParseNamespace returns s as a namespace, or a [BadRequest] error that says
// what is wrong with it.
func ParseNamespace(s string) (Namespace, error) {
	if s == "" {
		return "", Errorf(BadRequest, "namespace is empty; name one, for instance \"boutique.cart\"")
	}
	if len(s) > MaxLabels*(maxLabelLen+1) {
		return "", Errorf(BadRequest, "namespace is %d characters long; it has at most %d labels of %d characters", len(s), MaxLabels, maxLabelLen)
	}
	labels := 0
	for rest, more := s, true; more; {
		var label string
		label, rest, more = strings.Cut(rest, ".")
		labels++
		if !validLabel(label) {
			return "", Errorf(BadRequest, "namespace %q: label %q must be 1 to %d characters of a-z, 0-9 and -, not starting or ending with -", s, label, maxLabelLen)
		}
	}
	if labels > MaxLabels {
		return "", Errorf(BadRequest, "namespace %q has %d labels; at most %d are allowed", s, labels, MaxLabels)
	}
	return Namespace(s), nil
}

func validLabel(l string) bool {
	if l == "" || len(l) > maxLabelLen || l[0] == '-' || l[len(l)-1] == '-' {
		return false
	}
	for i := range len(l) {
		if c := l[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// Domain returns the first label: the name of the trust domain.
func (n Namespace) Domain() string {
	domain, _, _ := strings.Cut(string(n), ".")
	return domain
}

// Parent returns the namespace without its last label, and "" for a namespace
// of one label.
func (n Namespace) Parent() Namespace {
	i := strings.LastIndexByte(string(n), '.')
	if i < 0 {
		return ""
	}
	return n[:i]
}

// Ancestors returns every namespace above n, the outermost first, without n.
func (n Namespace) Ancestors() []Namespace {
	var above []Namespace
	for i := range len(n) {
		if n[i] == '.' {
			above = append(above, n[:i])
		}
	}
	return above
}

// Within reports whether n is ancestor or lies below it.
func (n Namespace) Within(ancestor Namespace) bool {
	rest, ok := strings.CutPrefix(string(n), string(ancestor))
	return ok && ancestor != "" && (rest == "" || rest[0] == '.')
}
