package differential

import (
	"errors"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// The query of a decision: a comprehension turns "undefined" into an empty
// array, so that there is one solution always.
const decision = "allow = [x | x := data.authz.allow]; deny = [x | x := data.authz.deny]; reasons = [x | x := data.authz.reasons]; obligations = [x | x := data.authz.obligations]"

// draft is a module while it is written: rules, one after the other.
type draft struct {
	path, head string
	rules      []string
}

func (d *draft) source() string { return d.head + "\n" + strings.Join(d.rules, "\n") + "\n" }

// ruleAt returns the rule on a line, -1 if there is none.
func (d *draft) ruleAt(row int) int {
	row -= 1 + strings.Count(d.head, "\n") + 1
	for i, text := range d.rules {
		if row -= 1 + strings.Count(text, "\n"); row < 0 {
			return i
		}
	}
	return -1
}

// Generate makes the case of a seed. The same seed gives the same case, until
// the generator changes. Nearly all cases compile.
func Generate(seed uint64) *Case {
	g := &generator{choice: newChoice(seed)}
	c := &Case{Query: decision, Data: g.data()}
	lib := &draft{path: "lib.rego", head: "package lib"}
	for range g.IntN(3) {
		lib.rules = append(lib.rules, g.define("lib")...)
	}
	authz := &draft{path: "authz.rego", head: "package authz"}
	if g.percent(30) {
		g.v2 = true
		authz.head += "\n\nimport rego.v2"
	}
	for range 1 + g.IntN(6) {
		authz.rules = append(authz.rules, g.define("authz")...)
	}
	if g.percent(30) {
		r := pick(g.choice, rule{"authz", g.fresh("h"), complete, anything, nil}, rule{"authz", g.fresh("s"), members, anything, nil}, rule{"authz", g.fresh("o"), mapping, anything, nil})
		authz.rules = append(authz.rules, g.many(r.name)...)
		g.rules = append(g.rules, r)
	}
	if g.percent(15) {
		authz.rules = append(authz.rules, g.many("allow")...)
	}
	authz.rules = append(authz.rules, g.answers()...)
	drafts := []*draft{authz}
	if len(lib.rules) > 0 {
		drafts = append(drafts, lib)
	}
	if g.percent(10) { // a package without a document, among data
		d := &draft{path: "among.rego", head: "package " + pick(g.choice, "users.helpers", "m.helpers", "m.a.helpers", "new.helpers", "graph.k", "roles.ann.helpers")}
		if g.percent(60) {
			d.rules = []string{"among(x) := x"}
		}
		drafts = append(drafts, d)
	}
	compiler := repair(drafts)
	if len(authz.rules) == 0 {
		authz.rules = []string{"allow := true"}
	}
	for _, d := range drafts {
		c.Modules = append(c.Modules, Module{d.path, d.source()})
	}
	switch n := g.IntN(10); {
	case n < 2:
		c.Query = "x = data.authz"
	case n < 3:
		c.Query = "x = data"
	case n < 4:
		c.Query = "data.authz[k] = v"
	case n < 5 && len(g.rules) > 0:
		r := pick(g.choice, g.rules...)
		if c.Query = "x = data." + r.pack + "." + r.name; r.form == function {
			c.Query += "(" + g.arguments(r.params, 1, &scope{}) + ")"
		}
		if r.form == members || r.form == mapping {
			c.Query += pick(g.choice, "", "[k]", `["a"]`)
		}
	}
	if !asks(compiler, c.Query) {
		c.Query = decision // the rule that was asked for had to go
	}
	for range 4 {
		c.Inputs = append(c.Inputs, g.input())
	}
	return c
}

func asks(compiler *ast.Compiler, query string) bool {
	body, err := ast.ParseBody(query)
	if err == nil {
		_, err = compiler.QueryCompiler().Compile(body)
	}
	return err == nil
}

// repair drops the rules that do not compile: mostly ones in which the type
// checker finds what can never be.
func repair(drafts []*draft) (compiler *ast.Compiler) {
	for range 20 {
		compiler = ast.NewCompiler().SetErrorLimit(0)
		var errs ast.Errors
		modules := make(map[string]*ast.Module)
		for _, d := range drafts {
			m, err := ast.ParseModuleWithOpts(d.path, d.source(), ast.ParserOptions{RegoVersion: ast.RegoV1})
			if list, ok := errors.AsType[ast.Errors](err); ok {
				errs = append(errs, list...)
			}
			modules[d.path] = m
		}
		if len(errs) == 0 {
			compiler.Compile(modules)
			errs = compiler.Errors
		}
		if len(errs) == 0 {
			break
		}
		dropped := 0
		for _, d := range drafts {
			dropped += d.drop(errs)
		}
		if dropped == 0 { // OPA does not say where; one of the last is as good as any
			d := drafts[0]
			d.rules = d.rules[:max(0, len(d.rules)-1)]
		}
	}
	return compiler
}

// drop takes out the rules that errors are about, and returns how many.
func (d *draft) drop(errs ast.Errors) int {
	var bad []int
	for _, e := range errs {
		if e.Location != nil && e.Location.File == d.path {
			bad = append(bad, d.ruleAt(e.Location.Row))
		}
	}
	kept := d.rules[:0:0]
	for i, text := range d.rules {
		if !slices.Contains(bad, i) {
			kept = append(kept, text)
		}
	}
	dropped := len(d.rules) - len(kept)
	d.rules = kept
	return dropped
}
