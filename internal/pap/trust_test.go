package pap_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

func rooted(version uint64, without ...string) testkit.TrustOptions {
	return testkit.TrustOptions{Version: version, Without: without, Roots: []string{"ann", "bob"}, RootThreshold: 2}
}

func startRooted(t *testing.T) (*testkit.Domain, *testkit.PDP) {
	d := testkit.NewDomain(t)
	d.WriteTrust(rooted(1))
	return d, d.StartPDP(testkit.NATS(t, t.TempDir()).URL(), t.TempDir())
}

// trusts answers for the server what it says the next trust file is.
func trusts(p *testkit.PDP, note []byte) *between {
	return &between{ClientConnInterface: p.Conn, answer: func(method string, answer any, err error) error {
		if m, ok := answer.(*microwallv1.GetTrustResponse); ok {
			m.Trust = note
			return nil
		}
		return err
	}}
}

func TestAServerLeadsNobodyToAnotherTrustFile(t *testing.T) {
	d, p := startRooted(t)
	for name, note := range map[string][]byte{
		"signed by one root":   d.SignTrust(rooted(2), "ann"),
		"signed by strangers":  d.SignTrust(rooted(2), "stranger", "cart"),
		"the same version":     d.SignTrust(rooted(1, "pay"), "ann", "bob"),
		"a version too far":    d.SignTrust(rooted(3), "ann", "bob"),
		"garbage":              []byte("trust me"),
		"nothing":              nil,
		"no roots any more":    d.SignTrust(testkit.TrustOptions{Version: 2}, "ann", "bob"),
		"other roots by other": d.SignTrust(testkit.TrustOptions{Version: 2, Roots: []string{"cay"}}, "cay"),
	} {
		trust, _, err := pap.FollowTrust(t.Context(), trusts(p, note), "pdp", d.Trust())
		if err == nil || trust != nil || !strings.Contains(err.Error(), "hands out a trust file that does not follow yours") {
			t.Errorf("%s: %v, %v", name, trust, err)
		}
	}
	// A server that knows nothing of it leaves everything as it is.
	for _, code := range []codes.Code{codes.NotFound, codes.Unimplemented} {
		older := &between{ClientConnInterface: p.Conn, answer: func(string, any, error) error { return status.Error(code, "no") }}
		trust, file, err := pap.FollowTrust(t.Context(), older, "pdp", d.Trust())
		if err != nil || trust.Version() != 1 || file != nil {
			t.Errorf("%s: %v", code, err)
		}
	}
	down := &between{ClientConnInterface: p.Conn, answer: func(string, any, error) error { return status.Error(codes.Unavailable, "down") }}
	if _, _, err := pap.FollowTrust(t.Context(), down, "pdp", d.Trust()); policy.KindOf(err) != policy.Unavailable {
		t.Errorf("a server that is down: %v", err)
	}
}

func TestATrustFileIsVerifiedBeforeItIsPushed(t *testing.T) {
	d, p := startRooted(t)
	sent := 0
	counted := &between{ClientConnInterface: p.Conn, answer: func(method string, _ any, err error) error {
		if strings.HasSuffix(method, "/PushTrust") {
			sent++
		}
		return err
	}}
	author := pap.New(counted, "pdp", d.Trust())
	for _, note := range [][]byte{d.SignTrust(rooted(2), "ann"), d.SignTrust(rooted(3), "ann", "bob"), d.SignTrust(rooted(1, "pay"), "ann", "bob"), nil} {
		if _, err := author.PushTrust(t.Context(), note); err == nil {
			t.Errorf("%.40q was pushed", note)
		}
	}
	if sent != 0 {
		t.Errorf("%d were sent", sent)
	}
	for _, note := range [][]byte{d.SignTrust(rooted(1), "ann", "bob"), d.SignTrust(rooted(2), "ann", "bob"), d.SignTrust(rooted(2), "bob", "ann")} {
		version, err := author.PushTrust(t.Context(), note)
		if err != nil {
			t.Fatal(err)
		}
		newest, file, err := pap.FollowTrust(t.Context(), p.Conn, "pdp", d.Trust())
		if err != nil || newest.Version() != version || file != nil && policy.DigestOf(file) != newest.Digest() {
			t.Errorf("version %d is %v, %v", version, newest, err)
		}
	}
	liar := &between{ClientConnInterface: p.Conn, answer: func(_ string, answer any, err error) error {
		if m, ok := answer.(*microwallv1.PushTrustResponse); ok {
			m.Version = 7
		}
		return err
	}}
	if _, err := pap.New(liar, "pdp", d.Trust()).PushTrust(t.Context(), d.SignTrust(rooted(2), "ann", "bob")); policy.KindOf(err) != policy.Failed {
		t.Errorf("a server that says another version is in force: %v", err)
	}
}

