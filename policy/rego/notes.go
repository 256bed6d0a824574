package rego

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/convert"
	"github.com/microwall/microwall/policy/rego/internal/front"
	"github.com/microwall/microwall/policy/rego/internal/reads"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// notes returns what compiles, but is most likely a mistake.
func (c *compiled) notes(ctx context.Context, read *reads.Set) Problems {
	compiler := c.front.Compiler()
	put := putByWith(compiler)
	var notes Problems
	noteUnused(compiler, &notes)
	noteAbsent(compiler, c.data.Value(), put, &notes)
	noteHopeless(ctx, compiler, put, &notes)
	noteUncached(read, &notes)
	notes.sort()
	return notes
}

// putByWith returns what the policy itself replaces.
func putByWith(c *ast.Compiler) (targets []ast.Ref) {
	for _, rule := range rulesOf(c) {
		ast.WalkWiths(rule, func(w *ast.With) bool {
			if target, ok := w.Target.Value.(ast.Ref); ok {
				targets = append(targets, target)
			}
			return false
		})
	}
	return targets
}

// noteUnused notes the rules of authz that nobody asks for, and those of other
// packages with the names of rules that are asked, unless another rule refers to
// them. A test is no such rule: it may ask for the same wrong name as the rule that
// it tests.
func noteUnused(c *ast.Compiler, notes *Problems) {
	first, used := map[string]*ast.Rule{}, map[string]bool{}
	for mod, rule := range rulesOf(c) {
		name := ruleName(rule)
		if mod.Package.Path.Equal(authzPackage) == isAnswer(name) || strings.HasPrefix(name, ast.WildcardPrefix) || front.IsTest(rule) {
			continue
		}
		path := mod.Package.Path.String()[len("data."):] + "." + name
		if first[path] == nil {
			first[path] = rule
		}
		for user := range c.Graph.Dependents(rule) {
			used[path] = used[path] || !front.IsTest(user.(*ast.Rule))
		}
	}
	for path, rule := range first {
		if !used[path] {
			name, hint := ruleName(rule), ""
			if isAnswer(name) {
				hint = "put it into package authz, or refer to it from there"
			} else if meant := nearest(name, slices.Values(answers)); meant != "" {
				hint = "did you mean " + meant + "?"
			}
			notes.add(rule.Loc(), hint, "%s is used by nothing; only allow, deny, reasons and obligations of package authz are asked", path)
		}
	}
}

// noteAbsent notes paths below data that neither data.json nor a rule has. Where the
// policy itself puts a value, there is one.
func noteAbsent(c *ast.Compiler, data value.Value, put []ast.Ref, notes *Problems) {
	noted := map[string]bool{}
	for _, rule := range rulesOf(c) {
		ast.WalkRefs(rule, func(ref ast.Ref) bool {
			path, hint := absent(c.RuleTree, data, ref)
			isPut := func(target ast.Ref) bool { return target.HasPrefix(path) || ref.HasPrefix(target) }
			if path == nil || noted[path.String()] || slices.ContainsFunc(put, isPut) {
				return false
			}
			noted[path.String()] = true
			at := rule.Loc()
			if step := path[len(path)-1]; step.Location != nil {
				at = step.Location
			}
			notes.add(at, hint, "the bundle has no %s; it is always undefined", path)
			return false
		})
	}
}

// absent returns the part of a reference that leads where nothing is, nil if
// there may be something; and the path that may be meant instead, as a hint.
func absent(rules *ast.TreeNode, data value.Value, ref ast.Ref) (path ast.Ref, hint string) {
	if !ref[0].Equal(ast.DefaultRootDocument) {
		return nil, ""
	}
	rules = rules.Child(ref[0].Value)
	for i, step := range ref[1:] {
		key, err := convert.FromAST(step.Value)
		if err != nil {
			return nil, "" // it depends
		}
		above, beside := rules, data
		if rules != nil {
			rules = rules.Child(step.Value)
		}
		data = data.GetBase(key)
		switch {
		case rules != nil && len(rules.Values) > 0:
			return nil, "" // whatever the rule is
		case rules == nil && !data.Defined():
			if name := nearest(key.Text(), names(above, beside)); name != "" {
				hint = "did you mean " + ref[:i+1].Append(ast.StringTerm(name)).String() + "?"
			}
			return ref[:i+2], hint
		}
	}
	return nil, ""
}

