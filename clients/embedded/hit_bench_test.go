package embedded_test

import (
	"testing"

	"github.com/microwall/microwall/internal/testkit"
)

func BenchmarkHit(b *testing.B) {
	d, p, url := start(b)
	d.Push(p, "center", "shop", guardrail)
	d.Push(p, "cart", "shop.cart", `allow if { some i in numbers.range(1, 200); i == 150 }`+"\n"+`allow if { input.subject.id == "x"; input.action.name == "z" }`)
	c := newClient(b, d, url)
	r := testkit.Request("shop.cart", "Add")
	for range 100 {
		c.expect("shop.cart", "Add", "allow")
	}
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = c.Authorize(b.Context(), r)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, _ = c.Authorize(b.Context(), r)
			}
		})
	})
	b.Logf("%+v", c.Status().Cache)
}
