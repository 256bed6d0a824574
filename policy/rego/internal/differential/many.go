package differential

import (
	"fmt"
	"strings"
)

// many makes rules of one name, so many that an index looks for those that can
// hold: most of them begin by comparing values of the input with constants.
func (g *generator) many(name string) (texts []string) {
	values := []string{"true"}
	if name != "allow" {
		values = []string{"1", "1.0", `"a"`}
	}
	for range 8 + g.IntN(14) {
		sc := &scope{}
		var body []string
		for range 1 + g.IntN(3) {
			body = append(body, g.known(sc))
		}
		if g.percent(40) {
			body = append(body, g.body(2, 1, sc))
		}
		if g.percent(10) { // which can fail before anything is compared
			body = append([]string{g.expression(1, sc)}, body...)
		}
		text := " if { " + strings.Join(body, "; ") + " }"
		switch value := pick(g.choice, values...); name[0] {
		case 's':
			text = fmt.Sprintf("%s contains %s%s", name, value, text)
		case 'o':
			text = fmt.Sprintf("%s[%s] := %s%s", name, g.quotedName(), value, text)
		default:
			if g.percent(90) {
				value = values[0] // others contradict
			}
			text = fmt.Sprintf("%s := %s%s", name, value, text)
			if g.percent(10) {
				text += fmt.Sprintf(" else := %s if { %s }", values[0], g.known(sc))
			}
		}
		texts = append(texts, text)
	}
	return texts
}

// known compares a value of the input with constants.
func (g *generator) known(sc *scope) string {
	path := pick(g.choice, "input.subject.type", "input.action.name", "input.resource.type", "input.subject.properties.n", "input.context.n", "input.context.x", "input.subject.properties.s", "input.context")
	constant := func() string {
		if strings.HasSuffix(path, ".n") && g.percent(80) {
			return g.number()
		}
		return pick(g.choice, g.quotedName, g.quotedName, g.quotedName, g.scalar)()
	}
	switch g.IntN(12) {
	case 0:
		return constant() + " == " + path
	case 1:
		return path + " in " + g.setOf(1+g.IntN(4), constant)
	case 2:
		return path + " in " + g.array(1+g.IntN(3), constant)
	case 3:
		x := g.fresh("x")
		return sc.bind(x, anything) + " := " + path + "; " + x + " == " + constant()
	case 4:
		return path + " = " + constant()
	case 5:
		return "not " + path + " == " + constant()
	case 6:
		return path + " != " + constant()
	case 7:
		return path
	}
	return path + " == " + constant()
}
