package differential

import "strings"

// body makes at most n expressions, which bind variables in sc.
func (g *generator) body(n, depth int, sc *scope) string {
	exprs := make([]string, 1+g.IntN(max(n, 1)))
	for i := range exprs {
		exprs[i] = g.expression(depth, sc)
	}
	return strings.Join(exprs, "; ")
}

// expression makes one expression of a body.
func (g *generator) expression(depth int, sc *scope) string {
	switch n := g.IntN(100); {
	case n < 15:
		k := g.kind()
		text := g.term(k, depth, sc)
		return sc.bind(g.fresh("x"), k) + " := " + text + g.with(depth, sc)
	case n < 40:
		return g.comparison(depth, sc) + g.with(depth, sc)
	case n < 50:
		return g.iteration(depth, sc)
	case n < 58:
		return g.scan(depth, sc)
	case n < 66:
		return g.pattern(depth, sc)
	case n < 76:
		return g.test(depth, sc) + g.with(depth, sc)
	case n < 84:
		return g.negation(depth, sc)
	case n < 91 && depth > 0:
		return g.every(depth, sc)
	case n < 93:
		return g.walk(sc)
	case n < 97 && g.v2 && depth > 0:
		return "{ " + g.body(1+g.IntN(2), depth-1, sc.inner()) + " } " + pick(g.choice, "and", "or") + " { " + g.body(1, depth-1, sc.inner()) + " }"
	}
	return g.term(boolean, depth, sc)
}

// test makes an expression that binds nothing, and holds or does not.
func (g *generator) test(depth int, sc *scope) string {
	switch g.IntN(6) {
	case 0:
		return g.term(anything, depth-1, sc) + " in " + g.term(pick(g.choice, array, set, object), depth, sc)
	case 1:
		return g.reference(anything, sc)
	case 2, 3:
		if r := g.askRule(boolean, depth, sc); r != "" {
			return r
		}
	}
	return g.call(boolean, depth, sc)
}

func (g *generator) negation(depth int, sc *scope) string {
	if g.v2 && g.percent(30) {
		return "not { " + g.body(1+g.IntN(2), depth-1, sc.inner()) + " }"
	}
	if g.percent(50) {
		return "not " + g.comparison(depth, sc) + g.with(depth, sc)
	}
	return "not " + g.test(depth, sc) + g.with(depth, sc)
}

// iteration makes `some ... in`.
func (g *generator) iteration(depth int, sc *scope) string {
	over := g.term(pick(g.choice, array, set, object, object), depth, sc)
	value := g.fresh("v")
	if g.percent(50) {
		sc.bind(value, anything)
		return "some " + value + " in " + over
	}
	key := g.fresh("k")
	sc.bind(key, text)
	if g.percent(15) {
		a, b := g.fresh("v"), g.fresh("v")
		sc.bind(a, anything)
		sc.bind(b, anything)
		return "some " + key + ", " + pick(g.choice, "["+a+", "+b+"]", `{"a": `+a+`, "b": `+b+"}") + " in " + over
	}
	sc.bind(value, anything)
	return "some " + key + ", " + value + " in " + over
}

// scan makes a reference with variables that it binds.
func (g *generator) scan(depth int, sc *scope) string {
	a, b := g.fresh("i"), g.fresh("i")
	declared := ""
	if g.percent(70) {
		declared = "some " + a + ", " + b + "; "
	}
	ref := pick(g.choice,
		"data.users["+a+"].roles["+b+"]", "data.roles["+a+"]["+b+"].action", "data.graph["+a+"]["+b+"]", "data.m["+a+"]["+b+"]",
		"input.subject.properties["+a+"]["+b+"]", "input.context["+a+"]["+b+"]", "input["+a+"].properties["+b+"]", "data.roles["+a+"]["+b+"]")
	if r := g.scanRule(a, b); r != "" && g.percent(40) {
		ref = r
	}
	sc.bind(a, text)
	sc.bind(b, anything)
	switch g.IntN(4) {
	case 0:
		return declared + ref
	case 1:
		v := g.fresh("x")
		return declared + sc.bind(v, anything) + " := " + ref
	}
	return declared + ref + " " + pick(g.choice, "==", "==", "=", "!=") + " " + g.term(pick(g.choice, text, anything), depth-1, sc)
}

