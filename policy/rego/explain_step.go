package rego

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// maxDepth is how deep an explanation is told: rules that ask rules.
const maxDepth = 16

// explainer turns what a tracer kept into an explanation.
type explainer struct {
	*tracer
	failed map[string][]string // texts of errors by the spot of the call
	hidden []*ast.Term         // documents whose values are not known now
}

// spot is the place of an expression; the compiler makes several of one.
func spot(l *ast.Location) string {
	if l == nil {
		return ""
	}
	return fmt.Sprintf("%s:%d:%d", l.File, l.Row, l.Col)
}

// lineOf returns the line of an expression. What the compiler makes of a template
// string has none of its own: it stands on the line of what comes next.
func lineOf(ev *evaluation, i int) int {
	for _, e := range ev.body[i:] {
		if e.Location != nil {
			return e.Location.Row
		}
	}
	if l := ev.node.Loc(); l != nil {
		return l.Row
	}
	return 0
}

func (x *explainer) attempt(ev *evaluation, depth int) Attempt {
	r := ev.rule
	a := Attempt{
		Rule: strings.TrimPrefix(r.Ref().GroundPrefix().String(), "data."), File: r.Location.File, Line: r.Location.Row,
		Default: r.Default, Held: ev.held(), Values: ev.values,
	}
	if ev.state == nil { // the arguments do not fit
		a.Rule += arguments(r, nil)
		return a
	}
	a.Rule += arguments(r, ev.state)
	if !r.Default {
		a.Steps = x.steps(ev, depth)
	}
	return a
}

// arguments returns what a function was called with, "" for other rules.
func arguments(r *ast.Rule, s *state) string {
	if len(r.Head.Args) == 0 {
		return ""
	}
	texts := make([]string, len(r.Head.Args))
	for i, arg := range r.Head.Args {
		if texts[i] = arg.String(); s != nil {
			texts[i] = shorten(s.plug(arg).String())
		}
		if v, ok := arg.Value.(ast.Var); ok && v.IsGenerated() && strings.HasPrefix(texts[i], "__local") {
			texts[i] = "_"
		}
	}
	return "(" + strings.Join(texts, ", ") + ")"
}

// plug puts values in the place of variables.
func (st *state) plug(t *ast.Term) *ast.Term {
	x, err := ast.TransformVars(t.Copy(), func(v ast.Var) (ast.Value, error) {
		if value := st.locals.Get(v); value != nil {
			return value, nil
		}
		return v, nil
	})
	if plugged, ok := x.(ast.Value); ok && err == nil {
		return ast.NewTerm(plugged)
	}
	return t
}

// steps returns the expressions of a body as they stand in the file, as far as
// they were reached.
func (x *explainer) steps(ev *evaluation, depth int) []Step {
	var steps []Step
	from := 0
	for i, e := range ev.body {
		if i > ev.reached || ev.state == nil {
			break
		}
		// The compiler takes parts of an expression out and puts them in front.
		whole := outermost(ev.body, i)
		if whole != i && i < ev.reached {
			continue
		}
		s := Step{Line: lineOf(ev, whole), Text: text(ev.body[whole]), Held: i < ev.reached}
		for _, part := range ev.body[from : i+1] {
			x.operands(&s, part, ev)
			for _, failure := range x.failed[spot(part.Location)] {
				if !s.Held && !strings.Contains(s.Error, failure) {
					s.Error = strings.TrimPrefix(s.Error+"; "+failure, "; ")
				}
			}
		}
		s.Attempts = x.attempts(ev, from, i+1, depth)
		if !s.Held {
			s.Steps = x.inside(ev, i, depth)
		}
		from = i + 1
		if !s.Held || !isPlain(e) {
			steps = append(steps, s)
		}
	}
	return steps
}

// isPlain reports whether an expression is the body of a rule without one, or a
// value that stands in a head: the answer says it.
func isPlain(e *ast.Expr) bool {
	switch terms := e.Terms.(type) {
	case *ast.Term:
		return ast.IsConstant(terms.Value)
	case []*ast.Term:
		v, ok := terms[1].Value.(ast.Var)
		return e.IsEquality() && ok && v.IsGenerated() && ast.IsConstant(terms[2].Value) && text(e) == terms[2].String()
	}
	return false
}

