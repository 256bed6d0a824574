package front

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
)

// A rehearsal goes through what OPA's planner is about to do without building
// anything, counts, and stops when it is too much. It is the planner's control
// flow, function by function under the planner's names (internal/planner of OPA
// v1.22.2): where the planner appends a statement, the rehearsal counts one. The
// planner is written in continuations, and so is this.
//
// It is exact: the tests compare it with what the planner makes. After an
// upgrade of OPA they say whether the planner goes other ways than this.
type rehearsal struct {
	limits planLimits

	statements int // that the planner appends
	effort     int // that leaves no statement: sorting, copying, printing
	depth      int // of calls
	loops      int // that this is in, of one function

	rules    *trie
	builtins map[string]*ast.Builtin

	functions []generation
	planning  map[string]bool
	mocks     []mocks
	vars      []seen
	target    operand // what the planner computed last

	at     *ast.Location
	blames map[*ast.Expr]*blame
	with   []*ast.Expr     // whose `with` the functions are planned for
	once   map[string]bool // functions that were planned at all
}

type planLimits struct{ statements, effort, depth, loops int }

// A generation is the functions that were planned under the same replacements
// by `with`.
type generation struct {
	planned map[string]bool
	vars    []ast.Var // all that replace functions, and so become parameters
}

// mocks are functions and what replaces them: frames of one scope.
type mocks []map[string]*ast.Term

// seen are variables that have a value where the planner is.
type seen map[ast.Var]bool

// An operand is a local, or a constant whose value the planner looks at.
type operand struct {
	kind byte
	text string
}

const (
	isText = 's'
	isBool = 'b'
)

// blame is how often an expression was planned, how often what follows it, and
// how many functions were planned again because of it.
type blame struct{ in, out, again int }

// copies of what follows the expression for each time that it is planned.
func (b *blame) copies() int { return b.out / max(b.in, 1) }

// Reasons to stop: the planner will refuse, the planner would do too much.
type unplannable struct {
	at  *ast.Location
	why string // "" if the planner says it
}

type exceeded struct {
	limit *int // of the planLimits
	at    *ast.Location
}

func newRehearsal(compiler *ast.Compiler, limits planLimits) *rehearsal {
	root := seen{ast.Var("input"): true, ast.Var("data"): true}
	return &rehearsal{
		limits: limits, rules: newTrie(compiler.Modules), builtins: ast.BuiltinMap,
		functions: []generation{{planned: map[string]bool{}, vars: []ast.Var{"input", "data"}}},
		planning:  map[string]bool{}, mocks: []mocks{{}}, vars: []seen{root},
		blames: map[*ast.Expr]*blame{}, once: map[string]bool{},
	}
}

// run rehearses the plan of a query. Its error is *[TooCostly], or *[Unplannable]
// for what the planner would plan wrongly. It is content
// with a plan that the planner will give up, and returns where that is; nil if it
// will not.
func (r *rehearsal) run(query ast.Body, names map[ast.Var]ast.Var) (end *unplannable, err error) {
	defer func() {
		switch cause := recover().(type) {
		case nil:
		case unplannable:
			end = &cause
		case exceeded:
			err = r.refusal(cause)
		case *Unplannable:
			err = cause
		default:
			panic(cause)
		}
	}()
	r.at = query.Loc()
	r.vars = append(r.vars, seen{})
	vars := query.Vars(ast.VarVisitorParams{SkipRefCallHead: true, SkipClosures: true}).Diff(ast.ReservedVars)
	results := 0
	for v := range vars {
		if name, ok := names[v]; ok {
			v = name
		}
		if !v.IsGenerated() && !v.IsWildcard() {
			results++
		}
	}
	r.planQuery(query, 0, func() { r.append(results + 2) })
	return nil, nil
}

// append counts statements.
func (r *rehearsal) append(statements int) {
	if r.statements += statements; r.statements > r.limits.statements {
		panic(exceeded{&r.limits.statements, r.at})
	}
}