// noteHopeless notes calls with constants, such as patterns, that make every such
// call fail.
func noteHopeless(ctx context.Context, c *ast.Compiler, put []ast.Ref, notes *Problems) {
	ctx, cancel := context.WithTimeout(ctx, compileTime) // after it, the rest is not looked at
	defer cancel()
	prepared := builtin.NewPreparation(ctx)
	for _, rule := range rulesOf(c) {
		ast.WalkExprs(rule, func(e *ast.Expr) bool {
			op := e.Operator()
			declared, known := ast.BuiltinMap[op.String()]
			b, ok := builtin.Find(op.String())
			if !known || !ok || slices.ContainsFunc(put, func(target ast.Ref) bool { return target.Equal(op) }) {
				return false
			}
			consts := make([]value.Value, declared.Decl.Arity())
			for i, operand := range e.Operands()[:len(consts)] {
				if v, err := convert.FromAST(operand.Value); err == nil { // else it depends
					consts[i] = v
				}
			}
			err := prepared.Check(ctx, b, consts, Options{}.limits())
			if fault, ok := errors.AsType[*builtin.Error](err); ok {
				notes.add(e.Location, "", "%s; every decision that reaches this call is an error", brief(fault.Message))
			} else if errors.Is(err, budget.ErrSteps) || errors.Is(err, budget.ErrBytes) {
				notes.add(e.Location, "make what is constant here smaller", "%s would take too much here; every decision that reaches this call goes over its budget", op)
			}
			return false
		})
	}
}

// mostNames is how many names are compared with a wrong one. Where there are more,
// they are hardly names that somebody writes into a policy.
const mostNames = 1000

// names yields those that rules and data have at a path.
func names(rules *ast.TreeNode, data value.Value) iter.Seq[string] {
	return func(yield func(string) bool) {
		left := mostNames
		if rules != nil {
			for _, key := range rules.Sorted {
				name, ok := key.(ast.String)
				if left--; ok && (left < 0 || !yield(string(name))) {
					return
				}
			}
		}
		if data.Kind() == value.Object {
			for key := range data.All() {
				if left--; left < 0 || !yield(key.Text()) {
					return
				}
			}
		}
	}
}

// nearest returns the name that somebody may have meant who wrote another: by up to
// three letters, as denies for deny, but no more than half of it. It returns "" if
// there is none.
func nearest(wrong string, names iter.Seq[string]) (name string) {
	limit := min(3, len(wrong)/2)
	for candidate := range names {
		if d := levenshtein.ComputeDistance(wrong, candidate); d <= limit {
			name, limit = candidate, d-1
		}
	}
	return name
}

// rulesOf yields the rules of all modules, sorted by their paths, with their modules.
func rulesOf(c *ast.Compiler) iter.Seq2[*ast.Module, *ast.Rule] {
	return func(yield func(*ast.Module, *ast.Rule) bool) {
		for _, path := range slices.Sorted(maps.Keys(c.Modules)) {
			for _, rule := range c.Modules[path].Rules {
				if !yield(c.Modules[path], rule) {
					return
				}
			}
		}
	}
}

// noteUncached notes where more is read than a decision can be remembered by: the
// input as a whole has the second of the decision, and the context whatever is sent
// along.
func noteUncached(set *reads.Set, notes *Problems) {
	for _, r := range set.Reads() {
		var message, hint string
		switch {
		case len(r.Path) == 0:
			message, hint = "the whole input %s, so that no decision is remembered for longer than a second, nor for another request that differs in anything", "read the parts that it depends on"
		case len(r.Path) == 1 && r.Path[0] == reads.Key{Kind: reads.String, Text: "context"}:
			message, hint = "input.context %s as a whole, so that no decision is remembered for another request whose context differs in anything, such as a trace ID", "read the parts that it depends on"
		case len(r.Path) == 1 && r.Path[0] == reads.Key{Kind: reads.String, Text: "time"}:
			message, hint = "input.time %s as a whole, so that no decision is remembered for longer than a second", "read the parts that it depends on, such as input.time.hour"
		default:
			continue
		}
		*notes = append(*notes, Problem{File: r.File, Line: r.Row, Column: r.Col, Message: fmt.Sprintf(message, r.Why), Hint: hint})
	}
}
