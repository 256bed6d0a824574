package rego_test

import (
	"strings"
	"testing"

	"github.com/microwall/microwall/policy/rego"
)

// OPA's planner loses rules where a variable chooses among some that go on with
// constants and some that go on with variables.
func TestRulesThatThePlannerWouldLoseAreRefused(t *testing.T) {
	const refer = `
allow if not data.authz.blocked[input.resource.type].all
`
	for name, c := range map[string]struct {
		module string
		lost   bool
	}{
		"constants and variables":       {"blocked.doc.all := true\nblocked.user[id] := true if some id in [\"mallory\"]" + refer, true},
		"two levels below the variable": {"blocked.doc.all.of := true\nblocked.user.all[id] := true if some id in [\"mallory\"]\nallow if not data.authz.blocked[input.resource.type].all.of", true},
		"two variables":                 {"blocked.doc.all := true\nblocked.user[id] := true if some id in [\"mallory\"]\nallow if not data.authz.blocked[input.resource.type][input.action.name]", true},
		"constants alone":               {"blocked.doc.all := true\nblocked.user.all := true" + refer, false},
		"an object":                     {"blocked.doc := {\"all\": true}\nblocked.user[id] := true if some id in [\"mallory\"]" + refer, false},
		"others do not go on like that": {"blocked.doc.none := true\nblocked.user[id] := true if some id in [\"all\"]" + refer, false},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := rego.Compile(t.Context(), source("package authz\n"+c.module, "{}"), rego.Options{})
			if c.lost {
				if err == nil || !strings.Contains(err.Error(), "write the constant ones as one object") || !strings.Contains(err.Error(), "authz.rego:") {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for kind, allowed := range map[string]bool{
				"doc":   strings.Contains(c.module, "none"),
				"user":  name == "an object",
				"other": true,
			} {
				r := request(t)
				r.Resource.Type = kind
				out, err := p.Evaluate(t.Context(), rego.NewInput(&r, noon))
				if err != nil || out.Allow != allowed {
					t.Errorf("%s: %v, %v", kind, out.Allow, err)
				}
			}
		})
	}
}
