package exec

import (
	"context"
	"errors"
	"fmt"

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
	locals    int // of main
	stack     int
	nAnswers  int
	data      value.Value
	strict    bool
	host      func(context.Context) *topdown.BuiltinContext
	pool      pool
}

// Options of [Compile].
type Options struct {
	// Data is the base document.
	Data value.Value
	// Packed is Data's block, if it has one: look-ups are prepared for it.
	Packed *value.Data
	// Strict makes an error of a built-in end the evaluation; without it, the
	// call is undefined.
	Strict bool
	// Answers asks for the plan of a query that collects into arrays, `a = [x |
	// x := ...]; ...`: what each array would get first is an answer.
	Answers bool
	// IsFunction reports whether rules of a path, for instance "data.lib.f", are
	// a function's.
	IsFunction func(path string) bool
	// Host makes what OPA's own built-ins may know of an evaluation and its host;
	// nil lets them know nothing.
	Host func(context.Context) *topdown.BuiltinContext
	// Find returns a built-in.
	Find func(name string) (*builtin.Builtin, bool)
}

// Compile turns a plan with one query into a Program.
func Compile(p *ir.Policy, o Options) (*Program, error) {
	if len(p.Plans.Plans) != 1 {
		return nil, fmt.Errorf("plan has %d queries instead of one", len(p.Plans.Plans))
	}
	c := &compiler{
		options: o,
		program: &Program{byName: map[string]*function{}, dynamic: &names{}, data: o.Data, strict: o.Strict, host: o.Host},
		answers: map[ir.Local]int{},
	}
	for _, s := range p.Static.Strings {
		c.strings = append(c.strings, s.Value)
	}
	for _, f := range p.Static.Files {
		c.files = append(c.files, f.Value)
	}
	for i, f := range p.Funcs.Funcs {
		fn := &function{index: i, name: f.Name, rule: len(f.Params) == 2}
		for _, param := range f.Params {
			fn.params = append(fn.params, int(param))
		}
		c.program.functions = append(c.program.functions, fn)
		c.program.byName[f.Name] = fn
		if f.Path != nil {
			c.program.dynamic.add(f.Path, fn)
		}
	}
	// OPA plans what a function calls before the function itself, so that depths
	// are known in this order.
	for i, f := range p.Funcs.Funcs {
		c.function(c.program.functions[i], f)
	}
	plan := p.Plans.Plans[0]
	if o.Answers {
		c.findAnswers(plan)
	}
	c.program.main, c.program.locals = c.plan(plan)
	c.program.stack = c.program.locals + c.depth
	c.program.nAnswers = len(c.answers)
	if err := errors.Join(c.errs...); err != nil {
		return nil, err
	}
	return c.program, nil
}

// names finds functions by their path.
type names struct {
	function *function
	below    map[string]*names
}

func (n *names) add(path []string, f *function) {
	for _, name := range path {
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
	n.function = f
}

// depth of the deepest function below n.
func (n *names) depth() int {
	d := 0
	if n.function != nil {
		d = n.function.depth
	}
	for _, child := range n.below {
		d = max(d, child.depth())
	}
	return d
}

// Query runs the plan and returns its results: objects of the query's variables.
func (p *Program) Query(ctx context.Context, input value.Value, l budget.Limits) ([]value.Value, error) {
	m := p.machine(ctx, l)
	defer p.release(m)
	if err := m.run(input); err != nil {
		return nil, err
	}
	return m.results, nil
}

// Answer runs the plan and hands each answer to use, which must not keep them:
// the undefined Value for one that is undefined.
func (p *Program) Answer(ctx context.Context, input value.Value, l budget.Limits, use func(answers []value.Value) error) error {
	m := p.machine(ctx, l)
	defer p.release(m)
	if err := m.run(input); err != nil {
		return err
	}
	return use(m.answers)
}

func (m *machine) run(input value.Value) error {
	l := m.stack[:m.program.locals]
	l[ir.Input], l[ir.Data] = input, m.program.data
	if m.program.main(m, l) == failed {
		return m.err
	}
	return nil
}
