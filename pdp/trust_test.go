package pdp_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// fleet is a domain with roots, two PDPs on one broker, and clients that follow
// both. Nobody's trust file on disk changes.
type fleet struct {
	*testkit.Domain
	t    *testing.T
	url  string
	pdps [2]*testkit.PDP
}

// twoRoots is a trust file that two of ann and bob must have signed.
func twoRoots(version uint64, change ...func(*testkit.TrustOptions)) testkit.TrustOptions {
	o := testkit.TrustOptions{Version: version, NoGuardrail: true, Roots: []string{"ann", "bob"}, RootThreshold: 2}
	for _, c := range change {
		c(&o)
	}
	return o
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{Domain: testkit.NewDomain(t), t: t}
	f.WriteTrust(twoRoots(1))
	f.url = f.ServeNATS(t.TempDir()).URL()
	for i := range f.pdps {
		f.pdps[i] = f.StartPDP(f.url, t.TempDir())
	}
	return f
}

// push pushes a trust file through one of the PDPs.
func (f *fleet) push(pdp int, note []byte) error {
	_, err := microwallv1.NewPolicyServiceClient(f.pdps[pdp].Conn).PushTrust(f.t.Context(), &microwallv1.PushTrustRequest{Trust: note})
	return err
}

func (f *fleet) mustPush(pdp int, note []byte) {
	f.t.Helper()
	if err := f.push(pdp, note); err != nil {
		f.t.Fatal(err)
	}
}

// client is an embedded client, and the versions of the trust file that were put
// in force in it.
type client struct {
	*embedded.Client
	versions chan uint64
	refused  chan error
}

