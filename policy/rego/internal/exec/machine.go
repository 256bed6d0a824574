package exec

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// op runs one statement, or a sequence of them, on a function's locals. Its
// result says where to go on: next, or how many blocks to leave, counted from
// the one that the statement stands in, or a negative signal that leaves all.
type op func(m *machine, l []value.Value) int

const (
	next = 0
	// undefined leaves the block that the statement stands in.
	undefined = 1
	// returned leaves the function; its result is in machine.result.
	returned = -1
	// failed leaves everything; the error is in machine.err.
	failed = -2
)

// machine is one evaluation. It belongs to one goroutine, and is used again for
// another evaluation of the same program.
type machine struct {
	program *Program
	meter   budget.Meter
	call    builtin.Call
	// stack holds the locals of the functions that are running. It is as long as
	// the longest chain of calls needs: the calls of a policy have no cycles.
	stack  []value.Value
	used   int         // of the stack, from its start
	result value.Value // of the function that has returned
	answer value.Value // of an answer's query
	err    error

	// args of the built-in that is being called.
	args [8]value.Value

	worlds []world
	world  int // the current one's index in worlds
	lastID int64

	found   []int32       // rules that indexes have found
	results []value.Value // of ResultSetAdd
	input   value.Input   // what an answer's input is read from
}

// world is what rules are computed in: an input and a data document, named by
// numbers that only this evaluation knows. A rule has one value in one world.
type world struct {
	input, data int64
	// memo of the world that an evaluation begins in, by the functions' index,
	// and what of it is in use.
	memo    []memo
	touched []int32
	// others is the memo of a world that a with statement makes: most functions
	// are not asked there.
	others map[int]value.Value
}

type memo struct {
	known bool
	value value.Value
}

func (p *Program) machine(ctx context.Context, l budget.Limits) *machine {
	m, ok := p.pool.Get().(*machine)
	if !ok {
		m = &machine{program: p, stack: make([]value.Value, p.stack)}
		m.worlds = append(m.worlds, world{memo: make([]memo, len(p.functions))})
	}
	m.meter.Reset(ctx, l)
	m.call = builtin.Call{Meter: &m.meter}
	if p.host != nil {
		m.call.Host = func() *topdown.BuiltinContext { return p.host(ctx) }
	}
	return m
}

// release gives a machine back, without anything of the evaluation left in it.
func (p *Program) release(m *machine) {
	clear(m.stack[:m.used])
	m.used = 0
	clear(m.args[:])
	m.input = value.Input{}
	m.call = builtin.Call{}
	m.results, m.found = nil, m.found[:0]
	m.result, m.answer, m.err = value.Value{}, value.Value{}, nil
	root := &m.worlds[0]
	for _, i := range root.touched {
		root.memo[i] = memo{}
	}
	root.touched = root.touched[:0]
	clear(m.worlds[1:])
	m.worlds, m.world, m.lastID = m.worlds[:1], 0, 0
	p.pool.Put(m)
}

// enter makes the world of an input and a data document the current one, and
// returns the one that it takes the place of.
func (m *machine) enter(input, data int64) (previous int) {
	previous = m.world
	for i := range m.worlds {
		if m.worlds[i].input == input && m.worlds[i].data == data {
			m.world = i
			return previous
		}
	}
	m.world = len(m.worlds)
	m.worlds = append(m.worlds, world{input: input, data: data})
	return previous
}

// leave goes back to a world. Those that were made since are never met again.
func (m *machine) leave(previous, count int) {
	clear(m.worlds[count:])
	m.worlds, m.world = m.worlds[:count], previous
}

// fresh returns a number for a document that was not there before.
func (m *machine) fresh() int64 {
	m.lastID++
	return m.lastID
}

func (m *machine) known(f *function) (value.Value, bool) {
	w := &m.worlds[m.world]
	if w.memo != nil {
		e := &w.memo[f.index]
		return e.value, e.known
	}
	v, ok := w.others[f.index]
	return v, ok
}

func (m *machine) remember(f *function, v value.Value) error {
	w := &m.worlds[m.world]
	if w.memo != nil {
		e := &w.memo[f.index]
		e.known, e.value = true, v
		w.touched = append(w.touched, int32(f.index))
		return nil
	}
	if err := m.meter.Bytes(2 * valueBytes); err != nil {
		return err
	}
	if w.others == nil {
		w.others = map[int]value.Value{}
	}
	w.others[f.index] = v
	return nil
}

// fail ends the evaluation.
func (m *machine) fail(err error) int {
	m.err = err
	return failed
}

// function is a rule or a function of the policy.
type function struct {
	index  int
	name   string
	params []int // locals
	locals int   // how many
	body   op
	// depth is how many locals a chain of calls from here needs at most.
	depth int
	// fails is set if an evaluation of it can end with an error.
	fails bool
	// rule is set for what depends on input and data alone.
	rule bool
	// called is set for what has arguments in the policy.
	called bool
}

// run computes f with its arguments, which stand in callee's parameters. It
// reports false if the evaluation failed.
func (f *function) run(m *machine, callee []value.Value) (value.Value, bool) {
	switch f.body(m, callee) {
	case failed:
		return value.Value{}, false
	case returned:
		return m.result, true
	}
	return value.Value{}, true
}

// frame returns the locals of a call of f from a function whose locals are l.
func (m *machine) frame(f *function, l []value.Value) []value.Value {
	callee := l[len(l) : len(l)+f.locals : cap(l)]
	start := len(m.stack) - cap(callee)
	if m.used > start { // behind what was used, the stack is clear
		clear(callee[:min(m.used-start, len(callee))])
	}
	m.used = max(m.used, start+len(callee))
	return callee
}

// Error is why an evaluation failed.
type Error struct {
	// Code as OPA has it, for instance "eval_builtin_error".
	Code    string
	Message string
	// Place in the policy; Row is 0 if there is none.
	File string
	Row  int
	Col  int
	// Query is the text of the expression, of one that stands in the query.
	Query string
	// Err is the built-in's own error, if there is one.
	Err error
}

func (e *Error) Error() string {
	text := e.Code + ": " + e.Message
	switch {
	case e.File != "" && e.Row > 0:
		return fmt.Sprintf("%s:%d: %s", e.File, e.Row, text)
	case e.Query != "":
		return e.Query + ": " + text
	case e.Row > 0:
		return fmt.Sprintf("%d:%d: %s", e.Row, e.Col, text)
	}
	return text
}

// between returns the conflict with the two values in its text.
func (e *Error) between(a, b value.Value) *Error {
	told := *e
	told.Message += ": " + brief(a) + " and " + brief(b)
	return &told
}

// brief returns a value as an error shows it.
func brief(v value.Value) string {
	if v.IsComposite() {
		return "another " + v.Kind().String()
	}
	const most = 100
	text := v.String()
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// Codes of errors that are not a built-in's.
const (
	conflictError = "eval_conflict_error"
	mergeError    = "eval_with_merge_error"
	internalError = "eval_internal_error"
)

type pool = sync.Pool
