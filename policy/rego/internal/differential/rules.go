package differential

import (
	"fmt"
	"strings"
)

// form is how a rule is asked.
type form uint8

const (
	complete form = iota // a value
	members              // contains
	mapping              // a value under each key
	nested               // a mapping or set under each key
	function
)

// rule that others may ask.
type rule struct {
	pack string // "authz" or "lib"
	name string
	form form
	// kind of the value, of the members or values under keys, or of the result.
	kind   kind
	params []kind // of a function
}

// ref names a rule where others ask it.
func (g *generator) ref(r rule) string {
	if r.pack == "authz" && g.percent(70) {
		return r.name
	}
	return "data." + r.pack + "." + r.name
}

// askRule makes a term of a rule, "" if none fits.
func (g *generator) askRule(k kind, depth int, sc *scope) string {
	var fit []rule
	for _, r := range g.rules {
		if r.kind == k || k == anything || r.kind == anything || k == set && r.form == members || k == object && (r.form == mapping || r.form == nested) {
			fit = append(fit, r)
		}
	}
	if len(fit) == 0 {
		return ""
	}
	r := pick(g.choice, fit...)
	name := g.ref(r)
	key := func() string { return g.term(pick(g.choice, text, anything), depth-1, sc) }
	switch r.form {
	case function:
		return name + "(" + g.arguments(r.params, depth, sc) + ")"
	case members:
		if k == set || g.percent(30) {
			return name
		}
		if r.kind == anything && g.percent(30) {
			return name + "[" + g.literal(array, 1, sc) + "]"
		}
		return name + "[" + key() + "]"
	case mapping:
		if k == object {
			return name
		}
		return name + "[" + key() + "]"
	case nested:
		if k == object {
			return name
		}
		if g.percent(30) {
			return name + "[" + key() + "]"
		}
		return name + "[" + key() + "][" + key() + "]"
	}
	if r.kind == anything && g.percent(20) {
		return name + "[" + key() + "]"
	}
	return name
}

// scanRule makes a reference into a rule with variables that it binds, "" if
// there is none.
func (g *generator) scanRule(a, b string) string {
	for range 5 {
		if len(g.rules) == 0 {
			return ""
		}
		switch r := pick(g.choice, g.rules...); r.form {
		case members:
			return pick(g.choice, g.ref(r)+"["+a+"]; "+b+" := 1", g.ref(r)+"[["+a+", "+b+"]]")
		case mapping, nested:
			return g.ref(r) + "[" + a + "][" + b + "]"
		}
	}
	return ""
}

// replaceRule makes the target and value of `with` for a rule.
func (g *generator) replaceRule(depth int, sc *scope) string {
	for range 5 {
		if len(g.rules) == 0 {
			break
		}
		if r := pick(g.choice, g.rules...); r.form != function {
			k := r.kind
			switch r.form {
			case members:
				k = set
			case mapping, nested:
				k = object
			}
			return "data." + r.pack + "." + r.name + " as " + g.term(k, depth-1, sc)
		}
	}
	return "data.n as " + g.term(anything, depth-1, sc)
}

// replaceFunction makes the target and value of `with` for a function.
func (g *generator) replaceFunction(depth int, sc *scope) string {
	var target string
	arity, k := 1, anything
	if g.percent(50) {
		target = pick(g.choice, "count", "lower", "is_string", "json.marshal", "sort")
		k = map[string]kind{"count": number, "lower": text, "is_string": boolean, "json.marshal": text, "sort": array}[target]
	} else {
		for range 5 {
			if len(g.rules) == 0 {
				break
			}
			if r := pick(g.choice, g.rules...); r.form == function {
				target, arity, k = "data."+r.pack+"."+r.name, len(r.params), r.kind
				break
			}
		}
	}
	if target == "" {
		return "input.context.x as " + g.term(anything, depth-1, sc)
	}
	for range 4 {
		if len(g.rules) == 0 {
			break
		}
		if r := pick(g.choice, g.rules...); r.form == function && len(r.params) == arity {
			return target + " as data." + r.pack + "." + r.name
		}
	}
	return target + " as " + g.term(k, depth-1, sc)
}

