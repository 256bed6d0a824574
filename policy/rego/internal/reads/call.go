package reads

import (
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// How many combinations of arguments a function is run for. Beyond the first
// limit its arguments are no longer told apart by constants, beyond the second
// they are read, but for an unchanged input.
const (
	maxConstants = 32
	maxCalls     = 128
	// maxSteps is how many statements are run before all functions are at their
	// second limit.
	maxSteps = 2_000_000
)

// functions are those of a policy.
type functions struct {
	byName map[string]*function
	// byPath is the functions by the length of the path under which a dynamic call
	// finds them, and its first element.
	byPath map[string][]*function
	// dynamic is the results of dynamic calls, by path and arguments.
	dynamic map[string]value
}

// A function and what came of running it.
type function struct {
	*ir.Func
	usual *call            // with nothing but the input and data, as they are
	calls map[string]*call // with other arguments
}

// A call is a function run on one combination of arguments.
type call struct {
	done   bool
	result value
	at     *ir.Location // of the statement that assigns the result
}

func newFunctions(p *ir.Policy) functions {
	fs := functions{byName: map[string]*function{}, byPath: map[string][]*function{}, dynamic: map[string]value{}}
	if p.Funcs == nil {
		return fs
	}
	for _, f := range p.Funcs.Funcs {
		fn := &function{Func: f}
		fs.byName[f.Name] = fn
		if len(f.Path) > 0 {
			head := head(f.Path[0], len(f.Path))
			fs.byPath[head] = append(fs.byPath[head], fn)
		}
	}
	return fs
}

func head(first string, length int) string { return strconv.Itoa(length) + " " + first }

func (a *analysis) call(s *ir.CallStmt) value {
	fn, ok := a.funcs.byName[s.Func]
	if !ok {
		return a.builtin(s)
	}
	args := make([]value, len(s.Args))
	for i, arg := range s.Args {
		args[i] = a.operand(arg)
	}
	return a.enter(fn, args)
}

// builtin reads all arguments of a built-in.
func (a *analysis) builtin(s *ir.CallStmt) value {
	if s.Func == "object.get" && len(s.Args) == 3 {
		return a.objectGet(a.operand(s.Args[0]), a.operand(s.Args[1]), a.operand(s.Args[2]))
	}
	for _, arg := range s.Args {
		if v := a.operand(arg); v != known {
			a.read(v, argumentOf(s.Func))
		}
	}
	return known
}

// objectGet is the built-in object.get. With a constant path it walks down that
// path. It is an error if object is no object. The walk sees that: either it goes
// on by a member, or it ends there and has to tell the type.
func (a *analysis) objectGet(object, path, otherwise value) value {
	keys, ok := a.path(path)
	if !ok {
		const why = "is an argument of object.get"
		a.read(path, why)
		return a.merge(a.read(object, why), a.defined(otherwise))
	}
	found := object
	for _, k := range keys {
		found = a.lookup(found, k)
	}
	return a.merge(found, a.defined(otherwise))
}

// callDynamic calls all functions whose path may be the one that is computed.
func (a *analysis) callDynamic(s *ir.CallDynamicStmt) value {
	path := make([]Key, len(s.Path)) // the zero Key, which is no string, for any string
	for i, o := range s.Path {
		if keys, ok := a.keys(a.operand(o)); ok && len(keys) == 1 {
			path[i] = keys[0]
		} else {
			a.read(a.operand(o), "is used as a key")
		}
	}
	args := make([]value, len(s.Args))
	for i, l := range s.Args {
		args[i] = a.get(l)
	}
	if len(path) == 0 || path[0].Kind != String {
		return a.everything() // the planner begins with a constant
	}

	var b strings.Builder
	for _, k := range path {
		b.WriteString(strconv.Itoa(int(k.Kind)) + strconv.Quote(k.Text))
	}
	b.Write(tuple(args))
	if result, ok := a.funcs.dynamic[b.String()]; ok {
		return result
	}
	result := none
	for _, fn := range a.funcs.byPath[head(path[0].Text, len(path))] {
		if matches(fn.Path, path) {
			result = a.merge(result, a.enter(fn, args))
		}
	}
	result = a.defined(result)
	a.funcs.dynamic[b.String()] = result
	return result
}

func matches(path []string, pattern []Key) bool {
	for i, k := range pattern {
		if k != (Key{}) && (k.Kind != String || k.Text != path[i]) {
			return false
		}
	}
	return true
}

// enter runs a function, unless it was run with these arguments before, and
// returns its result.
func (a *analysis) enter(fn *function, args []value) value {
	for len(args) > len(fn.Params) {
		a.read(args[len(args)-1], "is an argument too many")
		args = args[:len(args)-1]
	}
	for len(args) < len(fn.Params) {
		args = append(args, known)
	}
	c := fn.find(args, a.input.value)
	if c == nil {
		args = a.limit(fn, args)
		c = fn.find(args, a.input.value)
	}
	switch {
	case c == nil:
		c = fn.add(args, a.input.value)
		f := a.newFrame(fn.Func)
		a.run(f, fn.Blocks, fn.Params, args)
		c.done, c.result, c.at = true, a.defined(f.result), f.resultAt
		a.spare = append(a.spare, f)
	case !c.done:
		// A function that calls itself. No policy compiles to that, but what a
		// dynamic call finds is only known to be one of several.
		a.widen(a.input, "is an argument of a function that calls itself")
		return known
	}
	if a.frame.answers != nil && c.at != nil {
		for src := range a.of(c.result) {
			if src.kind == fromInput {
				a.frame.answers[src.node] = c.at
			}
		}
	}
	return c.result
}

// limit returns arguments that tell less apart when a function was run for many
// combinations.
func (a *analysis) limit(fn *function, args []value) []value {
	n := len(fn.calls)
	if n < maxConstants && a.steps < maxSteps {
		return args
	}
	limited := make([]value, len(args))
	for i, arg := range args {
		limited[i] = a.plain(arg)
		if (n >= maxCalls || a.steps >= maxSteps) && (i > 0 || arg != a.input.value) {
			limited[i] = a.read(arg, "is an argument of a function that is called in too many ways")
		}
	}
	return limited
}

func (fn *function) find(args []value, input value) *call {
	if usual(args, input) {
		return fn.usual
	}
	return fn.calls[string(tuple(args))]
}

func (fn *function) add(args []value, input value) *call {
	c := &call{}
	if usual(args, input) {
		fn.usual = c
		return c
	}
	if fn.calls == nil {
		fn.calls = map[string]*call{}
	}
	fn.calls[string(tuple(args))] = c
	return c
}

func usual(args []value, input value) bool {
	return len(args) == 2 && args[0] == input && args[1] == known
}

func tuple(args []value) []byte {
	var key []byte
	for _, arg := range args {
		key = binary.LittleEndian.AppendUint32(key, uint32(arg))
	}
	return key
}

// argumentOf says what a value is used for, in an author's words: nobody writes
// the built-in behind `in` or `<`.
func argumentOf(name string) string {
	if b := ast.BuiltinMap[name]; b != nil && b.Infix != "" {
		return "is an operand of `" + b.Infix + "`"
	}
	return "is an argument of " + name
}
