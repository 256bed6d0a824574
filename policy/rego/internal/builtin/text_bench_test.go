package builtin_test

import (
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/convert"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// BenchmarkText calls what authorization policies call most: natively with the
// patterns bound, natively with patterns that come at run time, and in OPA, with
// operands that are OPA's already.
func BenchmarkText(b *testing.B) {
	path := value.Text("/teams/cart/documents/2026/plan.md")
	for _, tc := range []struct {
		name  string
		args  []value.Value
		bound []int // operands that are constants
	}{
		{"startswith", []value.Value{path, value.Text("/teams/")}, []int{1}},
		{"glob.match", []value.Value{value.Text("/teams/*/documents/**"), value.NewArray(value.Text("/")), path}, []int{0, 1}},
		{"regex.match", []value.Value{value.Text(`^[a-z]+(-[a-z]+)*@example\.(com|org)$`), value.Text("anna-maria@example.com")}, []int{0}},
		{"net.cidr_contains", []value.Value{value.Text("10.0.0.0/8"), value.Text("10.20.30.40")}, []int{0}},
		{"strings.any_prefix_match", []value.Value{path, value.SetOf(value.Text("/admin"), value.Text("/public"), value.Text("/teams"))}, []int{1}},
		{"sprintf", []value.Value{value.Text("%s may not %v %d"), value.NewArray(value.Text("anna"), value.Text("read"), value.Int(17))}, []int{0}},
		{"plus", []value.Value{value.Int(17), value.Int(25)}, nil},
		{"lt", []value.Value{value.Int(17), value.Int(25)}, nil},
		{"split", []value.Value{path, value.Text("/")}, nil},
		{"concat", []value.Value{value.Text("/"), value.NewArray(value.Text("teams"), value.Text("cart"), value.Text("plan"))}, nil},
		{"lower", []value.Value{value.Text("Content-Type")}, nil},
		{"substring", []value.Value{path, value.Int(7), value.Int(4)}, nil},
		{"semver.compare", []value.Value{value.Text("1.2.3"), value.Text("1.10.0-rc.1")}, nil},
	} {
		f, _ := builtin.Find(tc.name)
		run := func(b *testing.B, f builtin.Func) {
			c := newCall()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f(c, tc.args); err != nil {
					b.Fatal(err)
				}
			}
		}
		consts := make([]value.Value, len(tc.args))
		for _, i := range tc.bound {
			consts[i] = tc.args[i]
		}
		if bound := builtin.NewPreparation(b.Context()).Bind(f, consts); bound != nil {
			b.Run(tc.name+"/bound", func(b *testing.B) { run(b, bound) })
		}
		b.Run(tc.name+"/native", func(b *testing.B) { run(b, f.Func) })
		b.Run(tc.name+"/opa", func(b *testing.B) {
			opa := topdown.GetBuiltin(tc.name)
			terms := make([]*ast.Term, len(tc.args))
			for i, arg := range tc.args {
				terms[i] = convert.ToTerm(arg)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := opa(topdown.BuiltinContext{}, terms, func(*ast.Term) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
