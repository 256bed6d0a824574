package remote_test

import (
	"testing"
	"time"

	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

func TestFreshnessIsWhatWasAskedFor(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}})
	now := new(testkit.Clock)
	n := startNode(t, d, now.Now)
	shop := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`))
	one := d.Release("cart", "shop.cart", nil, d.Rego("allow := true"))
	two := d.Release("cart", "shop.cart", one.Signed, d.Rego("allow := false"))
	n.offer(shop, one)
	n.prove(now.Now(), shop, one)
	c := client(t, remote.Config{Servers: []string{n.server.addr}, Namespaces: []policy.Namespace{"shop.cart"}, Now: now.Now, Timeout: 300 * time.Millisecond})
	remembers(t, c, one.Version())
	mustAsk(t, c, request("shop.cart", "Add"))
	testkit.Until(t, func() bool { return !c.Status().Namespaces[0].Stale })
	with := func(f policy.Freshness) policy.Request {
		r := request("shop.cart", "Add")
		r.Freshness = f
		return r
	}
	ofPay := policy.Version{Namespace: "shop.pay", Epoch: 1, Revision: 1, Digest: policy.DigestOf(nil)}
	earlier := one.Version()
	earlier.Epoch = 0
	other := one.Version()
	other.Digest = policy.DigestOf(nil)
	mustHit(t, c, with(policy.AtLeast(one.Version().Token(), shop.Version().Token())))
	mustHit(t, c, with(policy.Freshness{}.NotBefore(one.Version())))
	for name, test := range map[string]struct {
		f    policy.Freshness
		kind policy.Kind
	}{
		"the head":                    {policy.Head, policy.Unavailable},
		"a release that is not there": {policy.AtLeast(two.Version().Token()), policy.Unavailable},
		"one of another namespace":    {policy.AtLeast(ofPay.Token()), policy.Unavailable},
		"one of an earlier epoch":     {policy.AtLeast(earlier.Token()), policy.Unavailable},
		"one that was made up":        {policy.AtLeast(other.Token()), policy.Unavailable},
		"one of two":                  {policy.AtLeast(one.Version().Token(), two.Version().Token()), policy.Unavailable},
		"what is no token":            {policy.AtLeast("mw1.x"), policy.BadRequest},
		"what was seen elsewhere":     {policy.Freshness{}.NotBefore(two.Version()), policy.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			before := c.Status().Asked
			got, err := c.Authorize(t.Context(), with(test.f))
			if got.Allowed || policy.KindOf(err) != test.kind {
				t.Errorf("got %s", spelling(got, err))
			}
			if got, err := onlyOne(c.AuthorizeBatch(t.Context(), []policy.Request{with(test.f)})); got.Allowed || policy.KindOf(err) != test.kind {
				t.Errorf("in a batch: %s", spelling(got, err))
			}
			if asked := c.Status().Asked > before; asked != (test.kind == policy.Unavailable) {
				t.Errorf("asked is %v", asked)
			}
		})
	}
	n.offer(two)
	remembers(t, c, two.Version())
	if got := mustAsk(t, c, with(policy.AtLeast(two.Version().Token()))); got.Allowed {
		t.Error("decided by the release before")
	}
	mustHit(t, c, with(policy.AtLeast(one.Version().Token())))
}
