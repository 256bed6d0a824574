package rego

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// zoned are the built-ins that take a time zone: [ns, zone] or [ns, zone,
// layout]. "Local" is the host's zone, and every name but UTC is looked up in
// the host's time zone database, so both make a decision depend on the host.
var zoned = []string{"time.clock", "time.date", "time.weekday", "time.format", "time.diff"}

// parseNS reads a zone abbreviation as an offset if the host's own zone has it.
const parseNS = "time.parse_ns"

// namedLayouts with a zone abbreviation in them.
var namedLayouts = []string{"UnixDate", "RFC822", "RFC850", "RFC1123"}

const (
	hintZone   = "write the zone in place, and only UTC: time.clock([ns, \"UTC\"]) or time.clock(ns)"
	hintLayout = "write the layout in place and use one with a numeric offset, for instance \"RFC1123Z\" or \"2006-01-02T15:04:05Z07:00\""
)

// checkHost reports calls whose arguments can make the result depend on the
// host. Such a built-in may only be called directly, with arguments that can be
// judged here; as a value (`with f as time.clock`) it could be called with any.
func checkHost(modules map[string]*ast.Module, problems *Problems) {
	for _, mod := range modules {
		judged := map[*ast.Term]bool{}
		call := func(terms []*ast.Term) {
			op := terms[0]
			name, ok := restricted(op)
			if !ok {
				return
			}
			judged[op] = true
			args := terms[1:]
			if name == parseNS {
				if len(args) > 0 && !hostFreeLayout(args[0]) {
					problems.add(op.Location, hintLayout, "%s reads zone abbreviations by the host's time zone unless its layout is a text without one", name)
				}
				return
			}
			if name != "time.diff" {
				args = args[:min(len(args), 1)]
			}
			for _, arg := range args {
				if !hostFreeTime(arg) {
					problems.add(arg.Location, hintZone, "%s can depend on the host's time zones here", name)
				}
			}
		}
		ast.WalkExprs(mod, func(e *ast.Expr) bool {
			if e.IsCall() {
				call(e.Terms.([]*ast.Term))
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
			if name, ok := restricted(t); ok && !judged[t] {
				problems.add(t.Location, "call it directly", "%s is used as a value, so its arguments cannot be judged", name)
			}
			return false
		})
	}
}

func restricted(t *ast.Term) (string, bool) {
	ref, ok := t.Value.(ast.Ref)
	if !ok {
		return "", false
	}
	name := ref.String()
	return name, name == parseNS || slices.Contains(zoned, name)
}

// hostFreeTime reports whether a term is a time in UTC: an array with that zone
// written out, or something that cannot be an array.
func hostFreeTime(t *ast.Term) bool {
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
		// Arithmetic gives a number, or fails.
		op, ok := v[0].Value.(ast.Ref)
		return ok && slices.Contains([]string{"mul", "plus", "minus", "div", "rem", "time.parse_rfc3339_ns", parseNS, "time.add_date", "to_number", "round", "floor", "ceil", "abs"}, op.String())
	}
	return false
}

func hostFreeLayout(t *ast.Term) bool {
	layout, ok := t.Value.(ast.String)
	return ok && !strings.Contains(string(layout), "MST") && !slices.Contains(namedLayouts, string(layout))
}