// pattern takes a value apart by unification.
func (g *generator) pattern(depth int, sc *scope) string {
	a, b := g.fresh("x"), g.fresh("x")
	var left string
	var k kind
	switch g.IntN(6) {
	case 0:
		left, k = "["+a+", "+b+"]", array
	case 1:
		left, k = "["+a+", "+g.term(anything, 0, sc)+", "+b+"]", array
	case 2:
		left, k = `{"a": `+a+`, "b": `+b+"}", object
	case 3:
		left, k = "["+a+`, {"a": `+b+"}]", array
	case 4:
		left, k = "["+a+", ["+b+", _]]", array
	case 5:
		left, k = "["+a+", "+b+", "+a+"]", array
	}
	right := g.reference(anything, sc)
	switch g.IntN(3) {
	case 0:
		right = g.term(k, depth, sc)
	case 1:
		elems := []string{g.term(anything, depth-1, sc), g.term(anything, depth-1, sc)}
		switch {
		case k == object:
			right = `{"a": ` + elems[0] + `, "b": ` + elems[1] + "}"
		case g.percent(40): // both sides have something to bind
			c := g.fresh("x")
			right = "[" + c + ", " + elems[1] + "]"
			left = "[" + elems[0] + ", " + b + "]"
			a = c
		default:
			right = "[" + strings.Join(elems, ", ") + "]"
		}
	}
	sc.bind(a, anything)
	sc.bind(b, anything)
	if g.percent(15) {
		left, right = right, left
	}
	return left + " = " + right
}

func (g *generator) every(depth int, sc *scope) string {
	over := g.term(pick(g.choice, array, set, object), depth-1, sc)
	in := sc.inner()
	vars := in.bind(g.fresh("v"), anything)
	if g.percent(40) {
		vars = in.bind(g.fresh("k"), text) + ", " + vars
	}
	return "every " + vars + " in " + over + " { " + g.body(1+g.IntN(2), depth-1, in) + " }"
}

func (g *generator) walk(sc *scope) string {
	over := pick(g.choice, "input.context", "input.subject.properties", "data.m", "data.list", "data.users")
	path, v := g.fresh("p"), g.fresh("v")
	switch g.IntN(3) {
	case 0:
		sc.bind(v, anything)
		return "walk(" + over + ", [_, " + v + "])"
	case 1:
		sc.bind(path, array)
		return "walk(" + over + ", [" + path + ", " + g.scalar() + "])"
	}
	sc.bind(path, array)
	sc.bind(v, anything)
	return "walk(" + over + ", [" + path + ", " + v + "])"
}

// with makes modifiers, mostly none.
func (g *generator) with(depth int, sc *scope) string {
	if depth <= 0 || !g.percent(12) {
		return ""
	}
	var b strings.Builder
	for range 1 + g.IntN(2) {
		b.WriteString(" with ")
		switch g.IntN(8) {
		case 0:
			b.WriteString("input as " + g.term(object, depth-1, sc))
		case 1, 2:
			b.WriteString("input." + pick(g.choice, "subject.id", "subject.properties", "context", "context.x", "context.list", "action.name", "subject.properties.roles", "context.new") + " as " + g.term(anything, depth-1, sc))
		case 3, 4:
			b.WriteString("data." + pick(g.choice, "m", "n", "s", "list", "users", "users.ann", "texts", "m.a", "m.a.b", "new", "new.a") + " as " + g.term(anything, depth-1, sc))
		case 5:
			b.WriteString(g.replaceRule(depth, sc))
		default:
			b.WriteString(g.replaceFunction(depth, sc))
		}
	}
	return b.String()
}
