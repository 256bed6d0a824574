package reads_test

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkOf is the time for 10,000 rules.
func BenchmarkOf(b *testing.B) {
	for _, shape := range []struct {
		name string
		rule func(i int) string
	}{
		{"equality", func(i int) string {
			return fmt.Sprintf("allow if { input.subject.id == \"s%d\"; input.action.name == \"a%d\" }\n", i, i)
		}},
		{"iteration", func(i int) string {
			return fmt.Sprintf("allow if { some r in input.subject.properties.roles; r == \"r%d\"; some p in data.roles[r]; p.action == input.action.name; p.n == %d }\n", i, i)
		}},
		{"functions", func(i int) string {
			return fmt.Sprintf("allow if { has(input.subject.properties, \"r%d\"); input.resource.properties.p%d }\nhas%d(x) if x.a\n", i, i, i)
		}},
		{"rules", func(i int) string {
			return fmt.Sprintf("allow if { r%d; not data.authz.r%d }\nr%d if { object.get(input.context, [\"a\", \"b\"], %d) == 1; every x in data.l { x > input.resource.properties.p%d } }\n", i, max(i-1, 0), i, i, i%100)
		}},
	} {
		b.Run(shape.name, func(b *testing.B) {
			var source strings.Builder
			source.WriteString("package authz\nhas(s, role) if s.roles[role]\n")
			for i := range 10_000 {
				source.WriteString(shape.rule(i))
			}
			p, err := ask(b, "data.authz.allow", source.String()).plan(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				readsOf(p)
			}
			b.Log(len(readsOf(p).Paths()), "paths")
		})
	}
}
