package cache_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// What identifies a call, and when it was made, is in no policy: the same questions are
// hits as often with that as without, to the last one.
func TestATraceIDAndATimestampCostNoHit(t *testing.T) {
	domain := testkit.NewDomain(t)
	url := domain.ServeNATS(t.TempDir()).URL()
	p := domain.StartPDP(url, t.TempDir())
	domain.Push(p, "center", "shop", `deny contains "never" if input.action.name == "Forbidden"`)
	// So dear that an embedded client remembers whatever it decides.
	domain.Push(p, "cart", cart, `
		allow if { every i in numbers.range(1, 1000) { i != count(input.subject.id) - 5000 } }
		reasons contains input.subject.properties.department
		deny contains "frozen" if input.context.frozen`)
	type client struct {
		policy.Authorizer
		stats func() cache.Stats
	}
	clients := map[string]func(*testing.T) client{
		"embedded": func(t *testing.T) client {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			c, err := embedded.New(ctx, embedded.Config{NATS: url, TrustFile: domain.TrustFile, Namespaces: []policy.Namespace{cart}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			return client{c, func() cache.Stats { return c.Status().Cache }}
		},
		"remote": func(t *testing.T) client {
			c, err := remote.New(t.Context(), remote.Config{Servers: []string{p.Addr}, Namespaces: []policy.Namespace{cart}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c.Close() })
			for late := time.After(30 * time.Second); !c.Status().Namespaces[0].Remembered; {
				select {
				case <-late:
					t.Fatal("the client is not told what decides")
				case <-time.After(time.Millisecond):
				}
			}
			return client{c, func() cache.Stats { return c.Status().Cache }}
		},
	}
	const asks = 3000
	callers := rand.NewZipf(rand.New(rand.NewPCG(1, 5)), 1.2, 1, 400)
	questions, distinct := make([]policy.Request, asks), map[string]bool{}
	for i := range questions {
		id := callers.Uint64()
		questions[i] = policy.Request{
			Namespace: cart,
			Subject:   policy.Entity{Type: "user", ID: fmt.Sprint(id), Properties: testkit.Properties(t, map[string]any{"department": fmt.Sprint(id % 3)})},
			Action:    policy.Action{Name: "Add"}, Resource: policy.Entity{Type: "cart", ID: fmt.Sprint(i)},
			Context: testkit.Properties(t, map[string]any{"frozen": id%5 == 0}),
		}
		distinct[questions[i].Subject.ID] = true
	}
	for name, start := range clients {
		t.Run(name, func(t *testing.T) {
			run := func(unique bool) cache.Stats {
				c := start(t)
				for i, r := range questions {
					if unique {
						context := r.Context.Map()
						context["trace_id"], context["at"] = fmt.Sprintf("%032x", i), i
						r.Context = testkit.Properties(t, context)
						subject := r.Subject.Properties.Map()
						subject["session"] = map[string]any{"id": i}
						r.Subject.Properties = testkit.Properties(t, subject)
					}
					if i%7 == 0 {
						results, err := c.AuthorizeBatch(t.Context(), []policy.Request{r})
						if err != nil || results[0].Err != nil {
							t.Fatal(err, results)
						}
					} else if _, err := c.Authorize(t.Context(), r); err != nil {
						t.Fatal(err)
					}
				}
				return c.stats()
			}
			with, without := run(true), run(false)
			if with.Hits != without.Hits || with.Misses != without.Misses || with.Entries != without.Entries || with.Hits != uint64(asks-len(distinct)) {
				t.Errorf("with a trace id %+v\nwithout         %+v\nof %d questions, %d different ones", with, without, asks, len(distinct))
			}
		})
	}
}
