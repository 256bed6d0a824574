package exec

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// compiler turns statements into ops.
type compiler struct {
	ctx     context.Context
	seen    int // statements
	options Options
	program *Program
	// prepared is what is made of the constants of calls.
	prepared *builtin.Preparation
	strings  []string
	files    []string
	// collect is the array that an answer would be put into.
	collect ir.Local
	errs    []error
	// fixed is set if no with statement replaces data, or a part of it: what is
	// looked up there is known now.
	fixed bool

	// deepest is the depth of the deepest function that a dynamic call may call.
	deepest int

	// Of the function that is being compiled.
	name      string
	twoValues string // the message of a conflict
	locals    int
	depth     int
	saves     map[ir.Local]int // hidden locals, by the local that a document is saved in
	region    *region
	regionsOf map[*ir.Block]*region
	kept      map[string]*kept
	loops     int               // around what is being compiled
	changed   map[ir.Local]bool // documents that a with statement replaces
	shared    map[ir.Local]bool // parameters and result
}

func (c *compiler) errorf(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

func (c *compiler) begin(name string, blocks []*ir.Block, params []ir.Local) {
	c.name, c.depth = name, 0
	c.locals = c.countLocals(blocks)
	_, path, _ := strings.Cut(name, ".")
	c.twoValues = "rule " + path + " produced conflicting values"
	if c.options.Functions[path] {
		c.twoValues = "function " + path + " produced conflicting values for the same inputs"
	}
	c.shared = map[ir.Local]bool{}
	for _, p := range params {
		c.locals = max(c.locals, int(p)+1)
		c.shared[p] = true
	}
	c.refuseUnbound(blocks)
	c.shareExposed(blocks)
	c.kept, c.changed = map[string]*kept{}, map[ir.Local]bool{}
	c.regionsOf = map[*ir.Block]*region{}
	for _, b := range blocks {
		c.visit(b, func(s ir.Stmt) {
			if with, ok := s.(*ir.WithStmt); ok {
				c.changed[with.Local] = true
			}
		})
	}
}

// refuseUnbound refuses what reads a variable that nothing has given a value.
// OPA's compiler (v1.22.2) does not find all of these: it lets an expression pass
// that also has a comprehension with a variable from outside. OPA's evaluator
// fails there; in its plan, the variable is a local that is undefined, or has what
// another rule has left in it.
func (c *compiler) refuseUnbound(blocks []*ir.Block) {
	for _, b := range blocks {
		if s, ok := onlyBlocks(b); ok {
			c.refuseUnbound(s.Blocks)
			continue
		}
		if takesOver(b) {
			continue
		}
		bound := map[ir.Local]bool{}
		c.visit(b, func(s ir.Stmt) {
			uses(s, func(l ir.Local) {
				if !bound[l] && !c.shared[l] && !asksFor(s, l) {
					bound[l] = true // once is enough
					at := c.fault(s.GetLocation(), "", "")
					c.errs = append(c.errs, &Unsupported{
						Unsafe: true, File: at.File, Row: at.Row, Message: "a variable without a value",
						Hint: "is its name spelled as it is where it gets its value?",
					})
				}
			})
			defs(s, func(l ir.Local) { bound[l] = true })
		})
	}
}

// takesOver recognizes the block that makes a rule's result the function's.
func takesOver(b *ir.Block) bool {
	if len(b.Stmts) != 2 {
		return false
	}
	defined, ok := b.Stmts[0].(*ir.IsDefinedStmt)
	assign, once := b.Stmts[1].(*ir.AssignVarOnceStmt)
	return ok && once && isLocal(assign.Source, defined.Source)
}

// asksFor reports whether a statement reads a local only to see whether it has a
// value.
func asksFor(s ir.Stmt, l ir.Local) bool {
	switch s := s.(type) {
	case *ir.IsDefinedStmt, *ir.IsUndefinedStmt:
		return true
	case *ir.AssignVarOnceStmt:
		return s.Target == l
	}
	return false
}

func (c *compiler) plan(p *ir.Plan) {
	c.begin("", p.Blocks, []ir.Local{ir.Input, ir.Data})
	blocks := c.regions(p.Blocks)
	steps := int64(0)
	for _, b := range p.Blocks {
		steps += weight(b)
	}
	c.program.main = func(m *machine, l []value.Value) int {
		if err := m.meter.Step(steps); err != nil {
			return m.fail(err)
		}
		for _, b := range blocks {
			if r := b(m, l); r < 0 {
				return r
			}
		}
		return next
	}
	c.program.locals = c.locals
}

// planAnswers compiles, for each answer, the block that would put it into its
// array.
func (c *compiler) planAnswers(p *ir.Plan) {
	c.begin("", p.Blocks, []ir.Local{ir.Input, ir.Data})
	c.program.answers = make([]op, len(c.options.Answers))
	if len(p.Blocks) != 1 {
		c.errorf("plan for answers has %d blocks", len(p.Blocks))
		return
	}
	stmts := p.Blocks[0].Stmts
	found := make([]bool, len(c.options.Answers))
	collected := map[ir.Local]*ir.BlockStmt{} // by array
	same := map[ir.Local]ir.Local{}
	for i, s := range stmts {
		switch s := s.(type) {
		case *ir.MakeArrayStmt:
			if i+1 < len(stmts) {
				if block, ok := stmts[i+1].(*ir.BlockStmt); ok && len(block.Blocks) == 1 {
					collected[s.Target] = block
				}
			}
		case *ir.AssignVarStmt:
			if l, ok := s.Source.Value.(ir.Local); ok {
				same[s.Target] = l
			}
		case *ir.ObjectInsertStmt:
			name, ok := s.Key.Value.(ir.StringIndex)
			if !ok {
				continue
			}
			array, _ := s.Value.Value.(ir.Local)
			for from, ok := same[array]; ok; from, ok = same[array] {
				array = from
			}
			i, block := slices.Index(c.options.Answers, c.strings[name]), collected[array]
			if i < 0 || block == nil {
				c.errorf("plan for answers has %s in another way", c.strings[name])
				continue
			}
			c.collect = array
			c.enter(block.Blocks[0])
			c.saves = map[ir.Local]int{}
			found[i] = true
			steps, answer := weight(block.Blocks[0]), c.block(block.Blocks[0]).run
			if answer == nil {
				continue // undefined, whatever the input
			}
			c.program.answers[i] = func(m *machine, l []value.Value) int {
				if err := m.meter.Step(steps); err != nil {
					return m.fail(err)
				}
				return answer(m, l)
			}
		}
	}
	c.collect = 0
	for i, ok := range found {
		if !ok {
			c.errorf("plan has no answer %s", c.options.Answers[i])
		}
	}
	c.program.locals = c.locals
}

// shareExposed notes the locals that a region reads before it sets them: another
// one has set them.
func (c *compiler) shareExposed(blocks []*ir.Block) {
	for _, b := range blocks {
		if s, ok := onlyBlocks(b); ok {
			c.shareExposed(s.Blocks)
			continue
		}
		set := map[ir.Local]bool{}
		c.visit(b, func(s ir.Stmt) {
			uses(s, func(l ir.Local) {
				if !set[l] {
					c.shared[l] = true
				}
			})
			defs(s, func(l ir.Local) { set[l] = true })
		})
	}
}

// regions compiles the blocks of a function, each of which is a rule's: locals
// have another meaning in each. The blocks of a rule with else branches stand in
// one block, and are regions, too.
func (c *compiler) regions(blocks []*ir.Block) []op {
	ops := make([]op, 0, len(blocks))
	for _, b := range blocks {
		ops = append(ops, c.regionOf(b))
	}
	return ops
}

func (c *compiler) regionOf(b *ir.Block) op {
	if s, ok := onlyBlocks(b); ok {
		return blockOp(c.regions(s.Blocks))
	}
	c.enter(b)
	c.saves = map[ir.Local]int{}
	return c.block(b).op()
}

func onlyBlocks(b *ir.Block) (*ir.BlockStmt, bool) {
	if len(b.Stmts) != 1 {
		return nil, false
	}
	s, ok := b.Stmts[0].(*ir.BlockStmt)
	return s, ok && len(s.Blocks) > 1
}

// blockOp runs blocks one after the other.
func blockOp(blocks []op) op {
	if len(blocks) == 1 {
		b := blocks[0]
		return func(m *machine, l []value.Value) int { return leave(b(m, l)) }
	}
	return func(m *machine, l []value.Value) int {
		for _, b := range blocks {
			if r := b(m, l); r != next && r != undefined {
				return leave(r)
			}
		}
		return next
	}
}

// leave turns what a block gave into what the statement that it stands in gives.
func leave(r int) int {
	if r > 0 {
		return r - 1
	}
	return r
}

// sequence runs ops until one does not go on to the next.
func sequence(ops []op) op {
	switch len(ops) {
	case 0:
		return func(*machine, []value.Value) int { return next }
	case 1:
		return ops[0]
	case 2:
		a, b := ops[0], ops[1]
		return func(m *machine, l []value.Value) int {
			if r := a(m, l); r != next {
				return r
			}
			return b(m, l)
		}
	case 3:
		a, b, c := ops[0], ops[1], ops[2]
		return func(m *machine, l []value.Value) int {
			if r := a(m, l); r != next {
				return r
			}
			if r := b(m, l); r != next {
				return r
			}
			return c(m, l)
		}
	}
	return func(m *machine, l []value.Value) int {
		for _, o := range ops {
			if r := o(m, l); r != next {
				return r
			}
		}
		return next
	}
}

func (c *compiler) fault(l *ir.Location, code, message string) *Error {
	e := &Error{Code: code, Message: message, Row: l.Row, Col: l.Col}
	if l.File < len(c.files) {
		e.File = c.files[l.File]
	}
	if e.File == "<query>" {
		e.File, e.Query = "", string(l.Text)
	}
	return e
}

func (c *compiler) unsupported(l *ir.Location, what, hint string) {
	at := c.fault(l, "", "")
	c.errs = append(c.errs, &Unsupported{File: at.File, Row: at.Row, Message: what, Hint: hint})
}

// conflict is the error of a rule or function with two values.
func (c *compiler) conflict(l *ir.Location) *Error {
	return c.fault(l, conflictError, c.twoValues)
}

func (c *compiler) keyConflict(l *ir.Location) *Error {
	return c.fault(l, conflictError, "object keys must be unique")
}

var errUnknownStatement = errors.New("unknown statement in a plan")
