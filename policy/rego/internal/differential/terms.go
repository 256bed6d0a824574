package differential

import (
	"fmt"
	"slices"
	"strings"
)

// kind is what a term is likely to be. It keeps the type checker content, and
// most calls from failing.
type kind uint8

const (
	anything kind = iota
	number
	text
	boolean
	array
	object
	set
)

// variable of a body.
type variable struct {
	name string
	kind kind
}

// scope has the variables that are bound where a term stands.
type scope struct {
	vars []variable
}

// inner is a scope within: what is bound there is not bound outside.
func (sc *scope) inner() *scope { return &scope{vars: slices.Clip(sc.vars)} }

func (sc *scope) bind(name string, k kind) string {
	sc.vars = append(sc.vars, variable{name, k})
	return name
}

// generator of one case.
type generator struct {
	choice
	rules []rule // those that may be asked: they ask none that come later
	count int    // of names given
	v2    bool   // the module may use `and`, `or` and `not {}`
}

func (g *generator) fresh(prefix string) string {
	g.count++
	return fmt.Sprintf("%s%d", prefix, g.count)
}

func (g *generator) kind() kind {
	return pick(g.choice, anything, number, text, boolean, array, object, set)
}

// term makes a term that is likely to be of a kind.
func (g *generator) term(k kind, depth int, sc *scope) string {
	if k == anything && g.percent(70) {
		k = g.kind()
	}
	switch n := g.IntN(100); {
	case n < 25:
		if v := g.variable(k, sc); v != "" {
			return v
		}
		return g.reference(k, sc)
	case n < 45:
		return g.reference(k, sc)
	case n < 55 || depth <= 0:
		return g.literal(k, depth, sc)
	case n < 65:
		if r := g.askRule(k, depth, sc); r != "" {
			return r
		}
		return g.call(k, depth, sc)
	case n < 85:
		return g.call(k, depth, sc)
	}
	return g.composed(k, depth, sc)
}

// variable returns a variable that is bound, "" if none fits.
func (g *generator) variable(k kind, sc *scope) string {
	var fit []string
	for _, v := range sc.vars {
		if v.kind == k || v.kind == anything || k == anything {
			fit = append(fit, v.name)
		}
	}
	if len(fit) == 0 {
		return ""
	}
	return pick(g.choice, fit...)
}

// reference looks something up in input or data.
func (g *generator) reference(k kind, sc *scope) string {
	entity := pick(g.choice, "input.subject", "input.resource")
	key := func() string { return g.key(sc) }
	switch k {
	case number:
		return pick(g.choice, entity+".properties.n", "input.context.n", "input.time.hour", "input.time.unix", "data.n", "data.nums["+pick(g.choice, "0", "1", "_")+"]", "data.users["+key()+"].level")
	case text:
		return pick(g.choice, entity+".type", entity+".id", "input.action.name", entity+".properties.s", "input.context.s", "data.s", "data.texts["+pick(g.choice, "0", "1", "_")+"]", "input.context.texts[_]", "data.users["+key()+"].roles[0]")
	case boolean:
		return pick(g.choice, "input.context.x", entity+".properties["+key()+"]", "data.m["+key()+"]")
	case array:
		return pick(g.choice, "data.nums", "data.texts", "data.list", "data.users["+key()+"].roles", "input.context.list", entity+".properties.roles", "data.graph["+key()+"]", "data.roles["+key()+"]")
	case object:
		return pick(g.choice, "input", "input.subject", "input.context", "input.time", entity+".properties", "data.users", "data.m", "data.roles", "data.graph", "data.users["+key()+"]", entity+".properties.m")
	case set:
		return "{x | some x in " + pick(g.choice, "data.nums", "data.texts", "data.list", "input.context.list", "data.m") + "}"
	}
	return pick(g.choice, "input.context.x", "input.context["+key()+"]", entity+".properties["+key()+"]", entity+".properties.m["+key()+"]", "data.m["+key()+"]", "data.m["+key()+"]["+key()+"]", "data.list["+g.small()+"]", "data.list[_]", "input["+key()+"]", "input.context.list["+g.small()+"]", "input")
}

