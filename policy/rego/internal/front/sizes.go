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
//   - each file of a package is told of all of its rules,
//   - a name that is imported or that of a rule is replaced by its whole path, and
//     rules have theirs looked up.
func (m *meter) measure(modules map[string]*ast.Module) error {
	packages := map[string]*packageNames{}
	for _, module := range modules {
		path := module.Package.Path.String()
		if packages[path] == nil {
			packages[path] = &packageNames{parts: len(module.Package.Path) + 1, rules: map[ast.Var]bool{}}
		}
		packages[path].add(module.Rules)
	}
	s := sizer{meter: m}
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		module := modules[name]
		pkg := packages[module.Package.Path.String()]
		s.charge(byPackage, pkg.bodies, module.Package.Location, pkg.bodies)
		s.names = pkg
		s.imports = map[ast.Var]int{}
		for _, i := range module.Imports {
			if path, ok := i.Path.Value.(ast.Ref); ok {
				s.imports[i.Name()] = len(path)
			}
		}
		if err := s.module(module); err != nil {
			return err
		}
	}
	return nil
}

// packageNames are the rules of a package, which all files of it can call by
// their names.
type packageNames struct {
	parts  int // of a rule's path
	rules  map[ast.Var]bool
	bodies int64
}

func (p *packageNames) add(rules []*ast.Rule) {
	for _, rule := range rules {
		p.bodies++
		if name, ok := rule.Head.Ref()[0].Value.(ast.Var); ok {
			p.rules[name] = true
		}
	}
}

func (s *sizer) module(module *ast.Module) error {
	for rule := range rulesOf(map[string]*ast.Module{"": module}) {
		parts := int64(s.names.parts + len(rule.Head.Reference))
		s.charge(byNames, 2*parts, rule.Location, parts)
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
	names                *packageNames
	imports              map[ast.Var]int // parts of their paths
	closures, composites int             // that it is in
	err                  error           // the first
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
		s.operator(e.Operator(), e.Location)
		partsOf(e, s.term, s.closure)
	}
}

func (s *sizer) operator(op ast.Ref, at *ast.Location) {
	if len(op) > 0 {
		s.name(op[0].Value, at)
	}
}

func (s *sizer) name(v ast.Value, at *ast.Location) {
	name, _ := v.(ast.Var)
	parts := s.imports[name]
	if parts == 0 && s.names.rules[name] {
		parts = s.names.parts
	}
	s.charge(byNames, 6*int64(parts), at, parts)
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
	switch v := t.Value.(type) {
	case ast.Var:
		s.name(v, t.Location)
		s.composites = 0
	case ast.Call:
		if op, ok := v[0].Value.(ast.Ref); ok {
			s.operator(op, t.Location)
		}
		s.composites = 0
	case *ast.Array, ast.Object, ast.Set:
		s.composites++
	default:
		s.composites = 0
	}
	partsOfTerm(t, s.term, s.closure)
	s.composites = composites
}
