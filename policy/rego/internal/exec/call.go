package exec

import (
	"errors"

	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

func (b *builder) call(s *ir.CallStmt) op {
	if f, ok := b.c.program.byName[s.Func]; ok {
		return b.callRule(f, s)
	}
	bi, ok := b.c.options.Find(s.Func)
	if !ok {
		b.c.errorf("unknown built-in %s in a plan", s.Func)
		return func(*machine, []value.Value) int { return undefined }
	}
	nodes := make([]*node, len(s.Args))
	consts := make([]value.Value, len(s.Args))
	args := make([]expr, len(s.Args))
	for i, a := range s.Args {
		nodes[i] = b.operand(a)
		if nodes[i].isConstant() {
			consts[i] = nodes[i].constant
		}
		args[i] = b.c.expr(nodes[i])
	}
	f := bi.Func
	if bound := b.c.prepared.Bind(bi, consts); bound != nil {
		f = bound
	}
	t := int(s.Result)
	at := b.c.fault(s.GetLocation(), "", "")
	strict := b.c.options.Strict
	return func(m *machine, l []value.Value) int {
		in := m.args[:0]
		for _, e := range args {
			v := e(l)
			if !v.Defined() {
				return undefined
			}
			in = append(in, v)
		}
		v, err := f(&m.call, in)
		if err != nil {
			return m.builtinFailed(err, at, strict)
		}
		if !v.Defined() {
			return undefined
		}
		l[t] = v
		return next
	}
}

func (m *machine) builtinFailed(err error, at *Error, strict bool) int {
	var fault *builtin.Error
	if !errors.As(err, &fault) {
		return m.fail(err) // the budget's
	}
	goesOn := !strict && !fault.Halts
	if goesOn && m.call.Watch == nil {
		return undefined
	}
	e := *at
	e.Code, e.Message, e.Err = fault.Code, fault.Message, err
	if goesOn {
		m.call.Watch.Failed(&e)
		return undefined
	}
	return m.fail(&e)
}

func (b *builder) callRule(f *function, s *ir.CallStmt) op {
	b.c.depth = max(b.c.depth, f.depth)
	t := int(s.Result)
	if len(s.Args) < len(f.params) {
		// A package is gone through as a document, and OPA's planner (v1.22.2) calls
		// what is a function there. Functions are no documents.
		return func(*machine, []value.Value) int { return undefined }
	}
	if f.rule && len(s.Args) == 2 && isLocal(s.Args[0], ir.Input) && isLocal(s.Args[1], ir.Data) {
		return func(m *machine, l []value.Value) int {
			v, ok := m.rule(f, l)
			if !ok {
				return failed
			}
			if !v.Defined() {
				return undefined
			}
			l[t] = v
			return next
		}
	}
	args := make([]expr, len(s.Args))
	for i, a := range s.Args {
		args[i] = b.c.expr(b.operand(a))
	}
	params := f.params
	return func(m *machine, l []value.Value) int {
		if err := m.meter.Step(1); err != nil {
			return m.fail(err)
		}
		callee := m.frame(f, l)
		for i, e := range args {
			v := e(l)
			if !v.Defined() && i >= 2 {
				return undefined
			}
			callee[params[i]] = v
		}
		v, ok := f.run(m, callee)
		if !ok {
			return failed
		}
		if !v.Defined() {
			return undefined
		}
		l[t] = v
		return next
	}
}

// rule computes a rule in the current world, once. It reports false if the
// evaluation failed.
func (m *machine) rule(f *function, l []value.Value) (value.Value, bool) {
	if v, ok := m.known(f); ok {
		return v, true
	}
	callee := m.frame(f, l)
	callee[f.params[0]], callee[f.params[1]] = l[ir.Input], l[ir.Data]
	v, ok := f.run(m, callee)
	if ok {
		if err := m.remember(f, v); err != nil {
			return value.Value{}, m.fail(err) == next
		}
	}
	return v, ok
}

func isLocal(o ir.Operand, l ir.Local) bool {
	v, ok := o.Value.(ir.Local)
	return ok && v == l
}

func (b *builder) callDynamic(s *ir.CallDynamicStmt) op {
	b.c.depth = max(b.c.depth, b.c.deepest)
	if len(s.Args) != 2 || s.Args[0] != ir.Input || s.Args[1] != ir.Data {
		b.c.errorf("dynamic call with arguments %v in a plan", s.Args)
	}
	if generation, ok := s.Path[0].Value.(ir.StringIndex); ok {
		// OPA's plan does not hand over what a function is replaced by.
		if n := b.c.program.dynamic.below[b.c.strings[generation]]; n != nil && n.arguments {
			b.c.unsupported(s.GetLocation(), "a reference that only the evaluation resolves, under `with` that replaces a function by a variable", "write the reference out, or replace the function by a value that is written in place")
		}
	}
	path := make([]expr, len(s.Path))
	for i, o := range s.Path {
		path[i] = b.c.expr(b.operand(o))
	}
	t, root := int(s.Result), b.c.program.dynamic
	either := b.c.region.base[s.Result]
	return func(m *machine, l []value.Value) int {
		if either != inValue {
			l[either] = value.Value{}
		}
		at := root
		for _, e := range path {
			v := e(l)
			if v.Kind() != value.String {
				return undefined
			}
			if err := m.hashed(v); err != nil {
				return m.fail(err)
			}
			below, ok := at.below[v.Text()]
			if !ok {
				return undefined
			}
			at = below
		}
		if at.function == nil || !at.function.rule {
			return undefined
		}
		v, ok := m.rule(at.function, l)
		if !ok {
			return failed
		}
		if !v.Defined() {
			return undefined
		}
		l[t] = v
		return next
	}
}