// key makes what a look-up goes by.
func (g *generator) key(sc *scope) string {
	switch n := g.IntN(10); {
	case n < 4:
		return g.quotedName()
	case n < 5:
		return "_"
	case n < 6:
		return pick(g.choice, "input.action.name", "input.subject.id", "input.subject.type")
	case n < 7:
		return g.scalar()
	}
	if v := g.variable(text, sc); v != "" {
		return v
	}
	return g.quotedName()
}

// literal makes a value, or a collection of terms.
func (g *generator) literal(k kind, depth int, sc *scope) string {
	switch k {
	case number:
		return g.number()
	case text:
		if g.percent(10) && depth > 0 {
			return "$\"" + pick(g.choice, "", "x ") + "{" + g.term(pick(g.choice, anything, text, number), depth-1, sc) + "}\""
		}
		return g.quotedText()
	case boolean:
		return pick(g.choice, "true", "false")
	case array:
		return g.array(g.IntN(4), func() string { return g.element(depth-1, sc) })
	case object:
		return g.object(g.IntN(4), func() string { return g.element(depth-1, sc) })
	case set:
		return g.setOf(g.IntN(4), func() string { return g.element(depth-1, sc) })
	}
	return g.scalar()
}

func (g *generator) element(depth int, sc *scope) string {
	if depth <= 0 {
		return g.scalar()
	}
	return g.term(anything, depth, sc)
}

// composed makes a term with an operator or a comprehension.
func (g *generator) composed(k kind, depth int, sc *scope) string {
	binary := func(k kind, operators ...string) string {
		return "(" + g.term(k, depth-1, sc) + " " + pick(g.choice, operators...) + " " + g.term(k, depth-1, sc) + ")"
	}
	switch k {
	case number:
		return binary(number, "+", "-", "*", "/", "%")
	case set:
		if g.percent(50) {
			return binary(set, "&", "|", "-")
		}
		in := sc.inner()
		body := g.body(1+g.IntN(2), depth-1, in)
		return "{" + g.term(anything, depth-2, in) + " | " + body + "}"
	case array:
		in := sc.inner()
		body := g.body(1+g.IntN(2), depth-1, in)
		return "[" + g.term(anything, depth-2, in) + " | " + body + "]"
	case object:
		in := sc.inner()
		name := in.bind(g.fresh("k"), text)
		body := "some " + name + ", _ in " + g.term(object, depth-2, sc) + "; " + g.body(1, depth-1, in)
		key := name
		if g.percent(15) { // two members may be one
			key = g.term(text, 0, in)
		}
		return "{" + key + ": " + g.term(anything, depth-2, in) + " | " + body + "}"
	case boolean:
		if g.percent(30) {
			return "(" + g.term(anything, depth-1, sc) + " in " + g.term(pick(g.choice, array, set, object), depth-1, sc) + ")"
		}
		return g.comparison(depth, sc)
	}
	return g.term(text, depth-1, sc)
}

// comparison compares two terms of a kind.
func (g *generator) comparison(depth int, sc *scope) string {
	k := pick(g.choice, number, number, text, text, text, anything, array, object, set)
	left, right := g.term(k, depth-1, sc), g.term(k, depth-1, sc)
	if g.percent(60) { // what is not known before meets what is
		left = g.reference(k, sc)
		right = g.literal(k, depth-1, sc)
	}
	if g.percent(10) {
		left, right = right, left
	}
	return left + " " + pick(g.choice, "==", "==", "==", "!=", "!=", "<", "<=", ">", ">=") + " " + right
}

// arguments makes as many terms as a function has parameters.
func (g *generator) arguments(kinds []kind, depth int, sc *scope) string {
	args := make([]string, len(kinds))
	for i, k := range kinds {
		args[i] = g.term(k, depth-1, sc)
	}
	return strings.Join(args, ", ")
}
