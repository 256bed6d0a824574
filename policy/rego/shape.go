package rego

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// authzPackage is the package whose rules answer.
var authzPackage = ast.MustParseRef("data.authz")

// The names of the rules that answer.
const (
	ruleAllow       = "allow"
	ruleDeny        = "deny"
	ruleReasons     = "reasons"
	ruleObligations = "obligations"
)

// checkShapes reports rules of authz that can be seen to have another shape
// than the design gives them.
func checkShapes(modules map[string]*ast.Module, problems *Problems) {
	answers := false
	for _, mod := range modules {
		path := mod.Package.Path
		if len(path) > len(authzPackage) && path.HasPrefix(authzPackage) {
			if name, ok := path[len(authzPackage)].Value.(ast.String); ok && isAnswer(string(name)) {
				problems.add(mod.Package.Location, "rename the package", "package %s takes the place of the rule authz.%s", path.String()[len("data."):], name)
			}
		}
		if !path.Equal(authzPackage) {
			continue
		}
		checkInput(mod, problems)
		for _, rule := range mod.Rules {
			name := ruleName(rule)
			answers = answers || name == ruleAllow || name == ruleDeny
			checkShape(name, rule, problems)
		}
	}
	if !answers {
		*problems = append(*problems, Problem{
			File:    "authz",
			Message: "the bundle has neither `allow` nor `deny` in package authz, so it could decide nothing",
			Hint:    "put `package authz` on top of a file and write `allow if ...` or `deny contains \"reason\" if ...`",
		})
	}
}

func isAnswer(name string) bool {
	switch name {
	case ruleAllow, ruleDeny, ruleReasons, ruleObligations:
		return true
	}
	return false
}

func ruleName(rule *ast.Rule) string {
	switch head := rule.Head.Ref()[0].Value.(type) {
	case ast.Var:
		return string(head)
	case ast.String:
		return string(head)
	}
	return ""
}

func checkShape(name string, rule *ast.Rule, problems *Problems) {
	if !isAnswer(name) {
		return
	}
	head, loc := rule.Head, rule.Loc()
	if len(head.Args) > 0 {
		problems.add(loc, "give the function another name", "%s is a function; it must be a rule", name)
		return
	}
	plain := len(head.Ref()) == 1
	switch multi := head.RuleKind() == ast.MultiValue; name {
	case ruleAllow:
		if multi || !plain {
			problems.add(loc, "write `allow if ...`", "allow must be a complete boolean rule")
		} else if head.Value != nil && isLiteral(head.Value) {
			if _, ok := head.Value.Value.(ast.Boolean); !ok {
				problems.add(loc, "only `true` allows", "allow must be true or false, not %s", head.Value)
			}
		}
	case ruleDeny, ruleReasons:
		hint := "write `" + name + " contains \"why\" if ...`"
		switch {
		case !plain:
			problems.add(loc, hint, "%s must be a set of strings", name)
		case multi:
			if key := head.Key; key != nil && isLiteral(key) {
				if _, ok := key.Value.(ast.String); !ok {
					problems.add(loc, hint, "%s must be a set of strings; %s is no string", name, key)
				}
			}
		default:
			switch v := head.Value.Value.(type) {
			case ast.Set, *ast.SetComprehension, ast.Var, ast.Ref, ast.Call:
			default:
				problems.add(loc, hint, "%s must be a set of strings, not %s", name, ast.ValueName(v))
			}
		}
	case ruleObligations:
		hint := "write `obligations[\"mfa\"] := {...} if ...`"
		switch {
		case plain && multi:
			problems.add(loc, hint, "obligations must be an object, not a set")
		case plain:
			switch v := head.Value.Value.(type) {
			case ast.Object, *ast.ObjectComprehension, ast.Var, ast.Ref, ast.Call:
			default:
				problems.add(loc, hint, "obligations must be an object, not %s", ast.ValueName(v))
			}
		}
	}
}

// members are what the input has, at its top and below.
var members = map[string][]string{
	"":         {"subject", "action", "resource", "context", "time"},
	"subject":  {"type", "id", "properties"},
	"action":   {"name", "properties"},
	"resource": {"type", "id", "properties"},
	"time":     {"unix", "hour", "minute", "date", "weekday"},
}

func isInput(v ast.Value) bool { return ast.InputRootDocument.Value.Compare(v) == 0 }

// checkInput reports references to members that the input never has: they are
// always undefined, so that a deny which depends on one never denies. Only
// package authz is looked at: another package may be given another input by
// `with`.
func checkInput(mod *ast.Module, problems *Problems) {
	ast.WalkRefs(mod, func(ref ast.Ref) bool {
		if !isInput(ref[0].Value) {
			return false
		}
		parent := ""
		for i, step := range ref[1:] {
			known, ok := members[parent]
			name, isName := step.Value.(ast.String)
			if !ok || !isName || i == 2 {
				break
			}
			if !slices.Contains(known, string(name)) {
				problems.add(step.Location, "there are "+strings.Join(known, ", ")+"; what else a request says stands in properties and context",
					"the input never has %s", ref[:i+2])
				break
			}
			parent = string(name)
		}
		return false
	})
}

// isLiteral reports whether a term is a value as it stands, whatever the input.
func isLiteral(t *ast.Term) bool {
	switch t.Value.(type) {
	case ast.Null, ast.Boolean, ast.Number, ast.String, *ast.Array, ast.Object, ast.Set,
		*ast.ArrayComprehension, *ast.SetComprehension, *ast.ObjectComprehension:
		return true
	}
	return false
}

// checkData reports data that stands where rules do: OPA would let one hide
// the other.
func checkData(modules map[string]*ast.Module, root value.Value, problems *Problems) {
	const hint = "move the data to a path that no package has, for instance data.callers"
	if root.GetText("authz").Defined() {
		*problems = append(*problems, Problem{File: "data.json", Message: "data stands under `authz`, where the rules are", Hint: hint})
	}
	for _, mod := range modules {
		for _, rule := range mod.Rules {
			path := append(mod.Package.Path.Copy(), rule.Head.Ref().GroundPrefix()...)
			if path[1].Value.Compare(ast.String("authz")) != 0 && standsIn(root, path[1:]) {
				problems.add(rule.Loc(), hint, "data.json has a value under the path of rule %s", path)
			}
		}
	}
}

// standsIn reports whether data has a value at path, or one that is no object
// on the way to it.
func standsIn(data value.Value, path ast.Ref) bool {
	for _, step := range path {
		if data.Kind() != value.Object {
			return true
		}
		switch s := step.Value.(type) {
		case ast.String:
			data = data.GetText(string(s))
		case ast.Var:
			data = data.GetText(string(s))
		case ast.Number:
			data = data.GetText(string(s))
		default:
			return true
		}
		if !data.Defined() {
			return false
		}
	}
	return true
}
