package builtin_test

import (
	"fmt"
	"testing"

	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// BenchmarkCall calls built-ins with what policies calculate with: a hundred of
// something.
func BenchmarkCall(b *testing.B) {
	const n = 100
	numbers, names, half := value.MakeArray(n), value.NewSet(n), value.NewSet(n)
	user := value.NewObject(n)
	for i := range n {
		name := value.Text(fmt.Sprintf("name-%03d", i*37%n))
		numbers.Append(value.Int(int64(i * 37 % n)))
		names.Add(name)
		user.Insert(name, value.Int(int64(i)))
		if i%2 == 0 {
			half.Add(name)
		}
	}
	one := value.Text("name-050")
	day := value.Int(1_700_000_000_000_000_000)
	for _, bc := range []struct {
		name string
		args []value.Value
	}{
		{"count", []value.Value{names}},
		{"sum", []value.Value{numbers}},
		{"max", []value.Value{numbers}},
		{"sort", []value.Value{numbers}},
		{"and", []value.Value{names, half}},
		{"or", []value.Value{names, half}},
		{"set_diff", []value.Value{names, half}},
		{"internal.member_2", []value.Value{one, names}},
		{"internal.member_2", []value.Value{one, user}},
		{"object.get", []value.Value{user, one, value.NullValue}},
		{"object.keys", []value.Value{user}},
		{"object.remove", []value.Value{user, half}},
		{"array.concat", []value.Value{numbers, numbers}},
		{"walk", []value.Value{user}},
		{"json.marshal", []value.Value{user}},
		{"json.unmarshal", []value.Value{value.Text(`{"sub": "ana", "roles": ["a", "b"], "exp": 1700000000}`)}},
		{"base64url.decode", []value.Value{value.Text("eyJzdWIiOiAiYW5hIn0")}},
		{"time.clock", []value.Value{day}},
		{"time.parse_rfc3339_ns", []value.Value{value.Text("2026-11-23T10:00:00Z")}},
		{"crypto.sha256", []value.Value{one}},
	} {
		bi, _ := builtin.Find(bc.name)
		b.Run(bc.name+"/"+bc.args[len(bc.args)-1].Kind().String(), func(b *testing.B) {
			c := newCall()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := bi.Func(c, bc.args); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
