package remote_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

func TestAPDPThatIsBehindIsPassedOver(t *testing.T) {
	d, now := testkit.NewDomain(t), new(testkit.Clock)
	shop := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`))
	one := d.Release("cart", "shop.cart", nil, d.Rego("allow := true"))
	two := d.Release("cart", "shop.cart", one.Signed, d.Rego("allow := input.action.name == \"never\""))
	behind, ahead := startNode(t, d, now.Now), startNode(t, d, now.Now)
	behind.offer(shop, one)
	ahead.offer(shop, one, two)
	for name, entries := range map[string]int{"with a cache": 0, "without": -1} {
		t.Run(name, func(t *testing.T) {
			c := client(t, remote.Config{Servers: []string{behind.server.addr, ahead.server.addr}, Cache: cache.Config{Entries: entries}, Now: now.Now})
			asked, newest := behind.asked.Load(), false
			for i := range 100 {
				r := request("shop.cart", fmt.Sprint(i))
				var got policy.Decision
				var err error
				if i%2 == 0 {
					got, err = c.Authorize(t.Context(), r)
				} else {
					got, err = onlyOne(c.AuthorizeBatch(t.Context(), []policy.Request{r}))
				}
				if err != nil {
					t.Fatal(err)
				}
				switch got.Versions[1] {
				case two.Version():
					newest = true
				case one.Version():
					if newest {
						t.Fatalf("request %d was decided by release 1 after release 2 was seen", i)
					}
				}
			}
			if !newest || behind.asked.Load() < asked+10 {
				t.Errorf("newest seen: %v, the one behind was asked %d times", newest, behind.asked.Load()-asked)
			}
			if s := c.Status(); s.PDPs[0].Ejected != 0 || s.Failed != 0 {
				t.Errorf("one that answers was left alone: %+v", s)
			}
		})
	}
	t.Run("and alone", func(t *testing.T) {
		c := client(t, remote.Config{Servers: []string{behind.server.addr, ahead.server.addr}, Now: now.Now})
		testkit.Until(t, func() bool {
			got, err := c.Authorize(t.Context(), request("shop.cart", fmt.Sprint(rand.Int())))
			return err == nil && got.Versions[1] == two.Version()
		})
		ahead.server.stop()
		for i := range 3 {
			if got, err := c.Authorize(t.Context(), request("shop.cart", fmt.Sprint("x", i))); policy.KindOf(err) != policy.Unavailable || got.Allowed {
				t.Errorf("got %s", spelling(got, err))
			}
		}
	})
}

func TestAWatchMovesToAPDPThatIsNotBehind(t *testing.T) {
	t.Parallel() // it waits
	d, now := testkit.NewDomain(t), new(testkit.Clock)
	shop := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`))
	one := d.Release("cart", "shop.cart", nil, d.Rego("allow := input.action.name != \"Drop\""))
	two := d.Release("cart", "shop.cart", one.Signed, d.Rego("allow := input.action.name == \"Drop\""))
	nodes := []*node{startNode(t, d, now.Now), startNode(t, d, now.Now)}
	for _, n := range nodes {
		n.offer(shop, one)
	}
	c := remembering(t, now.Now, one.Version(), nodes...)
	watched := slices.IndexFunc(nodes, func(n *node) bool { return n.server.addr == c.Status().Watched })
	nodes[1-watched].offer(two)
	for i := range 4 { // until the other one has answered
		if _, err := c.Authorize(t.Context(), request("shop.cart", fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if s := c.Status().Namespaces[0]; s.Remembered {
		t.Errorf("decisions of an older release are still handed out: %+v", s)
	}
	remembers(t, c, two.Version())
	if got := c.Status().Watched; got != nodes[1-watched].server.addr {
		t.Errorf("%s is watched", got)
	}
}

// Who has been told that a namespace was retired is not answered by a PDP that does not
// know of that yet.
func TestARetiredNamespaceDoesNotComeBackAtAPDPThatIsBehind(t *testing.T) {
	d, now := testkit.NewDomain(t), new(testkit.Clock)
	shop := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`))
	one := d.Release("cart", "shop.cart", nil, d.Rego("allow := true"))
	retired := d.Release("cart", "shop.cart", one.Signed, nil)
	behind, ahead := startNode(t, d, now.Now), startNode(t, d, now.Now)
	behind.offer(shop, one)
	ahead.offer(shop, one, retired)
	for name, entries := range map[string]int{"with a cache": 0, "without": -1} {
		t.Run(name, func(t *testing.T) {
			c := client(t, remote.Config{
				Servers: []string{behind.server.addr, ahead.server.addr}, Namespaces: []policy.Namespace{"shop.cart"}, Cache: cache.Config{Entries: entries}, Now: now.Now,
			})
			for _, how := range []func(policy.Request) (policy.Decision, error){
				func(r policy.Request) (policy.Decision, error) { return c.Authorize(t.Context(), r) },
				func(r policy.Request) (policy.Decision, error) {
					return onlyOne(c.AuthorizeBatch(t.Context(), []policy.Request{r}))
				},
			} {
				testkit.Until(t, func() bool {
					_, err := how(request("shop.cart", "Add"))
					return policy.KindOf(err) == policy.NotFound
				})
				for range 4 {
					if got, err := how(request("shop.cart", "Add")); policy.KindOf(err) != policy.NotFound || got.Allowed {
						t.Errorf("got %s", spelling(got, err))
					}
				}
			}
		})
	}
}

// A watch that tells that nothing decides any more is enough: of a retired namespace, or
// of a release whose author's key was stolen, which is told without any version.
func TestWhatDecidesNoMoreDoesNotComeBackByAnotherWatch(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *testkit.Domain, testkit.Release, *node){
		"retired": func(_ *testing.T, d *testkit.Domain, r testkit.Release, n *node) {
			n.offer(d.Release("cart", "shop.cart", r.Signed, nil))
		},
		"by a key that is trusted no more": func(t *testing.T, d *testkit.Domain, _ testkit.Release, n *node) {
			d.WriteTrust(testkit.TrustOptions{Version: 2, CartSigners: []string{"ann"}})
			if err := n.state.SetTrust(d.Trust()); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, now := testkit.NewDomain(t), new(testkit.Clock)
			shop := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`))
			one := d.Release("cart", "shop.cart", nil, d.Rego("allow := true"))
			nodes := []*node{startNode(t, d, now.Now), startNode(t, d, now.Now)}
			for _, n := range nodes {
				n.offer(shop, one)
			}
			c := remembering(t, now.Now, one.Version(), nodes...)
			r := request("shop.cart", "Add")
			mustAsk(t, c, r)
			watched := nodes[slices.IndexFunc(nodes, func(n *node) bool { return n.server.addr == c.Status().Watched })]
			end(t, d, one, watched)
			testkit.Until(t, func() bool { return c.Status().Namespaces[0].Undecided != nil })
			before := c.Status().Ignored
			watched.server.stop()
			testkit.Until(t, func() bool { return c.Status().Ignored > before })
			if got, err := c.Authorize(t.Context(), r); got.Allowed || policy.KindOf(err) != policy.Unavailable {
				t.Errorf("got %s", spelling(got, err))
			}
		})
	}
}

