package embedded_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// ask asks n different questions in turn, many times, and returns what the cache
// counted of the last ones.
func ask(t *testing.T, c *embedded.Client, times int, question func(i int) policy.Request) (hits, misses uint64) {
	t.Helper()
	before := c.Status().Cache
	for i := range times {
		if _, err := c.Authorize(t.Context(), question(i)); err != nil {
			t.Fatal(err)
		}
	}
	after := c.Status().Cache
	return after.Hits - before.Hits, after.Misses - before.Misses
}

func TestWhatPaysIsFoundOut(t *testing.T) {
	long, err := policy.NewProperties(map[string]any{"text": strings.Repeat("x", 100_000)})
	if err != nil {
		t.Fatal(err)
	}
	one := func(int) policy.Request { return testkit.Request("shop.cart", "Add") }
	for name, c := range map[string]struct {
		policy   string
		question func(i int) policy.Request
		cached   bool
	}{
		"an evaluation that takes long": {`allow if { every i in numbers.range(1, 2000) { i != count(input.subject.id) - 1000 } }`, one, true},
		"an evaluation that is shorter than its key": {`allow if input.context != 1`, func(int) policy.Request {
			r := one(0)
			r.Context = long
			return r
		}, false},
		"another question each time": {`allow if startswith(input.resource.id, "shop")`, func(i int) policy.Request {
			r := one(0)
			r.Resource.ID = fmt.Sprint("shop", i)
			return r
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			d, p, url := start(t)
			d.Push(p, "center", "shop", guardrail)
			d.Push(p, "cart", "shop.cart", c.policy)
			client := newClient(t, d, url)
			ask(t, client.Client, 6000, c.question)
			hits, misses := ask(t, client.Client, 3200, c.question)
			if c.cached && hits < 3100 {
				t.Errorf("not cached: %d hits, %d misses", hits, misses)
			}
			// Some are measured all the time.
			if !c.cached && hits+misses > 320 {
				t.Errorf("looked up all the same: %d hits, %d misses", hits, misses)
			}
		})
	}
}