func TestWhatATrustFileWouldStop(t *testing.T) {
	d, p := startRooted(t)
	d.Push(p, "center", "shop", "deny contains \"x\" if false")
	d.Push(p, "cart", "shop.cart", allows)
	d.Push(p, "cart", "shop.cart.eu", allows) // not listed: by the key of shop.cart
	parse := func(o testkit.TrustOptions) *bundles.Trust {
		t.Helper()
		trust, err := bundles.ParseTrust(d.TrustText(o))
		if err != nil {
			t.Fatal(err)
		}
		return trust
	}
	with := func(change func(*testkit.TrustOptions)) *bundles.Trust {
		o := rooted(2)
		change(&o)
		return parse(o)
	}
	for name, c := range map[string]struct {
		after    *bundles.Trust
		problems []string // what the problems say, in order
	}{
		"nothing but the version":            {parse(rooted(2)), nil},
		"a key more":                         {with(func(o *testkit.TrustOptions) { o.CartSigners = []string{"cart", "pay"} }), nil},
		"another key":                        {with(func(o *testkit.TrustOptions) { o.CartSigners = []string{"pay"} }), []string{"shop.cart: nothing in it is decided any more", "shop.cart.eu: nothing in it is decided any more"}},
		"a threshold that no head meets":     {with(func(o *testkit.TrustOptions) { o.ShopSigners, o.ShopThreshold = []string{"center", "ann"}, 2 }), []string{"shop: nothing in it is decided any more", "shop: it is a guardrail without a release that opens"}},
		"no guardrail":                       {with(func(o *testkit.TrustOptions) { o.NoGuardrail = true }), []string{"shop: it is no guardrail any more"}},
		"a guardrail that nobody has pushed": {with(func(o *testkit.TrustOptions) { o.More = map[policy.Namespace]string{"shop.pay": "guardrail: true"} }), []string{"shop.pay: it is a guardrail without a release that opens"}},
		"the same version":                   {parse(rooted(1)), []string{": the version is 1, and was 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			before := d.Trust()
			found, err := pap.New(p.Conn, "pdp", before).CheckTrust(t.Context(), c.after)
			if err != nil {
				t.Fatal(err)
			}
			var problems []string
			for _, f := range append(pap.CompareTrust(before, c.after), found...) {
				if f.Problem {
					problems = append(problems, string(f.Namespace)+": "+f.Text)
				}
			}
			if len(problems) != len(c.problems) {
				t.Fatalf("got %q, want %q", problems, c.problems)
			}
			for i, want := range c.problems {
				if !strings.HasPrefix(problems[i], want) {
					t.Errorf("got %q, want %q", problems[i], want)
				}
			}
		})
	}
	odd := &between{ClientConnInterface: p.Conn, answer: func(_ string, answer any, err error) error {
		if m, ok := answer.(*microwallv1.ListNamespacesResponse); ok {
			m.Namespaces = []string{"shop.cart", "../etc"}
		}
		return err
	}}
	if _, err := pap.New(odd, "pdp", d.Trust()).CheckTrust(t.Context(), parse(rooted(2))); policy.KindOf(err) != policy.BadRequest {
		t.Errorf("a server that makes names up: %v", err)
	}
}
