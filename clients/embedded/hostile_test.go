package embedded_test

import (
	"iter"
	"maps"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// bomb is an object that can no longer be read once it is armed: as one is that its
// owner changes meanwhile.
type bomb struct {
	members map[string]policy.Value
	armed   atomic.Bool
}

func (b *bomb) Len() int { return len(b.members) }

func (b *bomb) Get(name string) policy.Value {
	if b.armed.Load() {
		panic("boom")
	}
	return b.members[name]
}

func (b *bomb) Index(int) policy.Value  { panic("boom") }
func (b *bomb) Names() iter.Seq[string] { return maps.Keys(b.members) }

func TestARequestThatCannotBeReadEndsNobody(t *testing.T) {
	d, p, url := start(t)
	d.Push(p, "center", "shop", guardrail)
	d.Push(p, "cart", "shop.cart", `allow if input.subject.properties.role != "x"`)
	c := newClient(t, d, url)
	for name, put := range map[string]func(*policy.Request, policy.Properties){
		"in what is checked": func(r *policy.Request, p policy.Properties) { r.Context = p },
		"in what is read":    func(r *policy.Request, p policy.Properties) { r.Subject.Properties = p },
	} {
		b := &bomb{members: map[string]policy.Value{"role": policy.StringValue("clerk")}}
		read, err := policy.ReadProperties(b)
		if err != nil {
			t.Fatal(err)
		}
		r := testkit.Request("shop.cart", "Add")
		put(&r, read)
		b.armed.Store(true)
		// Some are measured, and some are not.
		for range 100 {
			got, err := c.Authorize(t.Context(), r)
			if got.Allowed || err == nil || !strings.Contains(err.Error(), "boom") {
				t.Fatalf("%s: %+v, %v", name, got, err)
			}
		}
		all, err := c.AuthorizeBatch(t.Context(), []policy.Request{r, {Namespace: "shop.cart"}})
		if err != nil || all[0].Decision.Allowed || all[0].Err == nil || all[1].Err == nil {
			t.Errorf("%s, in a batch: %+v, %v", name, all, err)
		}
	}
}
