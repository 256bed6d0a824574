package builtin

import (
	"fmt"
	"strings"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// typeError returns an error of kind TypeError.
func typeError(name, format string, args ...any) error {
	return &Error{Code: TypeError, Message: name + ": " + fmt.Sprintf(format, args...)}
}

// wrongType says that the operand at a position, counted from 1, is not of a
// type that was expected.
func wrongType(name string, position int, got value.Value, expected ...string) error {
	if len(expected) == 1 {
		return typeError(name, "operand %d must be %s but got %s", position, expected[0], got.Kind())
	}
	return typeError(name, "operand %d must be one of {%s} but got %s", position, strings.Join(expected, ", "), got.Kind())
}

// wrongElement says that an operand holds an element that is not of a type that
// was expected.
func wrongElement(name string, position int, composite, got value.Value, expected ...string) error {
	c := composite.Kind()
	if len(expected) == 1 {
		return typeError(name, "operand %d must be %s of %ss but got %s containing %s", position, c, expected[0], c, got.Kind())
	}
	return typeError(name, "operand %d must be %s of (any of) {%s} but got %s containing %s", position, c, strings.Join(expected, ", "), c, got.Kind())
}

// integer returns an operand that must be a whole number, as OPA spells one.
func integer(name string, position int, v value.Value) (int64, error) {
	if v.Kind() != value.Number {
		return 0, wrongType(name, position, v, "number")
	}
	i, ok := v.PlainInt64()
	if !ok {
		return 0, typeError(name, "operand %d must be integer number but got floating-point number", position)
	}
	return i, nil
}
