package reads

import (
	"fmt"
	"slices"
	"strings"
)

// A Set is the paths of the input that a policy may read, each with all that is
// below it. No path of a set is below another. A Set is immutable; nil is the
// empty set.
type Set struct {
	reads []Read // sorted by path
}

// A Read is one path of a [Set], and why it is there.
type Read struct {
	Path Path
	// File, Row and Col are where the statement stands that reads the value at
	// Path whole, the first one in the order of the plan. Rows and columns count
	// from 1, columns in bytes. File is "<query>" if only the query does.
	File     string
	Row, Col int
	// Why says what the statement does with the value, for instance "is iterated"
	// or "is an argument of count". It goes on from the path.
	Why string
}

// String is a line for an author: "authz.rego:12: input.subject is iterated".
func (r Read) String() string {
	return fmt.Sprintf("%s:%d: %v %s", r.File, r.Row, r.Path, r.Why)
}

// Reads returns the members of s, sorted by path. The caller may change the slice
// but not the paths.
func (s *Set) Reads() []Read {
	if s == nil {
		return nil
	}
	return slices.Clone(s.reads)
}

// Paths returns the paths of s, sorted: key by key, null before booleans before
// numbers before strings. The caller may change the slice but not the paths.
func (s *Set) Paths() []Path {
	if s == nil {
		return nil
	}
	paths := make([]Path, len(s.reads))
	for i, r := range s.reads {
		paths[i] = r.Path
	}
	return paths
}

// Whole reports whether s is the whole input.
func (s *Set) Whole() bool { return s.Contains(nil) }

// Contains reports whether all of the value at path is in s.
func (s *Set) Contains(path Path) bool {
	if s == nil {
		return false
	}
	for n := range len(path) + 1 {
		if _, found := s.find(path[:n]); found {
			return true
		}
	}
	return false
}

// Overlaps reports whether anything of the value at path is in s: whether the
// policy may read any of it.
func (s *Set) Overlaps(path Path) bool {
	if s == nil {
		return false
	}
	if s.Contains(path) {
		return true
	}
	i, _ := s.find(path)
	return i < len(s.reads) && s.reads[i].Path.hasPrefix(path)
}

func (s *Set) find(path Path) (int, bool) {
	return slices.BinarySearchFunc(s.reads, path, func(r Read, p Path) int { return r.Path.compare(p) })
}

// String lists the paths, separated by a comma and a blank; "nothing" if there
// are none.
func (s *Set) String() string {
	if s == nil || len(s.reads) == 0 {
		return "nothing"
	}
	texts := make([]string, len(s.reads))
	for i, r := range s.reads {
		texts[i] = r.Path.String()
	}
	return strings.Join(texts, ", ")
}
