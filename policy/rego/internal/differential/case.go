package differential

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"
)

// Module is one Rego file.
type Module struct {
	Path, Source string
}

// Case is a policy, and the questions that are put to it.
type Case struct {
	Modules []Module
	// Data is a JSON object.
	Data string
	// Query in Rego.
	Query string
	// Inputs are JSON documents, one for each question; "" is none.
	Inputs []string
}

// String returns the case as a txtar archive: the modules, data.json, query and
// the inputs as input-N.json. N of the first is 0.
func (c *Case) String() string {
	var b strings.Builder
	file := func(name, content string) {
		fmt.Fprintf(&b, "-- %s --\n%s\n", name, strings.TrimRight(content, "\n"))
	}
	for _, m := range c.Modules {
		file(m.Path, m.Source)
	}
	file("data.json", c.Data)
	file("query", c.Query)
	for i, input := range c.Inputs {
		file(fmt.Sprintf("input-%d.json", i), input)
	}
	return b.String()
}

// parse parses every module.
func (c *Case) parse() (map[string]*ast.Module, error) {
	modules := make(map[string]*ast.Module, len(c.Modules))
	for _, m := range c.Modules {
		parsed, err := ast.ParseModuleWithOpts(m.Path, m.Source, ast.ParserOptions{RegoVersion: ast.RegoV1})
		if err != nil {
			return nil, err
		}
		modules[m.Path] = parsed
	}
	return modules, nil
}

func (c *Case) data() (map[string]any, error) {
	var data map[string]any
	if err := util.UnmarshalJSON([]byte(c.Data), &data); err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	return data, nil
}

// input parses an input; nil is none.
func parseInput(text string) (ast.Value, error) {
	if text == "" {
		return nil, nil
	}
	var x any
	if err := util.UnmarshalJSON([]byte(text), &x); err != nil {
		return nil, fmt.Errorf("input: %w", err)
	}
	return ast.InterfaceToValue(x)
}

// mixesKeys reports whether a rule gives one member of what another one gives
// members by a variable.
func (c *Case) mixesKeys() bool {
	modules, err := c.parse()
	if err != nil {
		return false
	}
	var constant, varying []ast.Ref
	for _, m := range modules {
		for _, r := range m.Rules {
			ref := append(m.Package.Path.Copy(), r.Head.Ref()...)
			ref[len(m.Package.Path)] = ast.StringTerm(string(r.Head.Ref()[0].Value.(ast.Var)))
			if ground := ref.GroundPrefix(); len(ground) < len(ref) {
				varying = append(varying, ground)
			} else {
				constant = append(constant, ref)
			}
		}
	}
	return slices.ContainsFunc(varying, func(v ast.Ref) bool {
		return slices.ContainsFunc(constant, func(k ast.Ref) bool { return len(k) > len(v) && k.HasPrefix(v) })
	})
}
