package front

import (
	"slices"
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"
)

func (r *rehearsal) planQuery(body ast.Body, i int, iter func()) {
	if i >= len(body) {
		iter()
		return
	}
	before, e := r.at, body[i]
	r.at = e.Loc()
	b := r.blame(e)
	b.in++
	r.planExpr(e, func() {
		b.out++
		r.planQuery(body, i+1, func() {
			inside := r.at
			r.at = before
			iter()
			r.at = inside
		})
	})
	r.at = before
}

func (r *rehearsal) planExpr(e *ast.Expr, iter func()) {
	r.enter()
	defer r.leave()
	switch {
	case len(e.With) > 0:
		r.planWith(e, iter)
	case e.IsNegated():
		r.planNot(e, iter)
	case e.IsAnd():
		and := e.Terms.(*ast.LogicalAnd)
		r.planLogicalOperand(and.Lhs)
		r.planLogicalOperand(and.Rhs)
		iter()
	case e.IsOr():
		or := e.Terms.(*ast.LogicalOr)
		r.append(2) // reset, and the block of
		r.planBodyAsScope(or.Lhs)
		r.append(6) // how the right side is left out, and is_defined
		r.planBodyAsScope(or.Rhs)
		iter()
	case e.IsCall():
		r.planExprCall(e, iter)
	case e.IsEvery():
		r.planExprEvery(e, iter)
	default:
		r.planExprTerm(e, iter)
	}
}

func (r *rehearsal) planNot(e *ast.Expr, iter func()) {
	r.append(1)
	if not, ok := e.Terms.(*ast.Not); ok {
		r.append(1)
		r.planBodyAsScope(not.Body)
	} else {
		r.planExpr(e.Complement(), func() {})
	}
	iter()
}

func (r *rehearsal) planLogicalOperand(body ast.Body) {
	r.append(3)
	r.planBodyAsScope(body)
}

func (r *rehearsal) planBodyAsScope(body ast.Body) {
	r.scoped(func() { r.planQuery(body, 0, func() { r.append(1) }) })
}

func (r *rehearsal) planWith(e *ast.Expr, iter func()) {
	var values []*ast.Term
	var targets, inData []ast.Ref
	var vars []ast.Var
	frame := map[string]*ast.Term{}
	for _, w := range e.With {
		target := w.Target.Value.(ast.Ref)
		if r.isFunctionOrBuiltin(target) {
			if v, ok := w.Value.Value.(ast.Var); ok {
				vars = append(vars, v)
			}
		} else if head := target[0]; head.Equal(ast.DefaultRootDocument) || head.Equal(ast.InputRootDocument) {
			values = append(values, w.Value)
			targets = append(targets, target)
			continue
		}
		frame[w.Target.String()] = w.Value
	}
	r.planTermSlice(values, 0, func() {
		saved := ast.NewVarSet()
		shadowing := len(frame) > 0
		for _, target := range targets {
			for _, part := range target[1:] {
				if _, ok := part.Value.(ast.String); !ok {
					panic(unplannable{at: r.at})
				}
			}
			saved.Add(target[0].Value.(ast.Var))
			if target[0].Equal(ast.DefaultRootDocument) {
				inData = append(inData, target)
			}
		}
		for _, target := range inData {
			shadowing = shadowing || r.rules.lookup(target) != nil
		}
		r.append(len(saved))

		begin := func() {
			scope := &r.mocks[len(r.mocks)-1]
			*scope = append(*scope, frame)
			if !shadowing {
				return
			}
			r.functions = append(r.functions, generation{planned: map[string]bool{}, vars: slices.Concat(r.generation().vars, vars)})
			r.with = append(r.with, e)
			for _, target := range inData {
				r.rules.hide(target)
			}
		}
		end := func() {
			scope := &r.mocks[len(r.mocks)-1]
			*scope = (*scope)[:len(*scope)-1]
			if !shadowing {
				return
			}
			r.functions = r.functions[:len(r.functions)-1]
			r.with = r.with[:len(r.with)-1]
			for i := range inData {
				r.rules.show(inData[len(inData)-1-i])
			}
		}
		begin()
		r.append(len(targets)) // a `with` each
		r.planExpr(e.NoWith(), func() {
			end()
			r.append(len(saved)) // and one that takes it back
			iter()
			begin()
		})
		end()
	})
}

func (r *rehearsal) isFunctionOrBuiltin(ref ast.Ref) bool {
	if n := r.rules.lookup(ref); n != nil {
		return n.isFunction()
	}
	return r.builtins[ref.String()] != nil
}

func (r *rehearsal) planExprTerm(e *ast.Expr, iter func()) {
	t := e.Terms.(*ast.Term)
	switch v := t.Value.(type) {
	case ast.Boolean:
		if !bool(v) {
			r.append(1)
		}
	case ast.Ref, ast.Var:
		r.planTerm(t, func() {
			r.append(1)
			iter()
		})
		return
	}
	iter()
}

