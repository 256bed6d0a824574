package rego_test

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkActivate takes policies from their text to being ready to decide:
// rego.Compile beside OPA's parsing and PrepareForEval.
func BenchmarkActivate(b *testing.B) {
	for _, policy := range []struct{ name, module string }{
		{"4KB", handwritten(4 << 10)},
		{"16KB", handwritten(16 << 10)},
		{"rules10k", rulesShape(b, "rules10k", 10_000).module},
	} {
		b.Run(policy.name+"/microwall", func(b *testing.B) {
			for b.Loop() {
				activate(b, policy.module, nil)
			}
		})
		b.Run(policy.name+"/opa", func(b *testing.B) {
			for b.Loop() {
				prepareOPA(b, policy.module, map[string]any{})
			}
		})
	}
}

// handwritten returns a policy of at least that many bytes in the manner of
// those that people write: a part for each kind of resource, with a helper, a
// function, a deny and an obligation.
func handwritten(size int) string {
	var b strings.Builder
	b.WriteString("package authz\n\ndefault allow := false\n")
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, `
# Kind %[1]d: its owners write, the departments that it is shared with read.
allow if {
	input.resource.type == "kind-%[1]d"
	input.action.name in {"read", "list"}
	some department in shared_%[1]d
	department == input.subject.properties.department
}

allow if {
	input.resource.type == "kind-%[1]d"
	input.action.name == "write"
	owns_%[1]d(input.subject.id, input.resource.properties)
}

owns_%[1]d(id, properties) if properties.owner == id

owns_%[1]d(id, properties) if id in properties.deputies

shared_%[1]d contains department if {
	some department, rights in data.departments
	"kind-%[1]d" in rights.reads
	not rights.suspended
}

deny contains sprintf("%%s is locked by %%s", [input.resource.id, lock.by]) if {
	input.resource.type == "kind-%[1]d"
	lock := data.locks[input.resource.id]
	lock.until > input.time.unix
}

obligations["log-%[1]d"] := {"level": "full", "who": input.subject.id} if {
	input.resource.type == "kind-%[1]d"
	input.action.name != "list"
	count(object.get(input.context, "call_path", [])) > 1
}
`, i)
	}
	return b.String()
}
