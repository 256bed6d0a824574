package remote_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

func TestManyWhoAskTheSameAreAnsweredByOneCall(t *testing.T) {
	d, now := testkit.NewDomain(t), new(testkit.Clock)
	n := startNode(t, d, now.Now)
	shop, cart := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`)), d.Release("cart", "shop.cart", nil, d.Rego(attributes))
	n.offer(shop, cart)
	c := remembering(t, now.Now, cart.Version(), n)
	gate := make(chan struct{})
	wait := func(context.Context) { <-gate }
	n.before.Store(&wait)
	var work sync.WaitGroup
	for i := range 50 {
		work.Go(func() {
			r := request("shop.cart", "Add", func(r *policy.Request) { r.Context = testkit.Properties(t, map[string]any{"trace": i}) })
			if got, err := c.Authorize(t.Context(), r); err != nil || !got.Allowed {
				t.Error(spelling(got, err))
			}
		})
	}
	// One that gives up takes nothing from the others.
	ctx, cancel := context.WithCancel(t.Context())
	work.Go(func() {
		if _, err := c.Authorize(ctx, request("shop.cart", "Add")); !policy.Ended(err) {
			t.Error(err)
		}
	})
	testkit.Until(t, func() bool { return c.Status().Waiting == 51 && c.Status().Coalesced == 50 })
	cancel()
	testkit.Until(t, func() bool { return c.Status().Waiting == 50 })
	close(gate)
	work.Wait()
	if got := n.asked.Load(); got != 1 {
		t.Errorf("the PDP was asked %d times", got)
	}
}

// The race detector sees what goes wrong here.
func TestWhoGivesUpBeforeTheCallBeginsIsDoneWithIt(t *testing.T) {
	d, now := testkit.NewDomain(t), new(testkit.Clock)
	n := startNode(t, d, now.Now)
	shop, cart := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`)), d.Release("cart", "shop.cart", nil, d.Rego(attributes))
	n.offer(shop, cart)
	c := client(t, remote.Config{Servers: []string{n.server.addr}, Now: now.Now})
	var work sync.WaitGroup
	for range 8 { // so that goroutines wait for a processor
		work.Go(func() {
			for i := range 100 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Microsecond)
				if d, err := c.Authorize(ctx, request("shop.cart", "Add")); err != nil && (d.Allowed || !policy.Ended(err)) {
					t.Error(spelling(d, err))
				}
				cancel()
			}
		})
	}
	work.Wait()
}

// Two who are told apart by a release only that comes while they wait together.
func TestNobodyTakesAnAnswerByAPolicyThatTellsThemApart(t *testing.T) {
	d, now := testkit.NewDomain(t), new(testkit.Clock)
	n := startNode(t, d, now.Now)
	shop := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`))
	one := d.Release("cart", "shop.cart", nil, d.Rego("allow := true"))
	two := d.Release("cart", "shop.cart", one.Signed, d.Rego("default allow := false\nallow if input.subject.id == \"spiffe://shop/good\""))
	n.offer(shop, one)
	c := remembering(t, now.Now, one.Version(), n)
	gate := make(chan struct{})
	wait := func(context.Context) { <-gate }
	n.before.Store(&wait)
	var work sync.WaitGroup
	ask := func(id string, allowed bool) {
		work.Go(func() {
			got, err := c.Authorize(t.Context(), request("shop.cart", "Add", func(r *policy.Request) { r.Subject.ID = id }))
			if err != nil || got.Allowed != allowed || got.Versions[1] != two.Version() {
				t.Errorf("%s: %s", id, spelling(got, err))
			}
		})
	}
	ask("spiffe://shop/good", true)
	testkit.Until(t, func() bool { return n.asked.Load() == 1 })
	for i := range 10 {
		ask(fmt.Sprintf("spiffe://shop/bad%d", i), false)
	}
	testkit.Until(t, func() bool { return c.Status().Coalesced == 10 })
	n.offer(two)
	remembers(t, c, two.Version())
	close(gate)
	work.Wait()
}

func TestCallsThatWaitAreBounded(t *testing.T) {
	d, now := testkit.NewDomain(t), new(testkit.Clock)
	n := startNode(t, d, now.Now)
	n.offer(d.Release("center", "shop", nil, d.Rego(`allow := true`)))
	gate := make(chan struct{})
	wait := func(context.Context) { <-gate }
	n.before.Store(&wait)
	c := client(t, remote.Config{Servers: []string{n.server.addr}, InFlight: 2, Now: now.Now})
	var work sync.WaitGroup
	for i := range 2 {
		work.Go(func() {
			if got, err := c.Authorize(t.Context(), request("shop", fmt.Sprint(i))); err != nil {
				t.Error(spelling(got, err))
			}
		})
	}
	testkit.Until(t, func() bool { return n.asked.Load() == 2 })
	if got, err := c.Authorize(t.Context(), request("shop", "third")); policy.KindOf(err) != policy.Exhausted || !strings.Contains(err.Error(), "InFlight") {
		t.Error(spelling(got, err))
	}
	if _, err := c.AuthorizeBatch(t.Context(), []policy.Request{request("shop", "third")}); policy.KindOf(err) != policy.Exhausted {
		t.Error(err)
	}
	close(gate)
	work.Wait()
	if got, err := c.Authorize(t.Context(), request("shop", "third")); err != nil {
		t.Error(spelling(got, err))
	}
}
