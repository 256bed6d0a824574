package front

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
)

// TooCostly is the error of source that is not compiled or planned because it
// might take too long, or too much memory.
type TooCostly struct {
	// File and Line of the worst of it; "" and 0 if no place is worse than the
	// others.
	File string
	Line int
	// Message says what there is too much of, and how much there may be.
	Message string
	// Hint says what to write instead.
	Hint string
}

// Error returns "file:line: message (hint)".
func (t *TooCostly) Error() string {
	s := t.Message
	switch {
	case t.File != "" && t.Line > 0:
		s = fmt.Sprintf("%s:%d: %s", t.File, t.Line, s)
	case t.File != "":
		s = t.File + ": " + s
	}
	if t.Hint != "" {
		s += " (" + t.Hint + ")"
	}
	return s
}

func tooCostly(at *ast.Location, hint, format string, args ...any) *TooCostly {
	t := &TooCostly{Message: fmt.Sprintf(format, args...), Hint: hint}
	if at != nil {
		t.File, t.Line = at.File, at.Row
	}
	return t
}
