package pdp_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/policy"
)

// doors are all ways to ask one PDP's domain for a decision.
func doors(t *testing.T, d *testkit.Domain, p *testkit.PDP, url string) map[string]policy.Authorizer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	near, err := embedded.New(ctx, embedded.Config{NATS: url, TrustFile: d.TrustFile, Namespaces: []policy.Namespace{"shop.cart"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(near.Close)
	far, err := remote.New(t.Context(), remote.Config{Servers: []string{p.Addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	return map[string]policy.Authorizer{"embedded": near, "remote": far, "PDP": p.Service}
}

// startFresh is startBeacons with a NATS server that has the accounts which clients
// need.
func startFresh(t *testing.T) (*testkit.Domain, *testkit.PDP, string) {
	t.Helper()
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat", "beat2"}})
	url := d.ServeNATS(t.TempDir()).URL()
	return d, d.StartPDP(url, t.TempDir()), url
}

// asking returns the usual request with a freshness.
func asking(f policy.Freshness) policy.Request {
	r := testkit.Request("shop.cart", "Add")
	r.Freshness = f
	return r
}

func TestWhoeverKnowsOfAPushIsNotAnsweredByWhatWasBefore(t *testing.T) {
	d, p, url := startFresh(t)
	startIssuer(t, d, p, "beat", "one")
	d.Push(p, "center", "shop", guardrail)
	d.Push(p, "cart", "shop.cart", allowsAdd)
	all := doors(t, d, p, url)
	for n := range 20 {
		pushed := d.Push(p, "cart", "shop.cart", allowsAdd+strings.Repeat(" ", n+1)).Release.Version()
		for name, door := range all {
			for what, f := range map[string]policy.Freshness{"its token": policy.AtLeast(pushed.Token()), "the head": policy.Head} {
				decision, err := door.Authorize(t.Context(), asking(f))
				if err != nil || !decision.Allowed || decision.Versions[1] != pushed {
					t.Fatalf("%s, asked for %s, after %v: %+v, %v", name, what, pushed, decision, err)
				}
				results, err := door.AuthorizeBatch(t.Context(), []policy.Request{asking(policy.Freshness{}), asking(f), {Namespace: "shop.none"}})
				if err != nil || results[2].Err == nil {
					t.Fatalf("%s: %+v, %v", name, results, err)
				}
				for _, r := range results[:2] {
					if r.Err != nil || r.Decision.Versions[1] != pushed {
						t.Fatalf("%s, a batch of which one asked for %s, after %v: %+v", name, what, pushed, r)
					}
				}
			}
		}
	}
	// A guardrail is on the path as well.
	pushed := d.Push(p, "center", "shop", `deny contains "closed"`).Release.Version()
	for name, door := range all {
		if decision, err := door.Authorize(t.Context(), asking(policy.AtLeast(pushed.Token()))); err != nil || decision.Allowed || decision.Versions[0] != pushed {
			t.Errorf("%s: %+v, %v", name, decision, err)
		}
	}
}

func TestTokensThatPromiseNothing(t *testing.T) {
	d, p, url := startFresh(t)
	startIssuer(t, d, p, "beat", "one")
	d.Push(p, "center", "shop", guardrail)
	first := d.Push(p, "cart", "shop.cart", allowsAdd).Release.Version()
	head := d.Push(p, "cart", "shop.cart", allowsAdd+" ").Release.Version()
	pay := d.Push(p, "pay", "shop.pay", allowsAdd).Release.Version()
	change := func(v policy.Version, change func(*policy.Version)) policy.Token {
		change(&v)
		return v.Token()
	}
	all := doors(t, d, p, url)
	for name, c := range map[string]struct {
		token policy.Token
		want  policy.Kind // 0: decided by the head
	}{
		"of an older release":       {token: first.Token()},
		"of the head":               {token: head.Token()},
		"of an earlier epoch":       {token: change(head, func(v *policy.Version) { v.Epoch-- })},
		"of another team":           {token: pay.Token()},
		"of nobody":                 {token: change(pay, func(v *policy.Version) { v.Namespace = "shop.nobody" })},
		"of the future":             {change(head, func(v *policy.Version) { v.Revision++ }), policy.Failed},
		"of a later epoch":          {change(head, func(v *policy.Version) { v.Epoch++ }), policy.Failed},
		"made up":                   {change(head, func(v *policy.Version) { v.Digest[0]++ }), policy.Failed},
		"no token":                  {"mw1.nothing", policy.BadRequest},
		"half of one":               {head.Token()[:40], policy.BadRequest},
		"of a release of the realm": {change(head, func(v *policy.Version) { v.Namespace = "elsewhere.cart" }), 0},
	} {
		for door, a := range all {
			decision, err := a.Authorize(t.Context(), asking(policy.AtLeast(c.token)))
			switch {
			case c.want != 0 && (policy.KindOf(err) != c.want || decision.Allowed):
				t.Errorf("%s, a token %s: %+v, %v", door, name, decision, err)
			case c.want == 0 && (err != nil || decision.Versions[1] != head):
				t.Errorf("%s, a token %s: %+v, %v", door, name, decision, err)
			}
		}
	}
}

func TestWhoCannotAskAnybodySaysSo(t *testing.T) {
	d, p, _ := startBeacons(t)
	d.Push(p, "center", "shop", guardrail)
	head := d.Push(p, "cart", "shop.cart", allowsAdd).Release.Version()
	older := head
	older.Revision++
	nobody := pdp.New(pdp.Config{Source: p.Live})
	for name, f := range map[string]policy.Freshness{"the head": policy.Head, "a newer one": policy.AtLeast(older.Token())} {
		if decision, err := nobody.Authorize(t.Context(), asking(f)); policy.KindOf(err) != policy.Unavailable || decision.Allowed {
			t.Errorf("%s: %+v, %v", name, decision, err)
		}
	}
	// What is there needs nobody.
	if decision, err := nobody.Authorize(t.Context(), asking(policy.AtLeast(head.Token()))); err != nil || decision.Versions[1] != head {
		t.Errorf("%+v, %v", decision, err)
	}
	// Another PDP was ahead: this one does not wait.
	if decision, err := p.Service.Authorize(t.Context(), asking(policy.Freshness{}.NotBefore(older))); policy.KindOf(err) != policy.Unavailable || decision.Allowed {
		t.Errorf("%+v, %v", decision, err)
	}
	if decision, err := nobody.Authorize(t.Context(), asking(policy.Freshness{}.NotBefore(head))); err != nil || decision.Versions[1] != head {
		t.Errorf("%+v, %v", decision, err)
	}
}

func TestAReleaseThatDoesNotArriveIsWaitedForUntilTheDeadline(t *testing.T) {
	d, p, _ := startBeacons(t)
	d.Push(p, "center", "shop", guardrail)
	newer := d.Push(p, "cart", "shop.cart", allowsAdd).Release.Version()
	newer.Revision++
	behind := pdp.New(pdp.Config{Source: p.Live, Confirm: func(_ context.Context, n policy.Namespace) (policy.Version, error) {
		if n == "shop.cart" {
			return newer, nil
		}
		return p.Live.Snapshot().Versions()[0], nil
	}})
	for name, f := range map[string]policy.Freshness{"the head": policy.Head, "its token": policy.AtLeast(newer.Token())} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		decision, err := behind.Authorize(ctx, asking(f))
		cancel()
		if policy.KindOf(err) != policy.Unavailable || !errors.Is(err, context.DeadlineExceeded) || decision.Allowed {
			t.Errorf("%s: %+v, %v", name, decision, err)
		}
	}
}
