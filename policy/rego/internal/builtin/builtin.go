// Package builtin has the built-in functions of Rego: those that authorization
// policies use run natively on package value's values, all others are called in
// OPA with conversion at the border. Whatever a function gives, an error
// included, is what OPA gives.
//
// Every function is charged for before it starts, by the sizes of its operands;
// those that may run long look at the meter while they run. None reads the clock
// or the host except through its [Call].
package builtin

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// Call is what a built-in has of the evaluation that calls it.
type Call struct {
	// Meter that the call is charged to.
	*budget.Meter
	// Host makes what OPA's own built-ins may know of the evaluation and of the
	// host; it is called at the first call of one of them. If it is nil they know
	// nothing: no clock, no randomness, no network. Its Context must be set.
	Host func() *topdown.BuiltinContext
	// Location of the call, for OPA's built-ins that tell it; may be nil.
	Location *ast.Location
	// Watch is told what a test does besides computing values; nil in a decision.
	Watch *Watch

	opa       *topdown.BuiltinContext
	preparing bool
	walk      *globWalk
}

// Func computes a built-in. The undefined Value is the result of one that is
// undefined for its operands; a relation gives the array of its results. It must
// not keep args. An error is an [*Error], or the meter's.
type Func func(c *Call, args []value.Value) (value.Value, error)

// Builtin is one built-in function.
type Builtin struct {
	Name string
	Func Func
	// Total says that it cannot fail, whatever its operands are (of its arity),
	// other than by its budget.
	Total bool
	// bind returns a Func for calls whose operands at the positions that binds lists
	// are constants, nil if there is nothing to prepare. Its error is that of such a
	// call, or the meter's. It is nil where it helps nothing.
	bind  func(c *Call, consts []value.Value) (Func, error)
	binds []int
}

// Error codes, as OPA has them.
const (
	TypeError    = "eval_type_error"
	BuiltinError = "eval_builtin_error"
)

// Error is why a built-in failed.
type Error struct {
	// Code is TypeError or BuiltinError.
	Code string
	// Message as OPA words it, with the name of the built-in in front.
	Message string
	// Halts says that it ends the evaluation even where an error of a built-in
	// only makes the call undefined.
	Halts bool
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// fail returns an error of kind BuiltinError.
func fail(name, format string, args ...any) error {
	return &Error{Code: BuiltinError, Message: name + ": " + fmt.Sprintf(format, args...)}
}

var native = index(comparisons, typing, arithmetic, bitwise, numbering, texts, affixes, formatting, regexes, globbing, networks, semanticVersions, measures,
	aggregates, totals, arrays, setOperations, objects, graphs, walking, jsonTexts, jsonPaths, encodings, times, watched)

// index finds built-ins by their names.
func index(lists ...[]*Builtin) map[string]*Builtin {
	byName := map[string]*Builtin{}
	for _, list := range lists {
		for _, b := range list {
			byName[b.Name] = b
		}
	}
	return byName
}

// Find returns the built-in of a name: a native one, or else OPA's.
func Find(name string) (*Builtin, bool) {
	if b, ok := native[name]; ok {
		return b, true
	}
	return bridge(name)
}
