package front

import (
	"context"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
)

// mayCompile is how many steps of the compiler's stages that are not linear may
// be expected. A step is what was measured to take about 100 ns.
const mayCompile = 50_000_000

// A meter adds up the steps that the compiler is expected to take, by what makes
// it take them.
type meter struct {
	ctx        context.Context
	left       int64
	references int64         // of rules to rules
	rules      *ast.TreeNode // of the compiler, while it is hidden from it
	causes     [causes]struct {
		steps, most int64
		at          *ast.Location
		detail      string
	}
}

type cause int

const (
	byClosures cause = iota
	byComposites
	byBodies
	byBound
	byEquations
	byElse
	byPackage
	byNames
	byMetadata
	byReferences
	byConflicts
	byWith
	byTypes
	causes
)

var explanations = [causes]struct{ message, hint string }{
	byClosures:   {"comprehensions, every, not, templates are nested %s deep here", "move the inner ones into rules or functions"},
	byComposites: {"arrays, objects, sets are nested %s deep here", "put the value into data.json"},
	byBodies:     {"a body of %s expressions", "move parts of it into rules or functions, and bind variables before they are used"},
	byBound:      {"comprehensions, every, not, templates beside %s variables: these are copied for each of them", "move them into rules or functions"},
	byEquations:  {"arrays or objects with %s variables in them, made equal", "give the parts names of their own, or compare values that are known"},
	byElse:       {"%s else branches", "write rules that exclude each other, or look the value up in data"},
	byPackage:    {"a package of many rules in many files: %s rules", "put its rules into fewer files"},
	byNames:      {"names that stand for paths of %s parts", "shorten the path of the package or of the import"},
	byMetadata:   {"rego.metadata in a rule with metadata of %s values", "let one rule call it, and the others refer to that rule"},
	byReferences: {"rules that refer to many rules, as this one to %s", "name the rule that is meant, or let one rule refer to them and the others to that rule"},
	byConflicts:  {"%s rules below this one, of which every body is compared with them", "give them names that do not begin with this one's"},
	byWith:       {"replacing what %s rules depend on by `with`", "replace input rather than rules"},
	byTypes:      {"types that are %s large", "put tables into data.json, or give parts of the value names of their own"},
}

// charge adds steps. It returns an error if they are too many: one that names
// the worst place of the worst cause. The end of the context is an error, too.
func (m *meter) charge(c cause, steps int64, at *ast.Location, detail any) error {
	if err := m.alive(); err != nil {
		return err
	}
	k := &m.causes[c]
	k.steps += steps
	if steps > k.most {
		k.most, k.at, k.detail = steps, at, fmt.Sprint(detail)
	}
	if m.left -= steps; m.left >= 0 {
		return nil
	}
	for other := range m.causes {
		if m.causes[other].steps > m.causes[c].steps {
			c = cause(other)
		}
	}
	k = &m.causes[c]
	return tooCostly(k.at, explanations[c].hint, "compiling would take too long: "+explanations[c].message, k.detail)
}

// alive returns an error if the context has ended.
func (m *meter) alive() error { return alive(m.ctx, "compile") }

// endless is more steps than any meter allows, and so little that a few of them
// can be added.
const endless = 1 << 50

// mul multiplies numbers of steps, up to endless.
func mul(factors ...int64) int64 {
	product := int64(1)
	for _, f := range factors {
		if f > 0 && product > endless/f {
			return endless
		}
		product *= f
	}
	return product
}

// power returns base to the exponent, up to endless.
func power(base int64, exponent int) int64 {
	product := int64(1)
	for range min(exponent, 64) {
		product = mul(product, base)
	}
	return product
}
