package reads_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
)

// A generator makes policies, data and inputs that move values of the input
// around. choose returns a number below n.
type generator struct {
	choose func(n int) int

	// OPA refuses to look into what it knows to have no members, so typed tells of
	// which names it knows the type, and isTyped whether of the last value.
	typed   map[string]bool
	isTyped bool

	fresh int      // names given
	vars  []string // in scope
	rules []string // names of rules made so far that are values
	funcs []string // and of functions of one argument
	depth int
}

// question makes a question and its plan. It is an error if OPA does not compile
// or plan what was made.
func (g *generator) question(t testing.TB) (*question, *ir.Policy, error) {
	t.Helper()
	modules := g.policy()
	c, err := compile(modules, ast.RegoV1)
	if err != nil {
		return nil, nil, err
	}
	data, err := ast.JSON(g.object(1))
	if err != nil {
		t.Fatal(err)
	}
	q := &question{
		name: strings.Join(modules, "\n"), query: g.pick([]string{"data.authz.answer", "data.authz.answer", "data.authz"}), compiler: c, version: ast.RegoV1,
		store: inmem.NewFromObject(map[string]any{"d": data, "key": "a"}),
	}
	p, err := q.plan(t.Context())
	return q, p, err
}

// members are looked for in the input, two steps down. Most policies look below
// them for what is not there: so that they are read is not seen by a lookup that
// ends at them, but only by what is done with them.
var members = []string{"a", "b", "c", "e", "k"}

// policy returns the two modules of a policy that answers data.authz.answer.
func (g *generator) policy() []string {
	var authz, other strings.Builder
	authz.WriteString("package authz\n\nkey := \"b\"\n\n")
	other.WriteString("package other\n\n")
	g.rules, g.typed = []string{"key"}, map[string]bool{"key": true, "data.authz.key": true, "data.other": true}
	for range 1 + g.choose(3) {
		g.rule(&authz)
	}
	inAuthz, funcs := g.rules, g.funcs
	g.rules, g.funcs = []string{"data.authz.key"}, nil
	for _, name := range []string{"a", "b"} {
		body := g.scoped(g.body)
		fmt.Fprintf(&other, "%s := %s if {\n%s}\n\n", name, g.scoped(g.value), body)
		g.typed["data.other."+name] = g.isTyped
		g.typed["data.other[input.k]"] = true
		g.typed["data.other[key]"] = true
	}
	g.rules, g.funcs = append(inAuthz, "data.other.a", "data.other", "data.other[input.k]", "data.other[key]"), funcs
	g.rule(&authz)
	fmt.Fprintf(&authz, "answer contains 1 if {\n%s}\n\n", g.scoped(g.body))
	for _, name := range g.rules {
		choices := 4
		if strings.HasPrefix(name, "data.") {
			choices = 12 // these are several rules
		}
		switch g.choose(choices) {
		case 0:
			fmt.Fprintf(&authz, "answer contains [%q, %[1]s]\n\n", name)
		case 1:
			fmt.Fprintf(&authz, "answer contains %q if %[1]s\n\n", name)
		case 2:
			fmt.Fprintf(&authz, "answer contains [%q] if not %[1]s\n\n", name)
		}
	}
	for _, name := range g.funcs {
		fmt.Fprintf(&authz, "answer contains [%q, %[1]s(%s)]\n\n", name, g.scoped(g.ref))
	}
	if g.choose(4) > 0 {
		authz.WriteString("answer contains \"probed\" if {\n")
		for _, a := range members {
			fmt.Fprintf(&authz, "\tnot input.%s.probe\n", a)
			for _, b := range members {
				fmt.Fprintf(&authz, "\tnot input.%s.%s.probe\n", a, b)
			}
		}
		authz.WriteString("}\n")
	}
	return []string{authz.String(), other.String()}
}

// scoped makes something whose variables nobody else sees.
func (g *generator) scoped(f func() string) string {
	vars := g.vars
	defer func() { g.vars = vars }()
	return f()
}

func (g *generator) name(prefix string) string {
	g.fresh++
	return fmt.Sprintf("%s%d", prefix, g.fresh)
}

