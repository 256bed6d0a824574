package builtin_test

import (
	"fmt"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/convert"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// BenchmarkReachable searches 1,000 groups, each of which is in three others.
func BenchmarkReachable(b *testing.B) {
	const nodes = 1000
	graph := value.NewObject(nodes)
	for i := range nodes {
		edges := value.NewArray()
		for _, step := range []int{1, 7, 31} {
			edges.Append(value.Text(fmt.Sprintf("group-%04d", (i*3+step)%nodes)))
		}
		graph.Insert(value.Text(fmt.Sprintf("group-%04d", i)), edges)
	}
	data, err := value.Pack(graph)
	if err != nil {
		b.Fatal(err)
	}
	from := value.NewArray(value.Text("group-0000"))
	bi, _ := builtin.Find("graph.reachable")
	for name, graph := range map[string]value.Value{"built": graph, "packed": data.Value()} {
		b.Run(name, func(b *testing.B) {
			c := newCall()
			args := []value.Value{graph, from}
			b.ReportAllocs()
			for b.Loop() {
				if got, err := bi.Func(c, args); err != nil || got.Len() < nodes/2 {
					b.Fatal(got.Len(), err)
				}
			}
		})
	}
	b.Run("opa", func(b *testing.B) {
		call := topdown.GetBuiltin("graph.reachable")
		args := []*ast.Term{convert.ToTerm(graph), convert.ToTerm(from)}
		b.ReportAllocs()
		for b.Loop() {
			if err := call(topdown.BuiltinContext{}, args, func(*ast.Term) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
}
