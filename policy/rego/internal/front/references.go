package front

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// measureReferences charges for the graph of rules, which has an edge for each
// rule that a reference of another may mean.
func (m *meter) measureReferences(compiler *ast.Compiler) error {
	for rule := range rulesOf(compiler.Modules) {
		r := references{meter: m, tree: compiler.RuleTree, narrowed: narrowed(rule.Body)}
		for _, t := range headTerms(rule.Head) {
			r.term(t)
		}
		r.closure(rule.Body)
		m.references += r.found
		if err := m.charge(byReferences, r.steps, rule.Location, r.found); err != nil {
			return err
		}
	}
	return nil
}

// references counts the rules that the references of a rule may mean, and what
// is gone through to find them.
type references struct {
	meter    *meter
	tree     *ast.TreeNode
	narrowed map[ast.Var]bool
	found    int64
	steps    int64 // for that
}

func (r *references) term(t *ast.Term) {
	if ref, ok := t.Value.(ast.Ref); ok {
		r.ref(ref)
	}
	partsOfTerm(t, r.term, r.closure)
}

func (r *references) ref(ref ast.Ref) {
	if len(ref) == 0 || !ref[0].Equal(ast.DefaultRootDocument) {
		return
	}
	if r.steps > r.meter.left || r.meter.alive() != nil {
		return // it is too much already, and will be refused
	}
	times := int64(1)
	for _, part := range ref {
		if v, ok := part.Value.(ast.Var); ok && r.narrowed[v] {
			times = 64 // at most, of references with the variable's values in place
		}
	}
	rules, nodes := r.meant(r.tree, ref, 0)
	r.found += mul(times, rules)
	r.steps += mul(times, 10+nodes+mul(rules, 20+int64(len(ref))))
}

func (r *references) closure(body ast.Body, head ...*ast.Term) {
	for _, e := range body {
		r.ref(e.Operator())
		partsOf(e, r.term, r.closure)
		for _, w := range e.With {
			r.term(w.Target)
		}
	}
	for _, t := range head {
		r.term(t)
	}
}

// meant counts the rules that may be meant by a reference below a node, and the
// nodes that are gone through.
func (r *references) meant(n *ast.TreeNode, ref ast.Ref, i int) (rules, nodes int64) {
	below := func(child *ast.TreeNode) {
		deeper, through := r.meant(child, ref, i+1)
		rules, nodes = rules+bodiesOf(child)+deeper, nodes+1+through
	}
	switch {
	case r.found > mayCompile/20: // it is too much already
	case i > 0 && (i >= len(ref) || !ast.IsConstant(ref[i].Value)):
		for _, child := range n.Children {
			below(child)
		}
	default:
		if child := n.Child(ref[i].Value); child != nil {
			below(child)
		}
	}
	return rules, nodes
}

// bodiesOf counts the rules of a node with their else branches. One with a long
// name counts for more: the name is compared.
func bodiesOf(n *ast.TreeNode) (count int64) {
	for _, rule := range n.Values {
		count += int64(len(rule.Module.Package.Path)+len(rule.Head.Reference)) / 40
		for ; rule != nil; rule = rule.Else {
			count++
		}
	}
	return count
}

// narrowed are variables of which the compiler knows the values: those of a
// constant collection. It looks for rules once for each of them.
func narrowed(body ast.Body) map[ast.Var]bool {
	constant, elements := map[ast.Var]bool{}, map[ast.Var]bool{}
	for _, e := range body {
		if !e.IsEquality() || len(e.Operands()) != 2 {
			continue
		}
		for i := range 2 {
			v, ok := e.Operand(i).Value.(ast.Var)
			if !ok {
				continue
			}
			switch other := e.Operand(1 - i).Value.(type) {
			case ast.Var:
				constant[v] = constant[v] || constant[other]
				elements[v] = elements[v] || elements[other]
			case ast.Ref:
				head, _ := other[0].Value.(ast.Var)
				elements[v] = elements[v] || constant[head] || elements[head] || ast.IsConstant(other[0].Value)
			default:
				constant[v] = constant[v] || ast.IsConstant(other)
			}
		}
	}
	return elements
}

// measureBelow charges for the search for rules below others, and returns how
// many there are below a node: each body of a rule is compared with every pair
// of them.
func (m *meter) measureBelow(n *ast.TreeNode) (rules int64, err error) {
	for _, child := range n.Children {
		below, err := m.measureBelow(child)
		if err != nil {
			return 0, err
		}
		rules += below
	}
	complete := int64(0)
	for _, rule := range n.Values {
		if rule.Ref().IsGround() {
			complete++
		}
	}
	if complete > 0 && rules > 0 {
		if err := m.charge(byConflicts, mul(complete, rules, rules)/2, n.Values[0].Location, rules); err != nil {
			return 0, err
		}
	}
	return rules + int64(len(n.Values)), nil
}

