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
	d := testkit.NewDomain(t)
	url := testkit.NATS(t, t.TempDir()).URL()
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
	if s.Instance != "cart-1" || s.Principal != "anonymous" || s.Role != "embedded" || s.Revision != 1 || s.Trust != 1 || s.Refused != "" || s.Received.IsZero() {
		t.Errorf("it says %+v", s)
	}
	second := d.Push(p, "cart", "shop.cart", "allow := true").Release
	said(t, author, "shop.cart", runs(second.Digest()))

	// A release by a key that the client's own trust file does not know.
	d.WriteTrust(testkit.TrustOptions{Version: 2, CartSigners: []string{"pay"}})
	s = said(t, author, "shop.cart", func(s pap.Status) bool { return s.Refused != "" })
	if s.Revision != 0 {
		t.Errorf("it still decides by %d", s.Revision)
	}
	// The guardrail is reported as well, and "" asks for all.
	said(t, author, "", func(s pap.Status) bool { return s.Namespace == "shop" && s.Revision == 1 })
}
