package front

import (
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// measure charges for what the compiler does with modules by their shape alone:
//
//   - an expression below n comprehensions (or every, not, and, or, templates)
//     is rewritten and typed about 3^n times,
//   - a value below n arrays, objects, sets is resolved and compared 2^n times,
//   - the stages that go down an else chain do so from each of its branches,
//   - each file of a package is told of all of its rules.
func (m *meter) measure(modules map[string]*ast.Module) error {
	inPackage := map[string]int64{}
	for _, module := range modules {
		inPackage[module.Package.Path.String()] += int64(len(module.Rules))
	}
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		pkg := modules[name].Package
		rules := inPackage[pkg.Path.String()]
		if err := m.charge(byPackage, rules, pkg.Location, rules); err != nil {
			return err
		}
	}
	s := sizer{meter: m}
	for rule := range rulesOf(modules) {
		branches := int64(0)
		for r := rule.Else; r != nil; r = r.Else {
			branches++
		}
		s.charge(byElse, 2*branches, rule.Location, branches)
		for _, t := range headTerms(rule.Head) {
			s.term(t)
		}
		s.body(rule.Body)
		if s.err != nil {
			return s.err
		}
	}
	return nil
}

// A sizer goes through what may be nested.
type sizer struct {
	meter                *meter
	closures, composites int   // that it is in
	err                  error // the first
}

func (s *sizer) charge(c cause, steps int64, at *ast.Location, detail any) {
	if s.err == nil {
		s.err = s.meter.charge(c, steps, at, detail)
	}
}

func (s *sizer) body(b ast.Body) {
	for _, e := range b {
		if s.closures > 0 {
			s.charge(byClosures, power(3, s.closures), e.Location, s.closures)
		}
		if s.err != nil {
			return
		}
		partsOf(e, s.term, s.closure)
	}
}

func (s *sizer) closure(b ast.Body, head ...*ast.Term) {
	composites := s.composites
	s.closures, s.composites = s.closures+1, 0
	s.body(b)
	for _, t := range head {
		s.term(t)
	}
	s.closures, s.composites = s.closures-1, composites
}

func (s *sizer) term(t *ast.Term) {
	if s.composites > 0 {
		s.charge(byComposites, power(2, s.composites), t.Location, s.composites)
	}
	if s.err != nil {
		return
	}
	composites := s.composites
	switch t.Value.(type) {
	case *ast.Array, ast.Object, ast.Set:
		s.composites++
	default:
		s.composites = 0
	}
	partsOfTerm(t, s.term, s.closure)
	s.composites = composites
}
