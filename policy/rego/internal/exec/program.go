package exec

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ir"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// Program is a plan, compiled. It is immutable and safe for concurrent use.
type Program struct {
	functions []*function
	byName    map[string]*function
	dynamic   *names
	main      op
	answers   []op
	locals    int // of main, and of the answers
	stack     int
	data      value.Value
	strict    bool
	tried     []Tried
	host      func(context.Context) *topdown.BuiltinContext
	pool      pool
}

// Options of [Compile].
type Options struct {
	// Data is the base document.
	Data *value.Data
	// Strict makes an error of a built-in end the evaluation; without it, the
	// call is undefined.
	Strict bool
	// Answers are the variables of a query of the form `a = [x | x := ...]; b =
	// ...`, in the order in which [Program.Answer] is to have what stands in their
	// arrays. A program with answers has no results.
	Answers []string
	// Functions are the paths of functions, for instance "data.lib.f": all others
	// are rules'.
	Functions map[string]bool
	// Host makes what OPA's own built-ins may know of an evaluation and its host;
	// nil lets them know nothing.
	Host func(context.Context) *topdown.BuiltinContext
	// Find returns a built-in.
	Find func(name string) (*builtin.Builtin, bool)
}

// Compile turns a plan with one query into a Program. If ctx ends first, the error
// is its cause.
func Compile(ctx context.Context, p *ir.Policy, o Options) (program *Program, err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	defer func() {
		switch stop := recover().(type) {
		case nil:
		case interrupted:
			program, err = nil, stop.cause
		default:
			panic(stop)
		}
	}()
	if len(p.Plans.Plans) != 1 {
		return nil, fmt.Errorf("plan has %d queries instead of one", len(p.Plans.Plans))
	}
	c := &compiler{
		ctx: ctx, options: o, prepared: builtin.NewPreparation(ctx),
		program: &Program{byName: map[string]*function{}, dynamic: &names{}, data: o.Data.Value(), strict: o.Strict, host: o.Host},
	}
	for _, s := range p.Static.Strings {
		c.strings = append(c.strings, s.Value)
	}
	for _, f := range p.Static.Files {
		c.files = append(c.files, f.Value)
	}
	for i, f := range p.Funcs.Funcs {
		_, path, _ := strings.Cut(f.Name, ".")
		fn := &function{index: i, name: f.Name, rule: len(f.Params) == 2, called: o.Functions[path]}
		for _, param := range f.Params {
			fn.params = append(fn.params, int(param))
		}
		c.program.functions = append(c.program.functions, fn)
		c.program.byName[f.Name] = fn
		if f.Path != nil {
			c.program.dynamic.add(f.Path, fn)
		}
	}
	c.fixed = !c.replacesData(p)
	// OPA plans what a function calls before the function itself, so that depths
	// are known in this order.
	for i, f := range p.Funcs.Funcs {
		c.function(c.program.functions[i], f)
	}
	if plan := p.Plans.Plans[0]; len(o.Answers) > 0 {
		c.planAnswers(plan)
	} else {
		c.plan(plan)
	}
	c.program.stack = c.program.locals + c.depth
	if err := errors.Join(c.errs...); err != nil {
		return nil, err
	}
	return c.program, nil
}

// Tried returns the rules that an index cannot find, of functions that have many.
func (p *Program) Tried() []Tried { return p.tried }

// Unsupported is the error of a policy that OPA's plan does not say enough about.
type Unsupported struct {
	// Unsafe says that OPA's evaluator could not evaluate it either: a variable has
	// no value.
	Unsafe  bool
	File    string
	Row     int
	Message string
	Hint    string
}

func (u *Unsupported) Error() string {
	return fmt.Sprintf("%s:%d: %s cannot be evaluated (%s)", u.File, u.Row, u.Message, u.Hint)
}

// replacesData reports whether a with statement of a plan replaces data.
func (c *compiler) replacesData(p *ir.Policy) bool {
	replaces := false
	look := func(s ir.Stmt) {
		with, ok := s.(*ir.WithStmt)
		replaces = replaces || ok && with.Local == ir.Data
	}
	for _, f := range p.Funcs.Funcs {
		for _, b := range f.Blocks {
			c.visit(b, look)
		}
	}
	for _, q := range p.Plans.Plans {
		for _, b := range q.Blocks {
			c.visit(b, look)
		}
	}
	return replaces
}

// names finds functions by their path.
type names struct {
	function *function
	below    map[string]*names
	// arguments is set if a rule here or below has more parameters than input and
	// data: the variables that replace a function.
	arguments bool
}

func (n *names) add(path []string, f *function) {
	arguments := !f.rule && !f.called
	for _, name := range path {
		n.arguments = n.arguments || arguments
		if n.below == nil {
			n.below = map[string]*names{}
		}
		child, ok := n.below[name]
		if !ok {
			child = &names{}
			n.below[name] = child
		}
		n = child
	}
	n.function, n.arguments = f, n.arguments || arguments
}

// Query runs the plan and returns its results: objects of the query's variables.
func (p *Program) Query(ctx context.Context, input value.Value, l budget.Limits) ([]value.Value, error) {
	m := p.machine(ctx, l)
	defer p.release(m)
	if p.main(m, m.begin(input)) == failed {
		return nil, m.err
	}
	return m.results, nil
}

// Test computes one answer, counted from 0, without an input, and hands it to use
// as [Program.Answer] does. What is done besides is told to w.
func (p *Program) Test(ctx context.Context, answer int, w *builtin.Watch, l budget.Limits, use func(c *builtin.Call, v value.Value) error) error {
	m := p.machine(ctx, l)
	defer p.release(m)
	m.call.Watch = w
	if p.answers[answer](m, m.begin(value.Value{})) == failed {
		return m.err
	}
	return use(&m.call, m.answer)
}

// Answer computes the answers for in whose bit is set in wanted and hands each
// of them to use, but for those that are undefined. What use is given belongs to the
// evaluation, and must not be kept.
func (p *Program) Answer(ctx context.Context, in *value.Input, wanted uint, l budget.Limits, use func(c *builtin.Call, i int, v value.Value) error) error {
	m := p.machine(ctx, l)
	defer p.release(m)
	m.input = *in
	locals := m.begin(m.input.Value())
	for i, answer := range p.answers {
		if answer == nil || wanted&(1<<i) == 0 {
			continue
		}
		m.answer = value.Value{}
		if answer(m, locals) == failed {
			return m.err
		}
		if !m.answer.Defined() {
			continue
		}
		if err := use(&m.call, i, m.answer); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) begin(input value.Value) []value.Value {
	l := m.stack[:m.program.locals]
	m.used = len(l)
	l[ir.Input], l[ir.Data] = input, m.program.data
	return l
}