// Which guardrails bind is in the trust file: who has seen a newer one is not answered,
// or told, by a PDP that has an older one.
func TestAGuardrailDoesNotVanishAtAPDPThatHasAnOlderTrustFile(t *testing.T) {
	for name, entries := range map[string]int{"with a cache": 0, "without": -1} {
		t.Run(name, func(t *testing.T) {
			d, now := testkit.NewDomain(t), new(testkit.Clock)
			d.WriteTrust(testkit.TrustOptions{NoGuardrail: true})
			shop := d.Release("center", "shop", nil, d.Rego(`deny contains "frozen"`))
			one := d.Release("cart", "shop.cart", nil, d.Rego("allow := input.action.name != \"never\""))
			nodes := []*node{startNode(t, d, now.Now), startNode(t, d, now.Now)}
			for _, n := range nodes {
				n.offer(shop, one)
			}
			c := client(t, remote.Config{
				Servers: []string{nodes[0].server.addr, nodes[1].server.addr}, Namespaces: []policy.Namespace{"shop.cart"}, Cache: cache.Config{Entries: entries}, Now: now.Now,
			})
			ask := func(i int) (policy.Decision, error) {
				r := request("shop.cart", fmt.Sprint(i))
				if i%2 == 0 {
					return c.Authorize(t.Context(), r)
				}
				return onlyOne(c.AuthorizeBatch(t.Context(), []policy.Request{r}))
			}
			if got, err := ask(0); err != nil || !got.Allowed {
				t.Fatal(spelling(got, err))
			}
			d.WriteTrust(testkit.TrustOptions{Version: 2})
			if err := nodes[1].state.SetTrust(d.Trust()); err != nil {
				t.Fatal(err)
			}
			i := 0
			testkit.Until(t, func() bool {
				i++
				got, err := ask(i)
				if err != nil {
					t.Fatal(err)
				}
				return !got.Allowed
			})
			for range 6 {
				i++
				if got, err := ask(i); err != nil || got.Allowed || got.Evaluation.Trust != 2 {
					t.Errorf("got %s by %+v", spelling(got, err), got.Evaluation)
				}
			}
			if got, err := ask(0); err != nil || got.Allowed {
				t.Errorf("what was asked before: %s", spelling(got, err))
			}
			nodes[1].server.stop()
			for range 4 {
				i++
				if got, err := ask(i); got.Allowed || err == nil && len(got.Versions) < 2 {
					t.Errorf("only the one with the older trust file is left: %s", spelling(got, err))
				}
			}
		})
	}
}