// define makes a helper, its rules one after the other, and lets later ones ask
// it.
func (g *generator) define(pack string) []string {
	r := rule{pack: pack, form: pick(g.choice, complete, complete, complete, members, members, mapping, mapping, nested, function, function), kind: g.kind()}
	var texts []string
	switch r.form {
	case complete:
		r.name = g.fresh("h")
		texts = g.completeRules(r)
	case members:
		r.name = g.fresh("s")
		for range 1 + g.IntN(3) {
			sc := &scope{}
			body := g.body(1+g.IntN(3), 2, sc)
			texts = append(texts, r.name+" contains "+g.term(r.kind, 1, sc)+" if { "+body+" }")
		}
	case mapping:
		r.name = g.fresh("o")
		for range 1 + g.IntN(3) {
			sc := &scope{}
			key := sc.bind(g.fresh("k"), text)
			from := g.keys(key, sc)
			body := g.body(1+g.IntN(2), 2, sc)
			head := fmt.Sprintf("%s[%s] := %s", r.name, key, g.term(r.kind, 1, sc))
			if g.percent(20) {
				head = fmt.Sprintf("%s[%s] := %s", r.name, g.quotedName(), g.literal(r.kind, 0, sc))
			}
			texts = append(texts, head+" if { "+from+"; "+body+" }")
		}
	case nested:
		r.name = g.fresh("r")
		texts = g.nestedRules(r)
	case function:
		r.name = g.fresh("f")
		for range 1 + g.IntN(2) {
			r.params = append(r.params, pick(g.choice, anything, text, number, array, object))
		}
		texts = g.functionRules(r)
	}
	g.rules = append(g.rules, r)
	return texts
}

// keys makes an expression that binds a key.
func (g *generator) keys(key string, sc *scope) string {
	if g.percent(50) {
		return "some " + key + " in " + pick(g.choice, "data.texts", "input.subject.properties.roles", "data.list", `["a", "b", "ann"]`)
	}
	return "some " + key + ", _ in " + g.term(object, 1, sc.inner())
}

func (g *generator) completeRules(r rule) (texts []string) {
	clause := func() (value, body string) {
		sc := &scope{}
		body = g.body(1+g.IntN(3), 2, sc)
		return g.term(r.kind, 2, sc), body
	}
	if g.percent(40) {
		texts = append(texts, fmt.Sprintf("default %s := %s", r.name, g.literal(r.kind, 0, &scope{})))
	}
	switch g.IntN(4) {
	case 0: // one that holds always
		texts = append(texts, r.name+" := "+g.term(r.kind, 2, &scope{}))
	case 1: // several that hold the same
		value := g.literal(r.kind, 0, &scope{})
		for range 1 + g.IntN(3) {
			_, body := clause()
			texts = append(texts, fmt.Sprintf("%s := %s if { %s }", r.name, value, body))
		}
	default:
		var text strings.Builder
		value, body := clause()
		fmt.Fprintf(&text, "%s := %s if { %s }", r.name, value, body)
		for range g.IntN(3) {
			value, body := clause()
			fmt.Fprintf(&text, " else := %s if { %s }", value, body)
		}
		if g.percent(30) {
			text.WriteString(" else := " + g.literal(r.kind, 0, &scope{}))
		}
		texts = append(texts, text.String())
		if g.percent(15) { // which may contradict
			value, body := clause()
			texts = append(texts, fmt.Sprintf("%s := %s if { %s }", r.name, value, body))
		}
	}
	return texts
}