// work counts what leaves no statement.
func (r *rehearsal) work(units int) {
	if r.effort += units; r.effort > r.limits.effort {
		panic(exceeded{&r.limits.effort, r.at})
	}
}

func (r *rehearsal) enter() {
	if r.depth++; r.depth > r.limits.depth {
		panic(exceeded{&r.limits.depth, r.at})
	}
}

func (r *rehearsal) leave() { r.depth-- }

// looped calls f, which rehearses a loop and what is in it.
func (r *rehearsal) looped(f func()) {
	r.enter()
	defer r.leave()
	if r.loops++; r.loops > r.limits.loops {
		panic(exceeded{&r.limits.loops, r.at})
	}
	f()
	r.loops--
}

func (r *rehearsal) generation() *generation { return &r.functions[len(r.functions)-1] }

// arguments is how many every function takes besides its own.
func (r *rehearsal) arguments() int { return len(r.generation().vars) }

func (r *rehearsal) isSeen(v ast.Var) bool {
	for _, frame := range r.vars {
		if frame[v] {
			return true
		}
	}
	return false
}

func (r *rehearsal) see(v ast.Var) { r.vars[len(r.vars)-1][v] = true }

// scoped calls f with a frame of its own for variables.
func (r *rehearsal) scoped(f func()) {
	r.vars = append(r.vars, seen{})
	f()
	r.vars = r.vars[:len(r.vars)-1]
}

func (r *rehearsal) planRules(n *trie) {
	r.enter()
	defer r.leave()
	set := n.set()
	r.work(set.effort + (len(r.functions)+r.arguments())/8)
	set.calls++
	if r.generation().planned[set.path] {
		return
	}
	if r.planning[set.path] {
		panic(unplannable{r.at, set.path + " is reached from itself here, by what `with` replaces or by rules that share the beginning of their names"})
	}
	r.planning[set.path] = true
	defer delete(r.planning, set.path)
	if r.once[set.path] && len(r.with) > 0 {
		r.blame(r.with[len(r.with)-1]).again++
	}
	r.once[set.path] = true

	vars, at, target, loops := r.vars, r.at, r.target, r.loops
	defer func() { r.vars, r.at, r.target, r.loops = vars, at, target, loops }()
	r.loops = 0

	if set.buildsObject || n.rules[0].Head.RuleKind() == ast.MultiValue {
		r.append(1)
	}
	var defaultRule *ast.Rule
	for _, first := range n.rules {
		if first.Default {
			defaultRule = first
			continue
		}
		if first.Else != nil {
			r.append(1)
		}
		for rule := first; rule != nil; rule = rule.Else {
			r.at = rule.Head.Loc()
			frame := seen{}
			for _, v := range r.generation().vars {
				frame[v] = true
			}
			r.vars = []seen{frame}
			r.append(1)
			r.planFuncParams(rule.Head.Args, 0, func() {
				r.planQuery(rule.Body, 0, func() { r.planHead(rule, set) })
			})
		}
		if first.Head.RuleKind() == ast.SingleValue && !set.buildsObject {
			r.append(2)
		}
	}
	if defaultRule != nil {
		r.at = defaultRule.Head.Loc()
		r.append(1)
		r.planQuery(defaultRule.Body, 0, func() {
			r.planTerm(defaultRule.Head.Value, func() { r.append(1) })
		})
	}
	r.append(1)
	r.generation().planned[set.path] = true
}

func (r *rehearsal) planHead(rule *ast.Rule, set *ruleSet) {
	ref := rule.Ref()
	switch {
	case rule.Head.RuleKind() == ast.SingleValue && !set.buildsObject:
		r.planTerm(rule.Head.Value, func() { r.append(1) })
	case rule.Head.RuleKind() == ast.SingleValue:
		r.planTerm(rule.Head.Value, func() {
			r.planNestedObjects(ref[set.pieces:len(ref)-1], func() {
				r.planTerm(ref[len(ref)-1], func() { r.append(1) })
			})
		})
	case set.buildsObject:
		r.planNestedObjects(ref[set.pieces:len(ref)-1], func() {
			r.planTerm(ref[len(ref)-1], func() {
				r.planTerm(rule.Head.Key, func() {
					r.planDotOr(func() { r.append(2) })
				})
			})
		})
	default:
		r.planTerm(rule.Head.Key, func() { r.append(1) })
	}
}