func (g *generator) rule(w *strings.Builder) {
	vars := g.vars
	defer func() { g.vars = vars }()
	name := g.name("r")
	switch g.choose(8) {
	case 0: // a value in one of two ways, which may conflict
		for range 2 {
			body := g.body()
			fmt.Fprintf(w, "%s := %s if {\n%s}\n\n", name, g.value(), body)
			g.typed[name] = g.typed[name] || g.isTyped
			g.vars = vars
		}
	case 1:
		fmt.Fprintf(w, "default %s := {\"a\": 1}\n\n", name)
		body := g.body()
		fmt.Fprintf(w, "%s := %s if {\n%s}", name, g.value(), body)
		g.typed[name] = g.isTyped
		g.vars = vars
		body = g.body()
		fmt.Fprintf(w, " else := %s if {\n%s}\n\n", g.value(), body)
		g.typed[name] = g.typed[name] || g.isTyped
	case 2:
		body := g.body()
		fmt.Fprintf(w, "%s contains %s if {\n%s}\n\n", name, g.value(), body)
		g.typed[name] = true
	case 3:
		body := g.body()
		fmt.Fprintf(w, "%s[%s] := %s if {\n%s}\n\n", name, g.value(), g.value(), body)
		g.typed[name] = true
	case 4, 5:
		name = g.name("f")
		g.vars = append(g.vars, "p")
		body := g.body()
		fmt.Fprintf(w, "%s(p) := %s if {\n%s}\n\n", name, g.value(), body)
		g.typed[name] = g.isTyped
		g.funcs = append(g.funcs, name)
		return
	default:
		fmt.Fprintf(w, "%s := %s\n\n", name, g.value())
		g.typed[name] = g.isTyped
	}
	g.rules = append(g.rules, name)
}

// body returns one to three expressions, each on its line.
func (g *generator) body() string {
	var b strings.Builder
	for range 1 + g.choose(2) {
		b.WriteString("\t" + g.expr() + "\n")
	}
	return b.String()
}

func (g *generator) expr() string {
	g.depth++
	defer func() { g.depth-- }()
	kinds := 16
	if g.depth > 2 {
		kinds = 6
	}
	switch g.choose(kinds) {
	case 0:
		value := g.collection()
		return value + " == " + g.value()
	case 1:
		value := g.ref()
		return value + " = " + g.ref()
	case 2:
		return g.collection() + " != " + g.scalar()
	case 3, 4:
		value, typed := g.value(), g.isTyped
		name := g.bind()
		g.typed[name] = typed
		return name + " := " + value
	case 5:
		return g.ref()
	case 6:
		value := g.collection()
		name := g.bind()
		return fmt.Sprintf("some %s in %s; %[1]s == %[1]s", name, value)
	case 7:
		value := g.collection()
		return fmt.Sprintf("some %s, %s in %s; %[1]s == %[1]s; %[2]s == %[2]s", g.bind(), g.bind(), value)
	case 8:
		value := g.collection()
		return g.scoped(func() string {
			return fmt.Sprintf("every %s in %s {\n%[1]s == %[1]s\n%[3]s}", g.bind(), value, g.body())
		})
	case 9, 10:
		return g.scoped(func() string { return "not " + g.ref() })
	case 11:
		value := g.collection()
		return fmt.Sprintf("[%s, %s] = %s", g.bind(), g.bind(), value)
	case 12:
		value := g.collection()
		return fmt.Sprintf("{\"a\": %s} = %s", g.bind(), value)
	case 13:
		value := g.value()
		return fmt.Sprintf("walk(%s, [%s, %s])", value, g.bind(), g.bind())
	default:
		return g.with()
	}
}

func (g *generator) with() string {
	expr := g.pick([]string{"data.d[_]", "data.d.a[_]", "data.d", "data.d.a.b", "input.a", "input.a.b", "is_string(input.a.b)"})
	if g.choose(2) == 0 {
		expr = g.pick(g.rules)
	}
	if g.choose(3) == 0 && !g.typed[expr] {
		expr += " != " + g.scalar()
	}
	for range 1 + g.choose(2) {
		switch g.choose(7) {
		case 0:
			expr += " with input as " + g.part()
		case 1:
			expr += " with input.a as " + g.part()
		case 2:
			expr += " with input.a.b as " + g.value()
		case 3:
			expr += " with data.d as " + g.part()
		case 4:
			expr += " with data.d.a as " + g.part()
		case 5:
			expr += " with count as " + g.function()
		case 6:
			if len(g.funcs) > 0 {
				replacement := g.value()
				if g.choose(2) == 0 {
					replacement = g.function()
				}
				expr += " with " + g.pick(g.funcs) + " as " + replacement
			}
		}
	}
	return expr
}

func (g *generator) function() string {
	return g.pick(append([]string{"count", "is_object"}, g.funcs...))
}

// collection returns a value of which OPA does not know the type.
func (g *generator) collection() string {
	if value := g.ref(); !g.isTyped {
		return value
	}
	return "input." + g.pick(members)
}

func (g *generator) bind() string {
	name := g.name("v")
	g.vars = append(g.vars, name)
	return name
}

func (g *generator) pick(from []string) string { return from[g.choose(len(from))] }

func (g *generator) scalar() string {
	return g.pick([]string{"1", "0", "\"a\"", "\"b\"", "true", "false", "null", "{}", "[]"})
}