func (g *generator) nestedRules(r rule) (texts []string) {
	fixed := g.percent(30) // keys that stand in the text
	sets := g.percent(40)
	for range 1 + g.IntN(3) {
		sc := &scope{}
		a := sc.bind(g.fresh("k"), text)
		from := g.keys(a, sc)
		body := g.body(1+g.IntN(2), 2, sc)
		value := g.term(r.kind, 1, sc)
		var head string
		switch {
		case fixed && sets:
			head = fmt.Sprintf("%s.%s[%s] contains %s", r.name, g.name(), a, value)
		case fixed:
			head = fmt.Sprintf("%s.%s.%s := %s", r.name, g.name(), g.name(), g.literal(r.kind, 0, sc))
		case sets:
			head = fmt.Sprintf("%s[%s] contains %s", r.name, a, value)
		default:
			head = fmt.Sprintf("%s[%s].%s := %s", r.name, a, g.name(), value)
			if g.percent(40) {
				head = fmt.Sprintf("%s[%s][%s] := %s", r.name, a, g.term(text, 0, sc), g.literal(r.kind, 0, sc))
			}
		}
		texts = append(texts, head+" if { "+from+"; "+body+" }")
	}
	return texts
}

func (g *generator) functionRules(r rule) (texts []string) {
	if g.percent(25) {
		wild := strings.TrimSuffix(strings.Repeat("_, ", len(r.params)), ", ")
		texts = append(texts, fmt.Sprintf("default %s(%s) := %s", r.name, wild, g.literal(r.kind, 0, &scope{})))
	}
	same := g.literal(r.kind, 0, &scope{})
	for i := range 1 + g.IntN(3) {
		sc := &scope{}
		params := make([]string, len(r.params))
		for j, k := range r.params {
			switch n := g.IntN(10); {
			case n < 2:
				params[j] = g.literal(k, 0, sc)
			case n < 3 && (k == array || k == anything):
				params[j] = "[" + sc.bind(g.fresh("a"), anything) + ", " + sc.bind(g.fresh("a"), anything) + "]"
			case n < 4 && (k == object || k == anything):
				params[j] = `{"a": ` + sc.bind(g.fresh("a"), anything) + "}"
			default:
				params[j] = sc.bind(g.fresh("a"), k)
			}
		}
		value := same
		if i == 0 && g.percent(50) || g.percent(10) {
			value = ""
		}
		body := g.body(1+g.IntN(2), 2, sc)
		if value == "" {
			value = g.term(r.kind, 2, sc)
		}
		text := fmt.Sprintf("%s(%s) := %s if { %s }", r.name, strings.Join(params, ", "), value, body)
		if g.percent(25) {
			in := &scope{vars: sc.vars[:0:0]}
			text += fmt.Sprintf(" else := %s if { %s }", g.literal(r.kind, 0, in), g.body(1, 1, in))
		}
		texts = append(texts, text)
	}
	return texts
}

// answers makes the four rules that decisions ask.
func (g *generator) answers() (texts []string) {
	if g.percent(60) {
		texts = append(texts, "default allow := "+pick(g.choice, "false", "false", "true"))
	}
	for range 1 + g.IntN(3) {
		texts = append(texts, "allow if { "+g.body(1+g.IntN(4), 3, &scope{})+" }")
	}
	for _, name := range []string{"deny", "reasons"} {
		for range g.IntN(3) {
			sc := &scope{}
			body := g.body(1+g.IntN(3), 3, sc)
			text := g.quotedText()
			if g.percent(50) {
				text = fmt.Sprintf("sprintf(\"%%v %%v\", [%s, %s])", g.term(anything, 1, sc), g.term(anything, 0, sc))
			}
			texts = append(texts, name+" contains "+text+" if { "+body+" }")
		}
	}
	for range g.IntN(3) {
		sc := &scope{}
		body := g.body(1+g.IntN(2), 2, sc)
		texts = append(texts, fmt.Sprintf("obligations[%s] := %s if { %s }", g.quotedName(), g.term(anything, 1, sc), body))
	}
	return texts
}