func (f *fleet) client(dir string) *client {
	f.t.Helper()
	c := &client{versions: make(chan uint64, 100), refused: make(chan error, 100)}
	var err error
	c.Client, err = embedded.New(f.t.Context(), embedded.Config{
		NATS: f.url, TrustFile: f.TrustFile, Namespaces: []policy.Namespace{"shop.cart"}, Dir: dir,
		OnRelease: func(e live.Event) {
			switch e := e.(type) {
			case live.TrustChanged:
				c.versions <- e.Version
			case live.Refused:
				c.refused <- e.Err
			}
		},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(c.Close)
	return c
}

// reaches waits until a version is in force.
func (c *client) reaches(t *testing.T, version uint64) {
	t.Helper()
	for c.Status().TrustVersion < version {
		select {
		case <-c.versions:
		case <-time.After(20 * time.Second):
			t.Fatalf("the client is at version %d of the trust file, want %d", c.Status().TrustVersion, version)
		}
	}
}

func (c *client) asked(t *testing.T) string {
	t.Helper()
	d, err := c.Authorize(t.Context(), testkit.Request("shop.cart", "Add"))
	switch {
	case err != nil:
		return policy.KindOf(err).String()
	case d.Allowed:
		return "allow"
	}
	return "deny"
}

// Beacons of whoever put a trust file into place by hand must say that it was
// pushed, whoever pushed it, and whichever came first.
func TestAPDPLearnsThatItsTrustFileWasPushedThroughAnother(t *testing.T) {
	f := newFleet(t)
	note := f.SignTrust(twoRoots(2), "ann", "bob")
	byHand, err := bundles.ParseTrust(f.TrustText(twoRoots(2)))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.pdps[1].Live.SetTrust(byHand); err != nil {
		t.Fatal(err)
	}
	f.mustPush(0, note)
	look, late := time.Tick(time.Millisecond), time.After(patience)
	for f.pdps[1].Live.PushedTrust() != 2 {
		select {
		case <-look:
		case <-late:
			t.Fatalf("it still says that version %d was pushed", f.pdps[1].Live.PushedTrust())
		}
	}
}

func TestAKeyThatAPushedTrustFileTakesOutStopsDecidingEverywhereWithinASecond(t *testing.T) {
	f := newFleet(t)
	f.Push(f.pdps[0], "cart", "shop.cart", allowsAdd)
	var clients []*client
	for range 3 {
		clients = append(clients, f.client(t.TempDir()))
	}
	for i, c := range clients {
		if got := c.asked(t); got != "allow" {
			t.Fatalf("client %d: %s", i, got)
		}
	}
	note := f.SignTrust(twoRoots(2, func(o *testkit.TrustOptions) { o.Without = []string{"cart"} }), "ann", "bob")
	start := time.Now()
	f.mustPush(0, note)
	if got := ask(t, f.pdps[0].Service, "shop.cart", "Add"); got == "allow" {
		t.Error("the PDP that took it still decides by the key that was taken out")
	}
	for i, c := range clients {
		c.reaches(t, 2)
		if got := c.asked(t); got != "unavailable" {
			t.Errorf("client %d: %s", i, got)
		}
	}
	// The other PDP is asked in a round of its own: it may get there at any time.
	for ask(t, f.pdps[1].Service, "shop.cart", "Add") == "allow" {
		if time.Since(start) > 20*time.Second {
			t.Fatal("the other PDP still decides by the key that was taken out")
		}
	}
	took := time.Since(start)
	t.Logf("everywhere after %s", took)
	if took > time.Second {
		t.Errorf("it took %s, want under a second", took)
	}

	// Put back, its release decides again, without a push and without a restart.
	f.mustPush(1, f.SignTrust(twoRoots(3), "ann", "bob"))
	for i, c := range clients {
		c.reaches(t, 3)
		for start := time.Now(); c.asked(t) != "allow"; {
			if time.Since(start) > 20*time.Second {
				t.Fatalf("client %d: %s", i, c.asked(t))
			}
		}
	}
}

func TestTrustFilesThatAreNotBelieved(t *testing.T) {
	f := newFleet(t)
	f.Push(f.pdps[0], "cart", "shop.cart", allowsAdd)
	c := f.client(t.TempDir())
	two := f.SignTrust(twoRoots(2), "ann", "bob")
	f.mustPush(0, two)
	c.reaches(t, 2)
	withoutPay := func(o *testkit.TrustOptions) { o.Without = []string{"pay"} }
	otherRoots := func(names ...string) func(*testkit.TrustOptions) {
		return func(o *testkit.TrustOptions) { o.Roots = names }
	}
	for _, x := range []struct {
		attack string
		note   []byte
		code   string
		says   string
	}{
		{"one stolen root of two", f.SignTrust(twoRoots(3, withoutPay), "ann"), "PermissionDenied", "1 key of the roots that the one before lists has signed it (ann), 2 must; still may: bob"},
		{"one stolen root of two, and a stranger", f.SignTrust(twoRoots(3, withoutPay), "ann", "stranger"), "PermissionDenied", "2 must"},
		{"one stolen root makes itself the only one", f.SignTrust(testkit.TrustOptions{Version: 3, Roots: []string{"ann"}}, "ann"), "PermissionDenied", "2 must"},
		{"an author signs", f.SignTrust(twoRoots(3), "cart", "center"), "PermissionDenied", "2 must"},
		{"the old roots without the new", f.SignTrust(twoRoots(3, otherRoots("bob", "cay")), "ann", "bob"), "PermissionDenied", "the roots that it lists has signed it (bob), 2 must; still may: cay"},
		{"the new roots without the old", f.SignTrust(twoRoots(3, otherRoots("bob", "cay")), "bob", "cay"), "PermissionDenied", "the one before"},
		{"a fork: the same version, another content", f.SignTrust(twoRoots(2, withoutPay), "ann", "bob"), "Aborted", "after version 2 comes 3"},
		{"going back", f.SignTrust(twoRoots(1, withoutPay), "ann", "bob"), "Aborted", "after version 2 comes 3"},
		{"leaving one out", f.SignTrust(twoRoots(4), "ann", "bob"), "Aborted", "after version 2 comes 3"},
		{"no roots any more", f.SignTrust(testkit.TrustOptions{Version: 3}, "ann", "bob"), "PermissionDenied", "lists no roots"},
		{"nothing", nil, "InvalidArgument", "carries it"},
		{"a release", mustForge(f, "cart"), "InvalidArgument", "does not begin with"},
		{"garbage", []byte("trust me\n"), "InvalidArgument", "not a signed trust file"},
	} {
		for i := range f.pdps {
			err := f.push(i, x.note)
			if err == nil || !strings.Contains(err.Error(), "code = "+x.code) || !strings.Contains(err.Error(), x.says) {
				t.Errorf("%s, PDP %d: %v", x.attack, i, err)
			}
		}
	}
	// Who gets at the broker itself gets no further: the clients refuse it, and
	// stay as they are.
	for _, note := range [][]byte{
		f.SignTrust(twoRoots(3, withoutPay), "ann"),
		[]byte("garbage"),
	} {
		f := newFleet(t)
		f.Push(f.pdps[0], "cart", "shop.cart", allowsAdd)
		c := f.client(t.TempDir())
		store := f.pdps[0].Store
		if _, err := store.PutTrust(t.Context(), 2, note); err != nil {
			t.Fatal(err)
		}
		if err := store.AnnounceTrust(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-c.refused:
			if !strings.Contains(err.Error(), "trust file that was sent") {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the client has not even looked at it")
		}
		if got := c.asked(t); got != "allow" || c.Status().TrustVersion != 1 {
			t.Errorf("%s by version %d of the trust file", got, c.Status().TrustVersion)
		}
		if err := f.push(0, f.SignTrust(twoRoots(2), "ann", "bob")); err == nil || !strings.Contains(err.Error(), "nats stream purge BLOBS --subject pdp.blob.shop.-trust.2") {
			t.Errorf("whoever pushes is not told: %v", err)
		}
	}
	if got := c.asked(t); got != "allow" || c.Status().TrustVersion != 2 {
		t.Errorf("%s by version %d of the trust file", got, c.Status().TrustVersion)
	}
	for i, p := range f.pdps {
		if v := p.Live.Trust().Version(); v != 2 {
			t.Errorf("PDP %d is at version %d", i, v)
		}
	}
	// An answer that was lost: the same once more, at either.
	f.mustPush(0, two)
	f.mustPush(1, two)
}

func mustForge(f *fleet, key string) []byte {
	note, _ := f.Forge(key, "shop.cart", nil, f.Rego(allowsAdd))
	return note
}

func TestOfTwoTrustFilesOfOneVersionOneWins(t *testing.T) {
	f := newFleet(t)
	notes := [][]byte{
		f.SignTrust(twoRoots(2), "ann", "bob"),
		f.SignTrust(twoRoots(2, func(o *testkit.TrustOptions) { o.Without = []string{"pay"} }), "ann", "bob"),
	}
	errs := make(chan error, 2)
	for i, note := range notes {
		go func() { errs <- f.push(i, note) }()
	}
	one, two := <-errs, <-errs
	if (one == nil) == (two == nil) {
		t.Fatalf("both the same: %v, %v", one, two)
	}
	if err := errors.Join(one, two); !strings.Contains(err.Error(), "code = Aborted") {
		t.Error(err)
	}
	stored, err := f.pdps[0].Store.Trust(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	file, err := bundles.TrustFile(stored)
	if err != nil {
		t.Fatal(err)
	}
	c := f.client("")
	c.reaches(t, 2)
	f.mustPush(0, stored)
	f.mustPush(1, stored)
	for i, p := range f.pdps {
		if p.Live.Trust().Digest() != policy.DigestOf(file) {
			t.Errorf("PDP %d has another file in force than the one that is stored", i)
		}
	}
}

// Whoever was away for long finds the roots that it knows gone, and follows
// nevertheless: version by version.
func TestWhoeverWasAwayFollowsVersionByVersion(t *testing.T) {
	f := newFleet(t)
	f.Push(f.pdps[0], "cart", "shop.cart", allowsAdd)
	dir := t.TempDir()
	f.mustPush(0, f.SignTrust(twoRoots(2, func(o *testkit.TrustOptions) { o.Roots = []string{"bob", "cay"} }), "ann", "bob", "cay"))
	f.mustPush(1, f.SignTrust(twoRoots(3, func(o *testkit.TrustOptions) { o.Roots = []string{"cay", "pay"} }), "bob", "cay", "pay"))
	f.mustPush(0, f.SignTrust(twoRoots(4, func(o *testkit.TrustOptions) { o.Roots, o.RootThreshold = []string{"pay"}, 1 }), "cay", "pay"))
	c := f.client(dir)
	c.reaches(t, 4)
	if got := c.asked(t); got != "allow" {
		t.Errorf("got %s", got)
	}
	c.Close()

	// After a restart without a broker it is where it was, by what is on disk.
	away := func() (*embedded.Client, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		return embedded.New(ctx, embedded.Config{NATS: "nats://127.0.0.1:1", TrustFile: f.TrustFile, Namespaces: []policy.Namespace{"shop.cart"}, Dir: dir})
	}
	again, err := away()
	if err != nil {
		t.Fatal(err)
	}
	if v := again.Status().TrustVersion; v != 4 {
		t.Errorf("restarted at version %d", v)
	}
	again.Close()

	// What is on disk is verified again: it leads nowhere where it was changed,
	// and nobody goes back by that.
	path := filepath.Join(dir, "trust.3.note")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, changed := range map[string]string{
		"changed":                  strings.Replace(string(content), "version: 3", "version: 03", 1),
		"emptied":                  "",
		"signed by one root alone": string(f.SignTrust(twoRoots(3), "bob")),
	} {
		if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := away(); policy.KindOf(err) != policy.Denied || !strings.Contains(err.Error(), "version 4 was in force here") || !strings.Contains(err.Error(), "trust.3.note") {
			t.Errorf("%s: %v", name, err)
			if c != nil {
				c.Close()
			}
		}
	}
	// The newest file, put into place by hand, leads out of it.
	f.WriteTrust(twoRoots(4, func(o *testkit.TrustOptions) { o.Roots, o.RootThreshold = []string{"pay"}, 1 }))
	again, err = away()
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// Operators change the server's own file and push it then: the server has it in
// force already, the clients have not.
func TestATrustFileThatWasPutIntoPlaceByHandIsPushedToo(t *testing.T) {
	f := newFleet(t)
	c := f.client("")
	f.mustPush(0, f.SignTrust(twoRoots(2), "ann", "bob"))
	c.reaches(t, 2)
	three := twoRoots(3, func(o *testkit.TrustOptions) { o.Roots = []string{"bob", "cay"} })
	byHand, err := bundles.ParseTrust(f.TrustText(three))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.pdps[0].Live.SetTrust(byHand); err != nil {
		t.Fatal(err)
	}
	// Those who cannot follow it are not left behind by a mistake.
	if err := f.push(0, f.SignTrust(three, "bob", "cay")); err == nil || !strings.Contains(err.Error(), "the roots that the one before lists has signed it (bob), 2 must") {
		t.Errorf("without those that clients know: %v", err)
	}
	if err := f.push(0, f.SignTrust(three, "ann", "bob")); err == nil || !strings.Contains(err.Error(), "still may: cay") {
		t.Errorf("without its own: %v", err)
	}
	f.mustPush(0, f.SignTrust(three, "ann", "bob", "cay"))
	c.reaches(t, 3)
	f.mustPush(1, f.SignTrust(three, "ann", "bob", "cay"))
	if v := f.pdps[1].Live.Trust().Version(); v != 3 {
		t.Errorf("the other PDP is at version %d", v)
	}
}

func TestAnybodyMayReadTheTrustFileAndFollowIt(t *testing.T) {
	f := newFleet(t)
	policies := microwallv1.NewPolicyServiceClient(f.pdps[1].Conn)
	if none, err := policies.GetTrust(t.Context(), &microwallv1.GetTrustRequest{}); err != nil || none.GetTrust() != nil || none.GetInForce() != 1 {
		t.Errorf("before one was pushed: %v, %v", none, err)
	}
	if _, err := policies.GetTrust(t.Context(), &microwallv1.GetTrustRequest{Version: 2}); err == nil || !strings.Contains(err.Error(), "code = NotFound") {
		t.Errorf("before it was pushed: %v", err)
	}
	for v := uint64(2); v < 5; v++ {
		f.mustPush(int(v%2), f.SignTrust(twoRoots(v), "ann", "bob"))
	}
	trust := f.Trust()
	for v := uint64(2); v < 5; v++ {
		answer, err := policies.GetTrust(t.Context(), &microwallv1.GetTrustRequest{Version: v})
		if err != nil {
			t.Fatal(err)
		}
		if trust, err = trust.Next(answer.GetTrust()); err != nil {
			t.Fatal(err)
		}
	}
	newest, err := policies.GetTrust(t.Context(), &microwallv1.GetTrustRequest{})
	if err != nil || trust.Confirm(newest.GetTrust()) != nil || newest.GetInForce() != 4 {
		t.Errorf("the newest: %v", err)
	}
	f.Push(f.pdps[0], "cart", "shop.cart", allowsAdd)
	all, err := policies.ListNamespaces(t.Context(), &microwallv1.ListNamespacesRequest{})
	if got := fmt.Sprint(all.GetNamespaces()); err != nil || got != "[shop.cart]" {
		t.Errorf("namespaces %s, %v", got, err)
	}
}

// Beacons say which trust file was pushed, so that nobody can be kept from one
// and look fresh nevertheless.
func TestBeaconsSayWhichTrustFileWasPushed(t *testing.T) {
	f := newFleet(t)
	beating := func(o *testkit.TrustOptions) { o.Beacons = []string{"beat"} }
	f.mustPush(0, f.SignTrust(twoRoots(2, beating), "ann", "bob"))
	f.Push(f.pdps[0], "cart", "shop.cart", allowsAdd)
	heard, err := f.pdps[1].NATSConn.SubscribeSync("pdp.beat.shop.shop_cart")
	if err != nil {
		t.Fatal(err)
	}
	i := startIssuer(t, f.Domain, f.pdps[0], "beat", "one")
	// said waits for a beacon that says a version.
	said := func(version uint64) []byte {
		t.Helper()
		for begun := time.Now(); time.Since(begun) < patience; i.round() {
			for {
				m, err := heard.NextMsg(100 * time.Millisecond)
				if err != nil {
					break // the next round brings one
				}
				b, err := f.pdps[0].Live.Trust().OpenBeacon(m.Data)
				if err != nil {
					t.Fatal(err)
				}
				if b.Trust() == version {
					return m.Data
				}
			}
		}
		t.Fatalf("no beacon says that version %d was pushed", version)
		return nil
	}
	said(2)
	f.mustPush(1, f.SignTrust(twoRoots(3, beating), "ann", "bob"))
	three := said(3)

	// Somebody who is kept from version 3 is proven nothing by it.
	two, err := bundles.ParseTrust(f.TrustText(twoRoots(2, beating)))
	if err != nil {
		t.Fatal(err)
	}
	kept, err := live.New(t.Context(), live.Config{Trust: two})
	if err != nil {
		t.Fatal(err)
	}
	if err := kept.Prove(three); policy.KindOf(err) != policy.Unavailable || !strings.Contains(err.Error(), "version 3 of the trust file was pushed") {
		t.Errorf("got %v", err)
	}
}
