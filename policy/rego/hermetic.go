package rego

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// judge reports whether the arguments of a call leave its result independent of
// the host. It says what is wrong with them, and what to write instead.
type judge struct {
	free    func(h *hermetic, args []*ast.Term) bool
	problem string
	hint    string
}

var (
	// Built-ins that take a time in a zone: [ns, zone] or [ns, zone, layout].
	// "Local" is the host's zone, and every name but UTC is looked up in the
	// host's time zone database.
	inZone = judge{
		free:    func(h *hermetic, args []*ast.Term) bool { return len(args) == 0 || h.timeIsFree(args[0]) },
		problem: "can depend on the host's time zones here",
		hint:    "write the zone in place, and only UTC: time.clock([ns, \"UTC\"]), or calculate with nanoseconds in place: time.clock(input.time.unix * 1000000000)",
	}
	inZones = judge{
		free: func(h *hermetic, args []*ast.Term) bool {
			return !slices.ContainsFunc(args[:min(2, len(args))], h.timeIsBound)
		},
		problem: inZone.problem,
		hint:    inZone.hint,
	}
	// A zone abbreviation is read as an offset if the host's own zone has it.
	layout = judge{
		free:    func(_ *hermetic, args []*ast.Term) bool { return len(args) == 0 || layoutIsFree(args[0]) },
		problem: "reads zone abbreviations by the host's time zone unless its layout is a text without one",
		hint:    "write the layout in place and use one with a numeric offset, for instance \"RFC1123Z\" or \"2006-01-02T15:04:05Z07:00\"",
	}
)

// restricted are the built-ins that depend on the host by their arguments.
var restricted = map[string]judge{
	"time.clock": inZone, "time.date": inZone, "time.weekday": inZone, "time.format": inZone, "time.add_date": inZone,
	"time.diff":     inZones,
	"time.parse_ns": layout,
}

// numeric are built-ins that give a number, or fail.
var numeric = []string{
	"mul", "plus", "minus", "div", "rem", "round", "floor", "ceil", "abs", "to_number",
	"time.parse_rfc3339_ns", "time.parse_ns", "time.add_date",
}

// checkHost reports calls whose arguments can make the result depend on the
// host. Such a built-in may only be called directly, with arguments that can be
// judged here; as a value (`with f as time.clock`) it could be called with any.
func checkHost(modules map[string]*ast.Module, problems *Problems) {
	h := &hermetic{taken: namesTaken(modules)}
	for _, mod := range modules {
		judged := map[*ast.Term]bool{}
		call := func(terms []*ast.Term) {
			op := terms[0]
			name := refName(op)
			j, ok := restricted[name]
			if !ok {
				return
			}
			judged[op] = true
			if !j.free(h, terms[1:]) {
				problems.add(op.Location, j.hint, "%s %s", name, j.problem)
			}
		}
		ast.WalkExprs(mod, func(e *ast.Expr) bool {
			if terms, ok := e.Terms.([]*ast.Term); ok {
				call(terms)
			}
			return false
		})
		ast.WalkTerms(mod, func(t *ast.Term) bool {
			if c, ok := t.Value.(ast.Call); ok {
				call(c)
			}
			return false
		})
		ast.WalkTerms(mod, func(t *ast.Term) bool {
			if name := refName(t); !judged[t] && restricted[name].free != nil {
				problems.add(t.Location, "call it directly", "%s is used as a value, so its arguments cannot be judged", name)
			}
			return false
		})
	}
}

// refName returns a reference as text, "" if t is none.
func refName(t *ast.Term) string {
	if ref, ok := t.Value.(ast.Ref); ok {
		return ref.String()
	}
	return ""
}

type hermetic struct {
	taken map[string]bool
}

// namesTaken returns the names that a policy gives a meaning of its own (rules,
// imports, variables), and the functions that it replaces by `with`. A call of
// one of these may not be the built-in of that name.
func namesTaken(modules map[string]*ast.Module) map[string]bool {
	taken := map[string]bool{}
	for _, mod := range modules {
		for _, i := range mod.Imports {
			taken[string(i.Name())] = true
		}
		for _, r := range mod.Rules {
			taken[ruleName(r)] = true
		}
		// The heads of references to built-ins are variables too, to the
		// parser: only those of calls are left out.
		operators := map[*ast.Term]bool{}
		ast.WalkExprs(mod, func(e *ast.Expr) bool {
			if terms, ok := e.Terms.([]*ast.Term); ok {
				markHead(operators, terms[0])
			}
			for _, w := range e.With {
				taken[w.Target.Value.String()] = true
			}
			return false
		})
		ast.WalkTerms(mod, func(t *ast.Term) bool {
			if c, ok := t.Value.(ast.Call); ok {
				markHead(operators, c[0])
			}
			return false
		})
		ast.WalkTerms(mod, func(t *ast.Term) bool {
			if v, ok := t.Value.(ast.Var); ok && !operators[t] {
				taken[string(v)] = true
			}
			return false
		})
	}
	return taken
}

func markHead(operators map[*ast.Term]bool, op *ast.Term) {
	if ref, ok := op.Value.(ast.Ref); ok {
		operators[ref[0]] = true
	}
}

// timeIsFree reports whether a term is a time in UTC: an array with that zone
// written out, or something that cannot be an array.
func (h *hermetic) timeIsFree(t *ast.Term) bool {
	switch v := t.Value.(type) {
	case ast.Number:
		return true
	case *ast.Array:
		if v.Len() < 2 {
			return true
		}
		zone, ok := v.Elem(1).Value.(ast.String)
		return ok && (zone == "" || zone == "UTC")
	case ast.Call:
		name := refName(v[0])
		head, _, _ := strings.Cut(name, ".")
		return slices.Contains(numeric, name) && !h.taken[name] && !h.taken[head]
	}
	return false
}

func (h *hermetic) timeIsBound(t *ast.Term) bool { return !h.timeIsFree(t) }

// namedLayouts with a zone abbreviation in them.
var namedLayouts = []string{"UnixDate", "RFC822", "RFC850", "RFC1123"}

func layoutIsFree(t *ast.Term) bool {
	text, ok := t.Value.(ast.String)
	return ok && !strings.Contains(string(text), "MST") && !slices.Contains(namedLayouts, string(text))
}