// ref returns a reference into the input, a variable, a rule, data, or what a
// function returns.
func (g *generator) ref() string {
	var b strings.Builder
	var head string
	switch kind := g.choose(12); {
	case kind < 2 && len(g.vars) > 0:
		head = g.pick(g.vars)
		b.WriteString(head)
	case kind < 4 && len(g.rules) > 0:
		head = g.pick(g.rules)
		b.WriteString(head)
	case kind == 4 && len(g.funcs) > 0 && g.depth < 4:
		g.depth++
		head = g.pick(g.funcs)
		b.WriteString(head + "(" + g.value() + ")")
		g.depth--
	case kind == 5:
		b.WriteString("data.d")
	case kind < 9:
		return g.part()
	default:
		b.WriteString("input")
	}
	if g.isTyped = g.typed[head]; g.isTyped {
		return b.String()
	}
	if (head == "" || head == "data.other") && g.choose(30) > 0 {
		b.WriteString(g.pick([]string{".a", ".b", ".c"})) // elements only below
	} else if head == "" {
		return b.String()
	}
	steps := []string{".a", ".a", ".b", ".b", ".c", "[0]", "[1]", "[\"0\"]"}
	for range g.choose(2) {
		switch g.choose(16) {
		case 0:
			b.WriteString("[input.k]")
		case 1:
			b.WriteString("[data.key]")
		case 2:
			if len(g.vars) > 0 {
				b.WriteString("[" + g.pick(g.vars) + "]")
			}
		case 3:
			b.WriteString("[key]")
			if len(g.rules) > 0 && g.rules[0] != "key" {
				return b.String()[:b.Len()-len("[key]")]
			}
		default:
			b.WriteString(g.pick(steps))
		}
	}
	return b.String()
}

// part returns a part of the input.
func (g *generator) part() string {
	g.isTyped = false
	part := "input." + g.pick(members)
	if g.choose(3) == 0 {
		part += "." + g.pick(members)
	}
	return part
}

func (g *generator) value() string {
	g.depth++
	defer func() { g.depth-- }()
	kinds := 24
	if g.depth > 3 {
		kinds = 11
	}
	kind := g.choose(kinds)
	text := g.valueOf(kind)
	if kind >= 9 && kind < 23 {
		g.isTyped = kind != 17 && kind != 18
	}
	return text
}

func (g *generator) valueOf(kind int) string {
	switch kind {
	default:
		return g.ref()
	case 9, 10:
		return g.scalar()
	case 11:
		return "[" + g.value() + ", " + g.value() + "]"
	case 12:
		return "{" + g.value() + "}"
	case 13:
		return "{" + g.pick([]string{"\"a\"", g.ref()}) + ": " + g.value() + ", \"b\": " + g.value() + "}"
	case 14:
		return g.scoped(func() string { body := g.body(); return "[" + g.value() + " |\n" + body + "]" })
	case 15:
		return g.scoped(func() string { body := g.body(); return "{" + g.value() + " |\n" + body + "}" })
	case 16:
		return g.scoped(func() string {
			body := g.body()
			return "{" + g.value() + ": " + g.value() + " |\n" + body + "}"
		})
	case 17, 18:
		path := g.pick([]string{"\"a\"", "\"b\"", "[\"a\", \"b\"]", "[\"a\", 0]", "[\"b\", \"a\", \"c\"]", "[]", "data.key", "[\"a\", input.k]", "0"})
		return "object.get(" + g.collection() + ", " + path + ", " + g.value() + ")"
	case 19:
		return "count(" + g.collection() + ")"
	case 20:
		return g.pick([]string{"type_name", "is_object", "json.marshal", "upper", "object.keys"}) + "(" + g.collection() + ")"
	case 21:
		return "startswith(" + g.collection() + ", \"a\")"
	case 22:
		return "$\"<{" + g.ref() + "}>\""
	}
}

// input returns a random JSON object.
func (g *generator) input() ast.Value { return g.object(0) }

func (g *generator) object(depth int) ast.Value {
	o := ast.NewObject()
	for _, k := range append([]string{"0"}, members...) {
		if g.choose(6) > 0 {
			o.Insert(ast.StringTerm(k), ast.NewTerm(g.json(depth+1)))
		}
	}
	return o
}

func (g *generator) json(depth int) ast.Value {
	kinds := 12
	if depth > 3 {
		kinds = 7
	}
	switch g.choose(kinds) {
	case 0, 1:
		return ast.String("a")
	case 2:
		return ast.String("b")
	case 3:
		return ast.Number("0")
	case 4:
		return ast.Number("1")
	case 5:
		return ast.Boolean(g.choose(2) == 0)
	case 6:
		return ast.Null{}
	case 7, 8:
		a := ast.NewArray()
		for range g.choose(4) {
			a = a.Append(ast.NewTerm(g.json(depth + 1)))
		}
		return a
	default:
		return g.object(depth)
	}
}
