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
	d, now := testkit.NewDomain(t), new(testkit.Clock)
	shop := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`))
	one := d.Release("cart", "shop.cart", nil, d.Rego("allow := input.action.name != \"Drop\""))
	two := d.Release("cart", "shop.cart", one.Signed, d.Rego("allow := input.action.name == \"Drop\""))
	nodes := []*node{startNode(t, d, now.Now), startNode(t, d, now.Now)}
	for _, n := range nodes {
		n.offer(shop, one)
	}
	c := client(t, remote.Config{Servers: []string{nodes[0].server.addr, nodes[1].server.addr}, Namespaces: []policy.Namespace{"shop.cart"}, Now: now.Now})
	remembers(t, c, one.Version())
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