// OPA looks for a circle of rules once from each rule, and so takes quadratic
// time for a chain of them. Here it is asked only about the rules that are in a
// circle: hideRules leaves it only these, and showRules undoes that.
func (m *meter) hideRules(c *ast.Compiler) {
	m.rules = c.RuleTree
	c.RuleTree = &ast.TreeNode{}
	if _, ok := c.Graph.Sort(); ok {
		return
	}
	// The error of each names all that are in its circle.
	circular := circles(c)
	few := min(10_000_000/(m.references+1), 100_000/int64(len(circular)+1))
	c.RuleTree.Values = circular[:min(len(circular), int(few)+1)]
}

func (m *meter) showRules(c *ast.Compiler) { c.RuleTree = m.rules }

// circles returns the rules that refer to themselves, be it through others, by
// Tarjan's strongly connected components.
func circles(c *ast.Compiler) (circular []*ast.Rule) {
	var stack []*ast.Rule
	number, lowest, onStack := map[*ast.Rule]int{}, map[*ast.Rule]int{}, map[*ast.Rule]bool{}
	var visit func(*ast.Rule)
	visit = func(rule *ast.Rule) {
		number[rule] = len(number) + 1
		lowest[rule] = number[rule]
		stack, onStack[rule] = append(stack, rule), true
		self := false
		for d := range c.Graph.Dependencies(rule) {
			other := d.(*ast.Rule)
			self = self || other == rule
			if number[other] == 0 {
				visit(other)
				lowest[rule] = min(lowest[rule], lowest[other])
			} else if onStack[other] {
				lowest[rule] = min(lowest[rule], number[other])
			}
		}
		if lowest[rule] != number[rule] {
			return
		}
		i := len(stack) - 1
		for stack[i] != rule {
			i--
		}
		component := stack[i:]
		stack = stack[:i]
		for _, other := range component {
			onStack[other] = false
		}
		if self || len(component) > 1 {
			circular = append(circular, component...)
		}
	}
	for rule := range rulesOf(c.Modules) {
		if number[rule] == 0 {
			visit(rule)
		}
	}
	slices.SortFunc(circular, func(a, b *ast.Rule) int { return a.Location.Compare(b.Location) })
	return circular
}

// measureWith charges for the types of what is replaced by `with`: for each
// target, all rules that depend on it are given another.
func (m *meter) measureWith(c *ast.Compiler) error {
	known := map[string]bool{}
	var err error
	for rule := range rulesOf(c.Modules) {
		ast.WalkWiths(rule, func(w *ast.With) bool {
			target, ok := w.Target.Value.(ast.Ref)
			if !ok || err != nil || known[target.String()] {
				return err != nil
			}
			known[target.String()] = true
			n := dependents(c, target)
			err = m.charge(byWith, mul(n, 25), w.Location, n)
			return err != nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// dependents counts the rules that a reference may mean, and those that depend
// on them.
func dependents(c *ast.Compiler, ref ast.Ref) int64 {
	seen := map[*ast.Rule]bool{}
	rules := c.GetRulesDynamicWithOpts(ref, ast.RulesOptions{IncludeHiddenModules: true})
	for len(rules) > 0 {
		rule := rules[len(rules)-1]
		rules = rules[:len(rules)-1]
		if seen[rule] {
			continue
		}
		seen[rule] = true
		for d := range c.Graph.Dependents(rule) {
			if other := d.(*ast.Rule); !seen[other] {
				rules = append(rules, other)
			}
		}
	}
	return int64(len(seen))
}

// measureMetadata charges for the values that calls of rego.metadata are replaced
// by, in each rule that has one.
func (m *meter) measureMetadata(c *ast.Compiler) error {
	values := map[*ast.Annotations]int64{}
	for _, module := range c.Modules {
		for _, a := range module.Annotations {
			text, err := a.MarshalJSON()
			if err != nil {
				return err
			}
			values[a] = int64(len(text)) / 2
		}
	}
	if len(values) == 0 {
		return nil
	}
	for rule := range rulesOf(c.Modules) {
		calls := false
		ast.WalkExprs(rule, func(e *ast.Expr) bool {
			op := e.Operator()
			calls = calls || op.HasPrefix(ast.RegoMetadataChain.Ref()[:2])
			return calls
		})
		if !calls {
			continue
		}
		n := int64(0)
		for _, ref := range c.GetAnnotationSet().Chain(rule) {
			n += values[ref.Annotations]
		}
		if err := m.charge(byMetadata, mul(n, 4), rule.Location, n); err != nil {
			return err
		}
	}
	return nil
}