func (r *rehearsal) planExprEvery(e *ast.Expr, iter func()) {
	every := e.Terms.(*ast.Every)
	r.append(1)
	r.planTerm(every.Domain, func() {
		r.append(9) // what makes sure of a collection
		r.planScan(every.Key, func() {
			r.append(4)
			r.planUnifyLocal(operand{}, every.Value, func() {
				r.planQuery(every.Body, 0, func() { r.append(1) })
			})
		})
	})
	r.append(1)
	iter()
}

func (r *rehearsal) planExprCall(e *ast.Expr, iter func()) {
	name, operands := e.Operator().String(), e.Operands()
	if name == ast.Equality.Name {
		r.planUnify(e.Operand(0), e.Operand(1), iter)
		return
	}
	if replacement := r.replacement(name); replacement != nil {
		r.planReplaced(e.Operator(), name, replacement, operands, iter)
		return
	}
	if n := r.rules.lookup(e.Operator()); n != nil {
		if len(n.rules) == 0 {
			panic(unplannable{at: r.at})
		}
		r.planRules(n)
		r.planCall(len(n.rules[0].Head.Args), false, operands, iter)
		return
	}
	builtin := r.builtins[name]
	if builtin == nil {
		panic(unplannable{at: r.at})
	}
	arity, void := builtin.Decl.Arity(), builtin.Decl.Result() == nil
	switch {
	case !builtin.Relation:
		r.planCall(arity, void, operands, iter)
	case len(operands) == arity:
		r.planTermSlice(operands, 0, func() {
			r.append(4)
			iter()
		})
	case len(operands) == arity+1:
		r.planTermSlice(operands[:arity], 0, func() {
			r.append(1)
			r.planScan(operands[arity], iter)
		})
	default:
		panic(unplannable{at: r.at})
	}
}

// replacement returns what `with` puts in place of a function; nil if nothing.
func (r *rehearsal) replacement(name string) *ast.Term {
	scope := r.mocks[len(r.mocks)-1]
	for _, frame := range slices.Backward(scope) {
		if t := frame[name]; t != nil {
			return t
		}
	}
	return nil
}

func (r *rehearsal) planReplaced(operator ast.Ref, name string, by *ast.Term, operands []*ast.Term, iter func()) {
	arity := 0
	n := r.rules.lookup(operator)
	builtin := r.builtins[name]
	switch v := by.Value.(type) {
	case ast.Var:
		if n != nil && n.isFunction() {
			arity = len(n.rules[0].Head.Args)
		} else if n == nil && builtin != nil {
			arity = builtin.Decl.Arity()
		}
		r.planCallValue(by, arity, operands, iter)
		return
	case ast.Ref:
		if !v.HasPrefix(ast.DefaultRootRef) && !v.HasPrefix(ast.InputRootRef) {
			r.planCall(len(r.builtins[v.String()].Decl.FuncArgs().Args), false, operands, iter)
			return
		}
		if f := r.rules.lookup(v); f.isFunction() {
			r.mocks = append(r.mocks, mocks{})
			r.planRules(f)
			r.mocks = r.mocks[:len(r.mocks)-1]
			r.planCall(len(f.rules[0].Head.Args), false, operands, iter)
			return
		}
	}
	switch {
	case builtin != nil:
		arity = builtin.Decl.Arity()
	case n == nil:
		panic(unplannable{at: r.at})
	case n.isFunction():
		arity = len(n.rules[0].Head.Args)
	}
	r.planCallValue(by, arity, operands, iter)
}

// planCall is planExprCallFunc: the result is tested, or unified with one more
// operand.
func (r *rehearsal) planCall(arity int, void bool, operands []*ast.Term, iter func()) {
	switch len(operands) {
	case arity:
		r.planTermSlice(operands, 0, func() {
			r.target = operand{}
			r.work(r.arguments())
			r.append(1)
			if !void {
				r.append(1)
			}
			iter()
		})
	case arity + 1:
		r.planTermSlice(operands[:arity], 0, func() {
			r.work(r.arguments())
			r.append(1)
			r.planUnifyLocal(operand{}, operands[arity], iter)
		})
	default:
		panic(unplannable{at: r.at})
	}
}

// planCallValue is planExprCallValue: a value in place of a call.
func (r *rehearsal) planCallValue(value *ast.Term, arity int, operands []*ast.Term, iter func()) {
	switch len(operands) {
	case arity:
		r.planTermSlice(operands, 0, func() {
			r.planTerm(value, func() {
				r.append(1)
				iter()
			})
		})
	case arity + 1:
		r.planTermSlice(operands[:arity], 0, func() {
			r.planTerm(value, func() { r.planUnifyLocal(r.target, operands[arity], iter) })
		})
	default:
		panic(unplannable{at: r.at})
	}
}

func (r *rehearsal) planTermSlice(terms []*ast.Term, i int, iter func()) {
	if i >= len(terms) {
		iter()
		return
	}
	r.planTerm(terms[i], func() { r.planTermSlice(terms, i+1, iter) })
}

func boolean(b ast.Boolean) operand { return operand{isBool, strconv.FormatBool(bool(b))} }