func (r *rehearsal) planDotOr(iter func()) {
	r.append(5) // dot and break, their block and what makes the value, the block around
	iter()
	r.append(1)
}

func (r *rehearsal) planNestedObjects(ref ast.Ref, iter func()) {
	if len(ref) == 0 {
		iter()
		return
	}
	r.planTerm(ref[0], func() {
		r.planDotOr(func() { r.planNestedObjects(ref[1:], iter) })
	})
}

func (r *rehearsal) planFuncParams(args ast.Args, i int, iter func()) {
	if i >= len(args) {
		iter()
		return
	}
	r.enter()
	defer r.leave()
	r.planUnifyLocal(operand{}, args[i], func() { r.planFuncParams(args, i+1, iter) })
}

func (r *rehearsal) blame(e *ast.Expr) *blame {
	b := r.blames[e]
	if b == nil {
		b = &blame{}
		r.blames[e] = b
	}
	return b
}

// refusal says what is worst about a plan that is too much.
func (r *rehearsal) refusal(cause exceeded) *TooCostly {
	switch cause.limit {
	case &r.limits.depth:
		return tooCostly(cause.at, "break it up; a table belongs into data.json",
			"rules, expressions and terms are nested or follow each other more than %d deep here", r.limits.depth)
	case &r.limits.loops:
		return tooCostly(cause.at, "put what is inside of the inner loops into a rule or function",
			"loops are nested more than %d deep here: each `some`, `[_]` or variable without a value yet makes another, in which all that follows it is", r.limits.loops)
	case &r.limits.effort:
		if n := r.rules.mostSorted(); n != nil && n.made.effort*n.made.calls > r.effort/2 {
			return tooCostly(n.rules[0].Location, "let one rule refer to it, and the others to that rule",
				"%s has %d bodies and is referred to in %d places or more: planning would take too long", n.set().path, len(n.rules), n.set().calls)
		}
	}
	if n := len(r.with); n > 100 {
		return tooCostly(r.with[n-1].Location, "replace functions in fewer places that reach each other",
			"functions are replaced by `with` in what was reached with others replaced, %d deep: planning would take too long", n)
	}
	var copies, again int
	var fan, with *ast.Expr
	for e, b := range r.blames {
		copies += b.out - min(b.in, b.out)
		again += b.again
		if b.copies() > 1 && (fan == nil || worse(b.copies(), r.blames[fan].copies(), e, fan)) {
			fan = e
		}
		if b.again > 0 && (with == nil || worse(b.again, r.blames[with].again, e, with)) {
			with = e
		}
	}
	much := fmt.Sprintf("the plan would need more than %d statements", r.limits.statements)
	switch {
	case with != nil && again >= copies:
		return tooCostly(with.Location, "replace input by `with` rather than rules and functions, or let fewer such expressions reach each other",
			"all rules that this expression reaches are planned anew because of its `with`, and so for each `with` that they reach: %s", much)
	case fan != nil:
		return tooCostly(fan.Location, "bind its variables before, name the rule that is meant, or put what follows it into a rule of its own",
			"this may refer to %d rules or more, and what follows it is planned for each of them: %s", r.blames[fan].copies()-1, much)
	}
	return tooCostly(cause.at, "put tables into data.json", "the policy is too large: %s", much)
}

// worse reports whether e is worse than another expression; if both are as bad,
// it is the one that stands first.
func worse(cost, other int, e, than *ast.Expr) bool {
	return cost > other || cost == other && e.Location.Compare(than.Location) < 0
}
