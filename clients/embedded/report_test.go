package embedded_test

import (
	"testing"
	"time"

	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// said returns what the client says of a namespace once it is what is wanted.
func said(t *testing.T, author *pap.Client, n policy.Namespace, wanted func(pap.Status) bool) pap.Status {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		all, err := author.Statuses(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			if wanted(s) {
				return s
			}
		}
	}
	t.Fatalf("nobody says that of %s", n)
	return pap.Status{}
}

func TestAClientSaysByWhichReleaseItDecidesAndWhatItRefused(t *testing.T) {
	t.Parallel() // it waits, for files or a broker to be looked at again
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}})
	url := d.ServeNATS(t.TempDir()).URL()
	p := d.StartPDP(url, t.TempDir())
	author := d.PAP(p)
	d.Push(p, "center", "shop", "deny contains \"no\" if false")
	first := d.Push(p, "cart", "shop.cart", "allow := false").Release
	c, err := embedded.New(t.Context(), embedded.Config{NATS: url, TrustFile: d.TrustFile, Namespaces: []policy.Namespace{"shop.cart"}, Instance: "cart-1"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	runs := func(digest policy.Digest) func(pap.Status) bool {
		return func(s pap.Status) bool { return s.Digest == digest }
	}
	s := said(t, author, "shop.cart", runs(first.Digest()))
	if s.Instance != "cart-1" || s.Principal != "anonymous" || s.Role != "embedded" || s.Revision != 1 || s.Trust != 1 || s.Refused != "" || s.Received.IsZero() || !s.Proven.IsZero() || !s.Stale {
		t.Errorf("it says %+v", s)
	}
	second := d.Push(p, "cart", "shop.cart", "allow := true").Release
	said(t, author, "shop.cart", runs(second.Digest()))

	// And since when it is proven that there is no newer one.
	at := time.Now().Truncate(time.Millisecond)
	issue(t, d, p, at, second.Version())
	said(t, author, "shop.cart", func(s pap.Status) bool { return s.Proven.Equal(at) && !s.Stale && s.Digest == second.Digest() })

	// A release by a key that the client's own trust file does not know.
	d.WriteTrust(testkit.TrustOptions{Version: 2, CartSigners: []string{"pay"}})
	s = said(t, author, "shop.cart", func(s pap.Status) bool { return s.Refused != "" })
	if s.Revision != 0 {
		t.Errorf("it still decides by %d", s.Revision)
	}
	// The guardrail is reported as well, and "" asks for all.
	said(t, author, "", func(s pap.Status) bool { return s.Namespace == "shop" && s.Revision == 1 })
}

// Whoever waits for a release to be everywhere does not wait for who has ended.
func TestAClientThatEndsSignsOff(t *testing.T) {
	t.Parallel() // it waits for what others are told
	for name, mode := range map[string]embedded.Mode{"push": embedded.Push(), "poll": embedded.Poll(20 * time.Millisecond), "once": embedded.Once()} {
		t.Run(name, func(t *testing.T) {
			d, p, url := start(t)
			author := d.PAP(p)
			d.Push(p, "center", "shop", guardrail)
			head := d.Push(p, "cart", "shop.cart", allowsNot).Release
			dir := t.TempDir()
			c := newClient(t, d, url, in(mode), func(c *embedded.Config) { c.Instance, c.Dir = "cart-1", dir })
			if name != "once" { // that leaves by itself
				said(t, author, "shop.cart", func(s pap.Status) bool { return s.Digest == head.Digest() && !s.Left })
				c.Close()
			}
			for _, n := range []policy.Namespace{"shop", "shop.cart"} {
				said(t, author, n, func(s pap.Status) bool { return s.Instance == "cart-1" && s.Left })
			}
			if name != "once" {
				return
			}
			c.Close()
			// One that has something on disk takes another release before it leaves,
			// and its last word is of that one.
			next := d.Push(p, "cart", "shop.cart", allowsAdd).Release
			newClient(t, d, url, in(mode), func(c *embedded.Config) { c.Instance, c.Dir = "cart-2", dir })
			s := said(t, author, "shop.cart", func(s pap.Status) bool { return s.Instance == "cart-2" && s.Left })
			if s.Digest != next.Digest() {
				t.Errorf("its last word is revision %d, and it decides by %d", s.Revision, next.Release().Revision)
			}
		})
	}
}
