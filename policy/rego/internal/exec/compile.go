package exec

import (
	"errors"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// compiler turns statements into ops.
type compiler struct {
	options Options
	program *Program
	strings []string
	files   []string
	answers map[ir.Local]int
	errs    []error

	// Of the function that is being compiled.
	name   string
	locals int
	depth  int
	saves  map[ir.Local]int // hidden locals, by the local that a document is saved in
	region *region
	shared map[ir.Local]bool // parameters and result
}

func (c *compiler) errorf(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

func (c *compiler) begin(name string, blocks []*ir.Block, params []ir.Local) {
	c.name, c.depth, c.saves = name, 0, map[ir.Local]int{}
	c.locals = countLocals(blocks)
	c.shared = map[ir.Local]bool{}
	for _, p := range params {
		c.locals = max(c.locals, int(p)+1)
		c.shared[p] = true
	}
}

func (c *compiler) function(fn *function, f *ir.Func) {
	c.begin(f.Name, f.Blocks, append(f.Params, f.Return))
	blocks := c.regions(f.Blocks)
	fn.body = func(m *machine, l []value.Value) int {
		for _, b := range blocks {
			if r := b(m, l); r < 0 {
				return r
			}
		}
		return next
	}
	fn.locals, fn.depth = c.locals, c.locals+c.depth
}

func (c *compiler) plan(p *ir.Plan) (op, int) {
	c.begin("", p.Blocks, []ir.Local{ir.Input, ir.Data})
	blocks := c.regions(p.Blocks)
	return func(m *machine, l []value.Value) int {
		for _, b := range blocks {
			if r := b(m, l); r < 0 {
				return r
			}
		}
		return next
	}, c.locals
}

// regions compiles the blocks of a function, each of which is a rule's: locals
// have another meaning in each. The blocks of a rule with else branches stand in
// one block, and are regions, too.
func (c *compiler) regions(blocks []*ir.Block) []op {
	ops := make([]op, 0, len(blocks))
	for _, b := range blocks {
		if s, ok := onlyBlocks(b); ok {
			ops = append(ops, blockOp(c.regions(s.Blocks)))
			continue
		}
		c.region = newRegion(c, b)
		ops = append(ops, c.block(b))
	}
	return ops
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

func (c *compiler) findAnswers(p *ir.Plan) {
	for _, b := range p.Blocks {
		for i, s := range b.Stmts {
			make, ok := s.(*ir.MakeArrayStmt)
			if !ok || i+1 >= len(b.Stmts) {
				continue
			}
			if _, ok := b.Stmts[i+1].(*ir.BlockStmt); ok {
				c.answers[make.Target] = len(c.answers)
			}
		}
	}
}

func (c *compiler) fault(l *ir.Location, code, message string) *Error {
	e := &Error{Code: code, Message: message, Row: l.Row, Col: l.Col}
	if l.File < len(c.files) {
		e.File = c.files[l.File]
	}
	if e.File == "<query>" {
		e.File = ""
	}
	return e
}

// conflict is the error of a rule or function with two values.
func (c *compiler) conflict(l *ir.Location) *Error {
	_, path, _ := strings.Cut(c.name, ".")
	if c.options.IsFunction != nil && c.options.IsFunction(path) {
		return c.fault(l, conflictError, "function "+path+" produced conflicting values for the same inputs")
	}
	return c.fault(l, conflictError, "rule "+path+" produced conflicting values")
}

func (c *compiler) keyConflict(l *ir.Location) *Error {
	return c.fault(l, conflictError, "object keys must be unique")
}

var errUnknownStatement = errors.New("unknown statement in a plan")
