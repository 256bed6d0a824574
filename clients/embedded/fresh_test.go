package embedded_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// Who cannot hear of releases, or not now, says so to whoever asks for more than what is
// held: at once, or when the call ends.
func TestWhoHasNobodyToAskSaysSo(t *testing.T) {
	t.Parallel() // it waits, for a broker that is gone
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}})
	nats := d.ServeNATS(t.TempDir())
	p := d.StartPDP(nats.URL(), t.TempDir())
	guard := d.Push(p, "center", "shop", guardrail).Release
	head := d.Push(p, "cart", "shop.cart", allowsAdd).Release
	dir := t.TempDir()
	write(t, dir, "shop", sealed(guard.Note(), d.Release("center", "shop", nil, d.Rego(guardrail)).Packed))
	write(t, dir, "shop.cart", sealed(head.Note(), d.Release("cart", "shop.cart", nil, d.Rego(allowsAdd)).Packed))

	once := newClient(t, d, nats.URL(), in(embedded.Once()))
	once.wait("the connection is closed", func(e any) bool { _, ok := e.(jetstream.Disconnected); return ok })
	follows, polls := newClient(t, d, nats.URL()), newClient(t, d, nats.URL(), in(embedded.Poll(time.Minute)))
	nats.Shutdown()
	newer, elsewhere, earlier := head.Version(), head.Version(), head.Version()
	newer.Revision++
	elsewhere.Namespace = "shop.pay"
	earlier.Epoch--
	for name, c := range map[string]struct {
		*client
		within time.Duration // that the call has
	}{
		"of a directory":          {newInDirectory(t, d, dir), time.Hour},
		"that has asked once":     {once, time.Hour},
		"that is cut off":         {follows, 100 * time.Millisecond},
		"that polls, and cut off": {polls, 100 * time.Millisecond},
	} {
		for what, test := range map[string]struct {
			f      policy.Freshness
			missed bool
		}{
			"nothing":                           {policy.Freshness{}, false},
			"what is held":                      {policy.AtLeast(head.Version().Token(), guard.Version().Token()), false},
			"not to be behind":                  {policy.Freshness{}.NotBefore(head.Version()), false},
			"the head":                          {policy.Head, true},
			"a newer release":                   {policy.AtLeast(newer.Token()), true},
			"one that is held, and a newer one": {policy.AtLeast(head.Version().Token(), newer.Token()), true},
			"a release of another namespace":    {policy.AtLeast(elsewhere.Token()), true},
			"one of an earlier epoch":           {policy.AtLeast(earlier.Token()), true},
			"not to be behind others":           {policy.Freshness{}.NotBefore(newer), true},
		} {
			r := testkit.Request("shop.cart", "Add")
			r.Freshness = test.f
			ctx, cancel := context.WithTimeout(t.Context(), c.within)
			begun := time.Now()
			got, err := c.Authorize(ctx, r)
			results, batchErr := c.AuthorizeBatch(ctx, []policy.Request{testkit.Request("shop.cart", "Add"), r})
			cancel()
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("a client %s, asked for %s: it took %s", name, what, took)
			}
			switch {
			case what == "the head" && strings.Contains(name, "cut off") && !strings.Contains(err.Error(), "NATS"):
				t.Errorf("a client %s does not say why it cannot know the head: %v", name, err)
			case test.missed && (policy.KindOf(err) != policy.Unavailable || got.Allowed || policy.KindOf(batchErr) != policy.Unavailable || results != nil):
				t.Errorf("a client %s, asked for %s: %+v, %v; in a batch %+v, %v", name, what, got, err, results, batchErr)
			case !test.missed && (err != nil || !got.Allowed || batchErr != nil || !results[0].Decision.Allowed || !results[1].Decision.Allowed || got.Versions[1] != head.Version()):
				t.Errorf("a client %s, asked for %s: %+v, %v; in a batch %+v, %v", name, what, got, err, results, batchErr)
			}
		}
	}
}

// Where the trust file lists no beacons nobody can say which release is the newest. One
// that a token stands for is waited for all the same.
func TestWithoutBeaconsATokenIsWaitedForAndTheHeadIsNot(t *testing.T) {
	t.Parallel()
	d := testkit.NewDomain(t)
	url := d.ServeNATS(t.TempDir()).URL()
	p := d.StartPDP(url, t.TempDir())
	d.Push(p, "center", "shop", guardrail)
	d.Push(p, "cart", "shop.cart", allowsAdd)
	c := newClient(t, d, url, in(embedded.Poll(2*time.Second)))
	pushed := d.Push(p, "cart", "shop.cart", allowsAdd+" ").Release.Version()
	r := testkit.Request("shop.cart", "Add")
	r.Freshness = policy.AtLeast(pushed.Token())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if got, err := c.Authorize(ctx, r); err != nil || !got.Allowed || got.Versions[1] != pushed {
		t.Errorf("%+v, %v", got, err)
	}
	begun := time.Now()
	r.Freshness = policy.Head
	if got, err := c.Authorize(ctx, r); policy.KindOf(err) != policy.Unavailable || !strings.Contains(err.Error(), "lists no beacons") || got.Allowed || time.Since(begun) > 10*time.Second {
		t.Errorf("the head: %+v, %v, after %s", got, err, time.Since(begun))
	}
	never := pushed
	never.Revision++
	r.Freshness = policy.AtLeast(never.Token())
	brief, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if got, err := c.Authorize(brief, r); policy.KindOf(err) != policy.Unavailable || !errors.Is(err, context.DeadlineExceeded) || got.Allowed {
		t.Errorf("what does not come: %+v, %v", got, err)
	}
}