// outermost returns the last expression of a body whose text in the file the i-th
// is a part of.
func outermost(body ast.Body, i int) int {
	whole, part := i, body[i].Location
	for j := i + 1; j < len(body); j++ {
		l := body[j].Location
		if l != nil && part != nil && l.File == part.File && l.Offset <= part.Offset && l.Offset+len(l.Text) >= part.Offset+len(part.Text) && len(l.Text) > 0 {
			whole = j
		}
	}
	return whole
}

func text(e *ast.Expr) string {
	if e.Location == nil {
		return e.String()
	}
	return shorten(string(e.Location.Text))
}

// inside returns the steps of bodies inside of an expression that did not hold: of
// `every`, for the element that did not; of a negation that is written as a body;
// of the operands of `and` and `or`.
func (x *explainer) inside(ev *evaluation, at, depth int) []Step {
	if ev.tries == nil || depth > maxDepth {
		return nil
	}
	every, isEvery := ev.body[at].Terms.(*ast.Every)
	not, isNot := ev.body[at].Terms.(*ast.Not)
	_, isAnd := ev.body[at].Terms.(*ast.LogicalAnd)
	_, isOr := ev.body[at].Terms.(*ast.LogicalOr)
	if isAnd || isOr {
		var steps []Step
		for _, try := range ev.tries[at] {
			if try.rule == nil {
				steps = append(steps, x.steps(try, depth+1)...)
			}
		}
		return steps
	}
	for _, try := range slices.Backward(ev.tries[at]) {
		switch {
		case isEvery && try.rule == nil:
			// The domain's evaluation has those of the elements below it.
			for _, elements := range try.tries {
				for _, element := range slices.Backward(elements) {
					if element.rule == nil && !element.held() && element.state != nil {
						return x.element(every, element, depth)
					}
				}
			}
		case isNot && not.ExplicitBody && try.rule == nil && try.held():
			return x.steps(try, depth+1)
		}
	}
	return nil
}

func (x *explainer) element(every *ast.Every, ev *evaluation, depth int) []Step {
	steps := x.steps(ev, depth+1)
	if len(steps) == 0 {
		return nil
	}
	last := &steps[len(steps)-1]
	for _, t := range []*ast.Term{every.Key, every.Value} {
		if v, ok := t.Value.(ast.Var); ok {
			ev.state.variable(last, v)
		}
	}
	return steps
}

// operands adds what a part of an expression is about. Bodies inside of it have
// variables of their own.
func (x *explainer) operands(s *Step, e *ast.Expr, ev *evaluation) {
	// Under `with`, input and data are others than here.
	x.hidden = nil
	for _, w := range e.With {
		if ref, ok := w.Target.Value.(ast.Ref); ok {
			x.hidden = append(x.hidden, ref[0])
		}
	}
	switch terms := e.Terms.(type) {
	case *ast.Term:
		x.term(s, terms, ev)
	case []*ast.Term:
		v, value := output(e, terms, ev.state)
		_, named := ev.state.name(v)
		if named && !binds(e) {
			value = nil // both sides were known
		}
		if value == nil {
			for _, t := range terms[1:] {
				x.term(s, t, ev)
			}
			return
		}
		// What is known needs not be told of what it comes from.
		for _, t := range terms[1:] {
			if ref, ok := t.Value.(ast.Ref); ok {
				for _, step := range ref[1:] {
					if v, ok := step.Value.(ast.Var); ok {
						ev.state.variable(s, v)
					}
				}
				continue
			}
			x.term(s, t, ev)
		}
		// What the compiler took out is named by the text that it stands for.
		if !named && text(e) != s.Text && !isUndefinable(e, terms) {
			s.add(text(e), shorten(value.String()))
		}
	case *ast.Every:
		x.term(s, terms.Domain, ev)
	}
}

// isUndefinable reports whether the compiler made a set of a part of a template
// string, which is empty if the part is undefined.
func isUndefinable(e *ast.Expr, terms []*ast.Term) bool {
	_, isSet := terms[len(terms)-1].Value.(*ast.SetComprehension)
	return isSet && !strings.HasPrefix(text(e), "{")
}

// binds reports whether an expression is written to give a variable its value.
func binds(e *ast.Expr) bool {
	text := text(e)
	return strings.HasPrefix(text, "some ") || strings.Contains(text, ":=")
}

