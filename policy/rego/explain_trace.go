package rego

import (
	"cmp"
	"errors"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// What of a trace is kept: evaluations at all, those of one rule in one place,
// and values that one rule gives.
const (
	keptEvaluations = 20_000
	keptTries       = 5
	keptValues      = 10
)

// tracer listens to one evaluation and keeps, of each body that is evaluated, how
// far it got.
type tracer struct {
	witness   *witness
	all       map[uint64]*evaluation // by OPA's id of the query
	tried     map[string]bool        // complete rules, by their path
	results   map[string]string      // of those that are defined
	truncated bool
}

func newTracer(w *witness) *tracer {
	return &tracer{witness: w, all: map[uint64]*evaluation{}, tried: map[string]bool{}, results: map[string]string{}}
}

// evaluation of a rule, or of a body inside of one: of a negation, a
// comprehension, `every`.
type evaluation struct {
	id   uint64
	rule *ast.Rule // nil of a body inside
	body ast.Body
	// node is what it was entered for.
	node ast.Node
	// at is the expression that is evaluated now.
	at int
	// reached is the furthest expression, len(body) if all held; state is how
	// things stood when it was reached first.
	reached int
	state   *state
	values  []string
	// tries are evaluations for an expression of the body.
	tries [][]*evaluation
	// more counts those that are not kept, by place.
	more map[place]int
	// replaced is set where `with` replaces data.
	replaced bool
}

// place is an expression of a body, and the rule or body that is tried for it.
type place struct {
	at   int
	node *ast.Location
}

// state is what variables and input are.
type state struct {
	locals *ast.ValueMap
	names  map[ast.Var]topdown.VarMetadata
	input  *ast.Term
}

func (t *tracer) Enabled() bool { return true }

func (t *tracer) Config() topdown.TraceConfig { return topdown.TraceConfig{PlugLocalVars: true} }

func (t *tracer) TraceEvent(e topdown.Event) {
	if e.Op == topdown.EnterOp {
		t.enter(e)
		return
	}
	ev := t.all[e.QueryID]
	if ev == nil {
		return
	}
	switch node := e.Node.(type) {
	case *ast.Expr:
		if e.Op != topdown.EvalOp && e.Op != topdown.RedoOp {
			return
		}
		if i := slices.Index(ev.body, node); i >= 0 {
			ev.at = i // a redo goes on with the solutions of an earlier expression
			if e.Op == topdown.EvalOp {
				ev.reach(i, e)
			}
		}
	case *ast.Rule:
		if e.Op == topdown.ExitOp {
			ev.reach(len(ev.body), e)
			t.result(ev, node, e)
		}
	case ast.Body:
		if e.Op == topdown.ExitOp {
			ev.reach(len(ev.body), e)
		}
	}
}

// reach notes how far an evaluation got, and how things stood when it did so
// first.
func (ev *evaluation) reach(i int, e topdown.Event) {
	if i > ev.reached || ev.state == nil {
		ev.reached = i
		ev.state = &state{e.Locals, e.LocalMetadata, e.Input()}
	}
}

func (t *tracer) enter(e topdown.Event) {
	ev := &evaluation{id: e.QueryID, node: e.Node}
	switch node := e.Node.(type) {
	case *ast.Rule:
		ev.rule, ev.body = node, node.Body
	case ast.Body:
		ev.body = node
	}
	if e.QueryID != 0 {
		parent := t.all[e.ParentID]
		if parent == nil || !t.keep(parent, ev) {
			return
		}
		ev.replaced = parent.replaced || parent.at < len(parent.body) && replacesData(parent.body[parent.at])
	}
	if ev.rule != nil && ev.rule.Head.RuleKind() == ast.SingleValue && len(ev.rule.Head.Args) == 0 && ev.rule.Ref().IsGround() && !ev.replaced {
		t.tried[ev.rule.Ref().String()] = true
	}
	if len(t.all) >= keptEvaluations {
		t.truncated = true
		return
	}
	t.all[e.QueryID] = ev
}

// keep puts an evaluation among those of the expression that its parent evaluates
// now, or in the place of one there that matters less.
func (t *tracer) keep(parent, child *evaluation) bool {
	if parent.tries == nil {
		parent.tries = make([][]*evaluation, len(parent.body)+1)
		parent.more = map[place]int{}
	}
	p := place{parent.at, child.node.Loc()}
	tries := &parent.tries[parent.at]
	count, last := 0, -1
	for i, other := range *tries {
		if other.node.Loc() == p.node {
			count++
			if child.rule == nil || !other.held() { // the last element of `every` is the one that matters
				last = i
			}
		}
	}
	switch {
	case count < keptTries:
		*tries = append(*tries, child)
	case last >= 0:
		parent.more[p]++
		t.forget((*tries)[last])
		(*tries)[last] = child
	default:
		parent.more[p]++
		return false
	}
	return true
}

// forget drops an evaluation and all that was evaluated for it.
func (t *tracer) forget(ev *evaluation) {
	delete(t.all, ev.id)
	for _, tries := range ev.tries {
		for _, try := range tries {
			t.forget(try)
		}
	}
}

func (ev *evaluation) held() bool { return ev.state != nil && ev.reached == len(ev.body) }

func replacesData(e *ast.Expr) bool {
	return slices.ContainsFunc(e.With, func(w *ast.With) bool {
		ref, ok := w.Target.Value.(ast.Ref)
		return ok && ref[0].Equal(ast.DefaultRootDocument)
	})
}

// result notes what a rule gives.
func (t *tracer) result(ev *evaluation, r *ast.Rule, e topdown.Event) {
	var text string
	switch ref := r.Ref(); {
	case r.Head.RuleKind() == ast.MultiValue:
		text = shorten(e.Plug(r.Head.Key).String())
	case r.Head.Value == nil:
		return
	default:
		text = shorten(e.Plug(r.Head.Value).String())
		if ground := ref.GroundPrefix(); len(ground) < len(ref) {
			keys := make([]string, 0, len(ref)-len(ground))
			for _, step := range ref[len(ground):] {
				keys = append(keys, e.Plug(step).String())
			}
			text = strings.Join(keys, ", ") + ": " + text
		} else if len(r.Head.Args) == 0 && !ev.replaced {
			t.results[ref.String()] = text
		}
	}
	if len(ev.values) < keptValues && !slices.Contains(ev.values, text) {
		ev.values = append(ev.values, text)
	}
}

// attempts returns what was tried for the query, with the calls in it that failed.
func (t *tracer) attempts(failures []error) []Attempt {
	root := t.all[0]
	if root == nil || len(root.tries) == 0 {
		return nil
	}
	x := explainer{tracer: t, failed: map[string][]string{}}
	for _, err := range failures {
		if e, ok := errors.AsType[*topdown.Error](err); ok {
			at := spot(e.Location)
			if text := e.Code + ": " + e.Message; !slices.Contains(x.failed[at], text) {
				x.failed[at] = append(x.failed[at], text)
			}
		}
	}
	return x.attempts(root, 0, len(root.body), 0)
}

// attempts returns the rules that were tried for a range of the expressions of a
// body, one for each place where they stand: one that held, else the one that got
// furthest.
func (x *explainer) attempts(ev *evaluation, from, to, depth int) []Attempt {
	if ev.tries == nil || depth > maxDepth {
		return nil
	}
	var order []*ast.Location
	best := map[*ast.Location]*evaluation{}
	times := map[*ast.Location]int{}
	var inside []Attempt
	for at := from; at < to; at++ {
		for _, try := range ev.tries[at] {
			if try.rule == nil {
				inside = merge(inside, x.attempts(try, 0, len(try.body), depth+1))
				continue
			}
			loc := try.node.Loc()
			if times[loc]++; times[loc] == 1 {
				order = append(order, loc)
				times[loc] += ev.more[place{at, loc}]
			}
			if b := best[loc]; b == nil || !b.held() && (try.held() || try.reached > b.reached) {
				best[loc] = try
			}
		}
	}
	var all []Attempt
	for _, loc := range order {
		a := x.attempt(best[loc], depth+1)
		if times[loc] > 1 {
			a.Times = times[loc]
		}
		all = append(all, a)
	}
	return merge(all, inside)
}

// merge adds attempts; one of a rule that is there already counts as one more
// time, and takes its place if it held and that did not.
func merge(to, more []Attempt) []Attempt {
	for _, a := range more {
		i := slices.IndexFunc(to, func(b Attempt) bool { return a.File == b.File && a.Line == b.Line && a.Rule == b.Rule })
		if i < 0 {
			to = append(to, a)
			continue
		}
		times := cmp.Or(a.Times, 1) + cmp.Or(to[i].Times, 1)
		if a.Held && !to[i].Held {
			to[i] = a
		}
		to[i].Times = times
	}
	return to
}
