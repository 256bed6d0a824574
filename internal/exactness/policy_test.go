package exactness_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/microwall/microwall/policy"
)

// part is one rule of a policy: a form, and what it reads and compares with.
type part struct {
	form  string // with PATH, VALUE, TYPE, TIME, ODD and NAME
	path  string
	value int
}

// What a part may read.
var paths = []string{
	"input.subject.id", "input.subject.type", "input.subject.properties.role", "input.subject.properties.level", "input.subject.properties.tags",
	"input.action.name", "input.action.properties.mode", "input.resource.id", "input.resource.type", "input.resource.properties.frozen", "input.resource.properties.owner",
	"input.resource.properties.owner.a", "input.context.mfa", "input.context.n", "input.context.list", "input.context.list[0]", "input.context.deep",
	"input.context.deep.a", "input.context.deep.a.b",
}

// wider are read whole, and seldom.
var wider = []string{"input.subject", "input.subject.properties", "input.resource", "input.resource.properties", "input.context", "input.action", "input.time", "input"}

// forms of rules, of a namespace and of what binds it.
var (
	binding = []string{
		`deny contains "NAME" if PATH == VALUE`,
		`deny contains "NAME" if type_name(PATH) == "TYPE"`,
		`deny contains msg if { PATH == VALUE; msg := sprintf("NAME %v", [PATH]) }`,
		`deny contains "NAME" if { input.time.TIME; PATH == VALUE }`,
		`deny contains "NAME" if { input.time.minute % 2 == ODD; PATH == VALUE }`,
		`deny contains "NAME" if { input.action.name == "Drop"; not PATH }`,
		`obligations["NAME"] := PATH`,
		`obligations["NAME"] := PATH`,
		`obligations["NAME"] := type_name(PATH)`,
		`obligations["shared"] := PATH if { input.subject.type == "user"; input.action.name == "Drop" }`,
		`obligations["NAME"] := input.time.TIME`,
		`obligations["NAME"] := {"at": input.time.TIME, "of": PATH}`,
		`obligations["NAME"] := object.get(input, ["context", "deep", "a"], "none")`,
		`obligations["NAME"] := [x | some x in PATH]`,
	}
	deciding = append([]string{
		`allow if PATH == VALUE`,
		`allow if type_name(PATH) == "TYPE"`,
		`allow if not PATH`,
		`allow if input.subject.id == input.resource.id`,
		`allow if { input.subject.type == "user"; input.resource.type == "route"; count(PATH) > 0 }`, // which fails, of a number
		`deny contains "NAME" if { input.subject.type == "user"; startswith(PATH, "a") }`,            // as does this, of what is no text
		`allow if { is_array(PATH); every x in PATH { x != VALUE } }`,
		`reasons contains sprintf("NAME %v", [PATH])`,
		`reasons contains sprintf("NAME %v", [x]) if some x in PATH`,
		`reasons contains sprintf("NAME %v at %v", [PATH, input.time.TIME])`,
	}, binding...)
	// failing is what no policy can answer, of a few requests, and dear makes an
	// evaluation so long that remembering pays.
	failing = `deny contains "failed" if { input.subject.type == "user"; input.action.name == "Drop"; input.resource.type == "route"; startswith(input.subject.properties, "a") }`
	dear    = `deny contains "hashed" if startswith(crypto.sha256(concat("", [data.blob, input.subject.id, input.action.name])), "00")`
)

var (
	types = []string{"null", "boolean", "number", "string", "array", "object"}
	times = []string{"hour", "hour", "minute", "date", "weekday", "unix"}
)

// generator makes policies, most of which differ in little from the last one of
// their kind.
type generator struct {
	last map[bool][]part // by whether they are for a guardrail
}

// next returns the text of another policy for a namespace.
func (g *generator) next(r *rand.Rand, n policy.Namespace) string {
	guardrail := n == shop
	forms := deciding
	if guardrail {
		forms = binding
	}
	one := func(form string) part {
		p := part{form: form, path: oneOf(r, paths), value: r.IntN(len(values))}
		if r.IntN(15) == 0 {
			p.path = oneOf(r, wider)
		}
		return p
	}
	parts := slices.Clone(g.last[guardrail])
	if len(parts) == 0 || r.IntN(4) == 0 {
		parts = nil
		for range 2 + r.IntN(4) {
			parts = append(parts, one(oneOf(r, forms)))
		}
	} else {
		// The same, but for what one of them reads.
		i := r.IntN(len(parts))
		if parts[i].path = one("").path; r.IntN(3) == 0 {
			parts[i].value = r.IntN(len(values))
		}
	}
	g.last[guardrail] = parts
	lines := []string{}
	if !guardrail {
		lines = append(lines, `allow if input.action.name in {"Add", "Get"}`)
		if r.IntN(2) == 0 {
			lines = append(lines, "default allow := false")
		}
	} else {
		lines = append(lines, `deny contains "never" if input.action.name == "Never"`)
	}
	if r.IntN(3) > 0 {
		lines = append(lines, dear)
	}
	if !guardrail && r.IntN(2) == 0 {
		lines = append(lines, failing)
	}
	for i, p := range parts {
		lines = append(lines, strings.NewReplacer(
			"PATH", p.path, "VALUE", values[p.value].json, "TYPE", types[p.value%len(types)], "TIME", times[p.value%len(times)], "ODD", fmt.Sprint(p.value%2), "NAME", fmt.Sprintf("%s-%d", n, i),
		).Replace(p.form))
	}
	return "package authz\n" + strings.Join(lines, "\n") + "\n"
}

// tellsTime reports whether a policy can tell one time from another: whether it has
// a word of it, or reads the whole input.
func tellsTime(text string) bool {
	return strings.Contains(text, "time") || strings.Contains(strings.NewReplacer("input.", "", "(input, [", "").Replace(text), "input")
}