// output returns the variable that an expression gives its value to, and that
// value, nil if there is none.
func output(e *ast.Expr, terms []*ast.Term, st *state) (ast.Var, ast.Value) {
	t := terms[len(terms)-1]
	if e.IsEquality() {
		t = terms[1]
	}
	v, ok := t.Value.(ast.Var)
	if !ok || !e.IsEquality() && !v.IsGenerated() {
		return "", nil
	}
	return v, st.locals.Get(v)
}

func (x *explainer) term(s *Step, t *ast.Term, ev *evaluation) {
	switch v := t.Value.(type) {
	case ast.Var:
		ev.state.variable(s, v)
	case ast.Ref:
		x.ref(s, v, ev)
	case *ast.Array:
		v.Foreach(func(t *ast.Term) { x.term(s, t, ev) })
	case ast.Set:
		v.Foreach(func(t *ast.Term) { x.term(s, t, ev) })
	case ast.Object:
		v.Foreach(func(k, t *ast.Term) {
			x.term(s, k, ev)
			x.term(s, t, ev)
		})
	}
}

// variable adds a variable that has a name in the file.
func (st *state) variable(s *Step, v ast.Var) {
	name, ok := st.name(v)
	if value := st.locals.Get(v); ok && value != nil {
		s.add(name, shorten(value.String()))
	}
}

func (st *state) name(v ast.Var) (string, bool) {
	if m, ok := st.names[v]; ok {
		v = m.Name
	}
	return string(v), !v.IsGenerated() && !v.IsWildcard()
}

// ref adds a reference and its value, up to where a variable is not bound.
func (x *explainer) ref(s *Step, ref ast.Ref, ev *evaluation) {
	var plugged ast.Ref
	shown := &strings.Builder{}
	for i, step := range ref {
		value := step
		if v, ok := step.Value.(ast.Var); ok && i > 0 {
			bound := ev.state.locals.Get(v)
			if bound == nil {
				break
			}
			value = ast.NewTerm(bound)
			if name, ok := ev.state.name(v); ok {
				ev.state.variable(s, v)
				step = ast.VarTerm(name)
			} else {
				step = value
			}
		}
		plugged = append(plugged, value)
		if name, ok := step.Value.(ast.String); ok && i > 0 && ast.IsVarCompatibleString(string(name)) {
			shown.WriteString("." + string(name))
		} else if i > 0 {
			shown.WriteString("[" + step.String() + "]")
		} else {
			shown.WriteString(step.String())
		}
	}
	if len(plugged) < 2 {
		return
	}
	if value, known := x.value(plugged, ev); known {
		s.add(strings.TrimPrefix(shown.String(), authzPackage.String()+"."), value)
	}
}

// value returns what a reference is; it is known of input, of data that nothing
// replaces, and of complete rules.
func (x *explainer) value(ref ast.Ref, ev *evaluation) (text string, known bool) {
	var root ast.Value
	switch {
	case slices.ContainsFunc(x.hidden, ref[0].Equal):
		return "", false
	case ref[0].Equal(ast.InputRootDocument):
		if ev.state.input == nil {
			return "", true
		}
		root = ev.state.input.Value
	case !ref[0].Equal(ast.DefaultRootDocument) || ev.replaced:
		return "", false
	case x.isRule(ref):
		path := ref.String()
		return x.results[path], x.tried[path]
	default:
		root = x.witness.tree
	}
	v, err := root.Find(ref[1:])
	if err != nil {
		return "", true
	}
	return shorten(v.String()), true
}

// isRule reports whether a reference goes to, or through, a rule or a package.
func (x *explainer) isRule(ref ast.Ref) bool {
	node := x.witness.compiler.RuleTree
	for _, step := range ref {
		if node = node.Child(step.Value); node == nil {
			return false
		}
		if len(node.Values) > 0 {
			return true
		}
	}
	return true
}

// add adds an operand once.
func (s *Step) add(text, value string) {
	text = shorten(text)
	o := Operand{text, value}
	if text != value && !slices.ContainsFunc(s.Operands, func(other Operand) bool { return other.Text == text }) {
		s.Operands = append(s.Operands, o)
	}
}
