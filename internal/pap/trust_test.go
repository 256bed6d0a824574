package pap_test

import (
	"regexp"
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
	for inForce, want := range map[uint64]string{0: "", 1: "", 2: "note: version 2 is in force on pdp, as it says, and this was compared with version 1", 3: "", 4: "problem: version 4 is in force on pdp, as it says, and this is version 3: no process takes the file"} {
		ahead := &between{ClientConnInterface: p.Conn, answer: func(_ string, answer any, err error) error {
			if m, ok := answer.(*microwallv1.GetTrustResponse); ok {
				m.InForce = inForce
			}
			return err
		}}
		found, err := pap.New(ahead, "pdp", d.Trust()).CheckTrust(t.Context(), parse(rooted(3)))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, f := range found {
			if got = "note: " + f.Text; f.Problem {
				got = "problem: " + f.Text
			}
		}
		if !strings.HasPrefix(got, want) || (got == "") != (want == "") {
			t.Errorf("version %d in force: %q, want %q", inForce, got, want)
		}
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

// A gate in CI lets nothing pass that guards less, and does not end on what is
// done every day.
func TestWhateverGuardsLessIsAProblem(t *testing.T) {
	d := testkit.NewDomain(t)
	public := func(name string) string {
		return string(regexp.MustCompile(`(?m)^  ` + name + `: .*$`).Find(d.TrustText(testkit.TrustOptions{Roots: []string{name}})))
	}
	var lines []string
	for _, name := range []string{"ann", "bob", "cay", "center", "cart", "pay", "beat"} {
		lines = append(lines, public(name))
	}
	base := `domain: shop
version: 1
epoch: 2
keys:
` + strings.Join(lines, "\n") + `
namespaces:
  shop: {signers: [center, ann, bob], threshold: 2, guardrail: true, max-staleness: 10m}
  shop.cart: {signers: [cart]}
  shop.pay: {signers: [pay, ann], threshold: 2, when-stale: deny, max-staleness: 15s}
beacons: [beat]
roots: {keys: [ann, bob], threshold: 2}
`
	before, err := bundles.ParseTrust([]byte(base))
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := bundles.GenerateKey("cart")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change   []string // old and new, in turn
		problems []string // how they begin, in order
		note     string   // that must be there
	}{
		"nothing":                         {nil, nil, "to be pushed it must be signed by 2 of the roots"},
		"max-staleness is longer":         {[]string{"max-staleness: 15s", "max-staleness: 10m"}, []string{"shop.pay: without proof it is believed for 10m0s, and was for 15s at most (max-staleness)"}, ""},
		"max-staleness is gone":           {[]string{", max-staleness: 15s", ""}, []string{"shop.pay: without proof it is believed for 10m0s, and was for 15s"}, ""},
		"gone above, and told once":       {[]string{", max-staleness: 10m", ""}, []string{"shop: it has no max-staleness any more"}, ""},
		"max-staleness is shorter":        {[]string{"max-staleness: 10m", "max-staleness: 1m"}, nil, "shop: without proof it is believed for 1m0s at most"},
		"when-stale: serve":               {[]string{"when-stale: deny", "when-stale: serve"}, []string{"shop.pay: it is not `when-stale: deny` any more"}, ""},
		"when-stale is gone":              {[]string{"when-stale: deny, ", ""}, []string{"shop.pay: it is not `when-stale: deny` any more"}, ""},
		"when-stale: deny":                {[]string{"[cart]", "[cart], when-stale: deny"}, nil, "shop.cart: it is `when-stale: deny` now"},
		"a threshold is lower":            {[]string{"[pay, ann], threshold: 2", "[pay, ann]"}, []string{"shop.pay: 1 key must sign it, and 2 had to"}, ""},
		"a threshold is higher":           {[]string{"bob], threshold: 2", "bob], threshold: 3"}, nil, "shop: 3 different keys must sign it, and 2 had to"},
		"not listed any more":             {[]string{"  shop.pay: {signers: [pay, ann], threshold: 2, when-stale: deny, max-staleness: 15s}\n", ""}, []string{"shop.pay: without proof ", "shop.pay: it is not `when-stale: deny` any more"}, "shop.pay: may sign it now: center, bob"},
		"a team of its own":               {[]string{"[cart]}", "[cart]}\n  shop.ad: {signers: [cart]}"}, []string{"shop.ad: 1 key must sign it, and 2 had to"}, "shop.ad: may sign it now: cart"},
		"nobody may sign":                 {[]string{"  shop: {signers: [center, ann, bob], threshold: 2, guardrail: true, max-staleness: 10m}\n", ""}, []string{"shop: it is no guardrail any more", "shop: nobody may sign it any more", "shop: it has no max-staleness any more"}, ""},
		"no guardrail":                    {[]string{", guardrail: true", ""}, []string{"shop: it is no guardrail any more"}, ""},
		"a signer more":                   {[]string{"[cart]", "[cart, pay]"}, nil, "shop.cart: may sign it now: pay"},
		"another signer":                  {[]string{"[cart]", "[pay]"}, nil, "shop.cart: may not sign it any more: cart"},
		"another key under the same name": {[]string{public("cart"), "  cart: " + other}, nil, "shop.cart: may sign it now: cart"},
		"no beacons":                      {[]string{"beacons: [beat]\n", ""}, []string{": no key signs beacons any more"}, ""},
		"another beacon key":              {[]string{"beacons: [beat]", "beacons: [cay]"}, []string{": no beacon key stays"}, ": may sign beacons now: cay"},
		"a beacon key more":               {[]string{"beacons: [beat]", "beacons: [beat, cay]"}, nil, ": may sign beacons now: cay"},
		"fewer roots must sign":           {[]string{"[ann, bob], threshold: 2}", "[ann, bob]}"}, []string{": 1 key must sign the next trust file, and 2 had to"}, ""},
		"a root more":                     {[]string{"[ann, bob], threshold: 2}", "[ann, bob, cay], threshold: 2}"}, nil, ": may sign the next trust file now: cay"},
		"no roots":                        {[]string{"roots: {keys: [ann, bob], threshold: 2}\n", ""}, []string{": it lists no roots any more"}, ": it cannot be pushed"},
		"a lower epoch":                   {[]string{"epoch: 2", "epoch: 1"}, []string{": the epoch is 1, and was 2"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(base, "version: 1", "version: 2", 1)
			for i := 0; i < len(c.change); i += 2 {
				if !strings.Contains(text, c.change[i]) {
					t.Fatalf("there is no %q", c.change[i])
				}
				text = strings.Replace(text, c.change[i], c.change[i+1], 1)
			}
			after, err := bundles.ParseTrust([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			var problems, notes []string
			for _, f := range pap.CompareTrust(before, after) {
				if line := string(f.Namespace) + ": " + f.Text; f.Problem {
					problems = append(problems, line)
				} else {
					notes = append(notes, line)
				}
			}
			if len(problems) != len(c.problems) {
				t.Fatalf("problems are %q, want %q", problems, c.problems)
			}
			for i, want := range c.problems {
				if !strings.HasPrefix(problems[i], want) {
					t.Errorf("problem is %q, want %q", problems[i], want)
				}
			}
			if got := strings.Join(notes, "\n"); !strings.Contains(got, c.note) {
				t.Errorf("notes are\n%s\nwant %q", got, c.note)
			}
		})
	}
}
