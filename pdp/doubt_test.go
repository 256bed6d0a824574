package pdp_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/policy"
)

func TestAForgedHeadNeverGetsIntoABeacon(t *testing.T) {
	d := testkit.NewDomain(t)
	first := d.Release("cart", "shop.cart", nil, d.Rego(allowsAdd))
	good := d.Release("cart", "shop.cart", first.Signed, d.Rego(allowsAdd+" "))
	evil := d.Rego("allow := true")
	forge := func(key string, n policy.Namespace, previous *bundles.Signed, change ...func(*bundles.Release)) []byte {
		note, _ := d.Forge(key, n, previous, evil, change...)
		return note
	}
	for name, test := range map[string]struct {
		forged []byte
		// doubt is true if by its own word it comes after the one before: it may
		// be that it only does not open here.
		doubt bool
	}{
		"nothing":                   {[]byte{}, false}, // this does not reach it
		"no note":                   {[]byte("evil"), true},
		"not whole":                 {good.Note()[:len(good.Note())-5], true},
		"a stranger's":              {forge("stranger", "shop.cart", good.Signed), true},
		"a stranger's fork":         {forge("stranger", "shop.cart", first.Signed), false},
		"another team's":            {forge("pay", "shop.cart", good.Signed), true},
		"of another namespace":      {forge("pay", "shop.pay", nil), false},
		"a stranger's of another":   {forge("stranger", "shop.pay", good.Signed), false},
		"a replay":                  {first.Note(), false},
		"a replay by another key":   {forge("pay", "shop.cart", nil), false},
		"a fork":                    {forge("cart", "shop.cart", first.Signed), false},
		"a fork of what is before":  {forge("cart", "shop.cart", good.Signed, func(r *bundles.Release) { r.Previous = policy.Digest{1} }), false},
		"of an epoch to come":       {forge("cart", "shop.cart", good.Signed, func(r *bundles.Release) { r.Epoch = 9 }), true},
		"of the last epoch of all":  {forge("stranger", "shop.cart", good.Signed, func(r *bundles.Release) { r.Epoch = 1<<63 - 1 }), true},
		"of the last release of it": {forge("stranger", "shop.cart", good.Signed, func(r *bundles.Release) { r.Revision = 1<<63 - 1 }), true},
	} {
		t.Run(name, func(t *testing.T) {
			d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}})
			p := d.StartPDP(testkit.NATS(t, t.TempDir()).URL(), t.TempDir())
			after := uint64(0)
			for _, r := range []testkit.Release{first, good} {
				var err error
				if after, err = p.Store.Put(t.Context(), "shop.cart", r.Note(), r.Packed, after); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Live.Offer(t.Context(), good.Note(), func(context.Context) ([]byte, error) { return good.Packed, nil }); err != nil {
				t.Fatal(err)
			}
			pay := d.Push(p, "pay", "shop.pay", allowsAdd).Release
			i := startIssuer(t, d, p, "beat", "one")
			wantBeacon(t, d, p.NATSConn, "shop_cart", good.Version(), time.Time{})
			if _, err := p.NATSConn.Request("$KV.policy.shop.shop_cart.head", test.forged, patience); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			i.round()
			if name != "nothing" {
				wantIssuer[pdp.HeadDoubted](i)
			}
			wantBeacon(t, d, p.NATSConn, "shop_pay", pay.Version(), begun) // of others nothing changes
			if test.doubt {
				wantDoubt(t, i, "shop.cart", begun)
			} else {
				wantBeacon(t, d, p.NATSConn, "shop_cart", good.Version(), begun)
			}
			i.stop()
			// Who comes later has seen nothing but the forged one, and says nothing.
			begun = time.Now()
			later := startIssuer(t, d, p, "beat", "two")
			later.round()
			wantIssuer[pdp.Issued](later)
			b := newest(t, d, p.NATSConn, "shop_cart")
			// The team's own key has signed another third release: who has not
			// seen the second one cannot know better. Those who hold it do.
			if head := b.Heads()[0]; head != good.Version() && name != "a fork of what is before" || head == good.Version() && b.Time().After(begun) {
				t.Errorf("a beacon of %v names %v", b.Time(), head)
			}
		})
	}
}

// wantDoubt fails if an issuer has said anything of a namespace since then, or
// confirms its head.
func wantDoubt(t *testing.T, i *issuing, ns policy.Namespace, since time.Time) {
	t.Helper()
	if b := newest(t, i.d, i.p.NATSConn, strings.ReplaceAll(string(ns), ".", "_")); b != nil && b.Time().After(since) {
		t.Errorf("a beacon of %v names %v", b.Time(), b.Heads())
	}
	if note, err := i.Confirm(t.Context(), ns); policy.KindOf(err) != policy.Unavailable || !strings.Contains(err.Error(), "put the newest trust file into place") {
		t.Errorf("confirmed: %s, %v", note, err)
	}
}

// A trust file is rolled out by hand: one PDP has it, the other, which issues, not
// yet. What the author is told is the head by the one, does not open by the other.
func TestAnOlderTrustFileDoesNotConfirmAnOlderHead(t *testing.T) {
	d, old, url := startBeacons(t)
	first := d.Push(old, "cart", "shop.cart", "allow := true").Release
	i := startIssuer(t, d, old, "beat", "one")
	renewed := d.StartPDP(url, t.TempDir())
	d.WriteTrust(testkit.TrustOptions{Version: 2, Beacons: []string{"beat", "beat2"}, CartSigners: []string{"cart", "pay"}})
	if err := renewed.Live.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	second := d.Push(renewed, "pay", "shop.cart", "allow := false").Release
	i.round()
	wantDoubt(t, i, "shop.cart", begun)
	if e := wantIssuer[pdp.HeadDoubted](i); e.Namespace != "shop.cart" || !strings.Contains(e.Err.Error(), "revision 2 of epoch 1") {
		t.Errorf("%+v", e)
	}
	// Somebody stores the first one on top of it.
	if _, err := old.NATSConn.Request("$KV.policy.shop.shop_cart.head", first.Note(), patience); err != nil {
		t.Fatal(err)
	}
	i.round()
	wantDoubt(t, i, "shop.cart", begun)
	// Whoever asks, is answered by the one who knows.
	wantConfirmed := func(want policy.Version) {
		t.Helper()
		for range 10 {
			note, err := jetstream.Confirm(t.Context(), renewed.NATSConn, jetstream.PDP, "shop", "shop.cart")
			if err != nil {
				t.Fatal(err)
			}
			b, err := d.Trust().OpenBeacon(note)
			if err != nil {
				t.Fatal(err)
			}
			if head, _ := b.Head("shop.cart"); head != want {
				t.Errorf("%v is confirmed, %v is the head", head, want)
			}
		}
	}
	if _, err := renewed.NATSConn.Request("$KV.policy.shop.shop_cart.head", second.Note(), patience); err != nil {
		t.Fatal(err)
	}
	startIssuer(t, d, renewed, "beat2", "two")
	wantConfirmed(second.Version())
	// The doubt ends with the trust file.
	if err := old.Live.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	i.round()
	wantBeacon(t, d, old.NATSConn, "shop_cart", second.Version(), begun)
	wantConfirmed(second.Version())
}

// A process that starts with the older trust file has nothing before the head
// that it could name.
func TestAPDPThatStartsWithAnOlderTrustFileSaysThatItCannotConfirm(t *testing.T) {
	d, p, url := startBeacons(t)
	d.Push(p, "cart", "shop.cart", "allow := true")
	old := d.StartPDP(url, t.TempDir())
	d.WriteTrust(testkit.TrustOptions{Version: 2, Beacons: []string{"beat", "beat2"}, CartSigners: []string{"cart", "pay"}})
	if err := p.Live.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	d.Push(p, "pay", "shop.cart", "allow := false")
	begun := time.Now()
	i := startIssuer(t, d, old, "beat", "one")
	wantDoubt(t, i, "shop.cart", begun)
	// A key that both list takes the place: that ends the doubt, too.
	third := d.Push(p, "cart", "shop.cart", "allow := false ").Release
	i.round()
	wantBeacon(t, d, old.NATSConn, "shop_cart", third.Version(), begun)
}

// A head that was made up keeps nobody blind: the way out that the error names is
// one.
func TestTheDoubtAboutAForgedHeadEndsWithTheNextEpoch(t *testing.T) {
	d, p, _ := startBeacons(t)
	first := d.Push(p, "cart", "shop.cart", allowsAdd).Release
	i := startIssuer(t, d, p, "beat", "one")
	forged, _ := d.Forge("stranger", "shop.cart", first, d.Rego("allow := true"), func(r *bundles.Release) { r.Revision = 1<<63 - 1 })
	if _, err := p.NATSConn.Request("$KV.policy.shop.shop_cart.head", forged, patience); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	i.round()
	wantDoubt(t, i, "shop.cart", begun)
	d.WriteTrust(testkit.TrustOptions{Version: 2, Epoch: 2, Beacons: []string{"beat", "beat2"}})
	if err := p.Live.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	again := d.Push(p, "cart", "shop.cart", allowsAdd).Release
	i.round()
	wantBeacon(t, d, p.NATSConn, "shop_cart", again.Version(), begun)
	if _, err := i.Confirm(t.Context(), "shop.cart"); err != nil {
		t.Error(err)
	}
}

// A PDP that never held the newest release has heard of it from the one that
// issued, and does not believe the store when that has lost it.
func TestTheStoreIsNotBelievedIfItHasLostWhatAnotherIssuerNamed(t *testing.T) {
	d, p, url := startBeacons(t)
	first := d.Push(p, "cart", "shop.cart", allowsAdd).Release
	standby, err := live.New(t.Context(), live.Config{Trust: d.Trust()})
	if err != nil {
		t.Fatal(err)
	}
	if err := standby.Offer(t.Context(), first.Note(), func(context.Context) ([]byte, error) { return bundles.Pack(d.Rego(allowsAdd).Tar()), nil }); err != nil {
		t.Fatal(err)
	}
	second := d.Push(p, "cart", "shop.cart", allowsAdd+" ").Release
	one := startIssuer(t, d, p, "beat", "one")
	if err := standby.Prove(newest(t, d, p.NATSConn, "shop_cart").Note()); policy.KindOf(err) != policy.Unavailable {
		t.Fatal(err)
	}
	one.stop()
	if _, err := p.NATSConn.Request("$JS.API.STREAM.DELETE.KV_policy", nil, patience); err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	store, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: nc, Domain: "shop", MaxBytes: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Put(t.Context(), "shop.cart", first.Note(), bundles.Pack(d.Rego(allowsAdd).Tar()), 0); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	two := startIssuer(t, d, &testkit.PDP{Live: standby, Store: store, NATSConn: nc}, "beat2", "two")
	if e := wantIssuer[pdp.HeadDoubted](two); e.Namespace != "shop.cart" || !strings.Contains(e.Err.Error(), "older than revision 2") {
		t.Errorf("%+v", e)
	}
	if b := newest(t, d, nc, "shop_cart"); b.Time().After(begun) || b.Heads()[0] != second.Version() {
		t.Errorf("a beacon of %v names %v", b.Time(), b.Heads())
	}
	if _, err := two.Confirm(t.Context(), "shop.cart"); policy.KindOf(err) != policy.Unavailable {
		t.Errorf("confirmed: %v", err)
	}
}

// A thief of a PDP's NATS credentials, or an old copy of the store, puts an older
// release back, removes the beacons, and says that the issuer has gone. A PDP whose
// disk is empty takes over.
func TestAPDPWithAnEmptyDiskDoesNotProveAnOlderRelease(t *testing.T) {
	for name, confirmFirst := range map[string]bool{"when it takes over": false, "when it is asked and stands by": true} {
		t.Run(name, func(t *testing.T) {
			d, p, url := startBeacons(t)
			first := d.Push(p, "cart", "shop.cart", allowsAdd).Release
			second := d.Push(p, "cart", "shop.cart", allowsAdd+" ").Release
			one := startIssuer(t, d, p, "beat", "one")
			for begun := time.Now(); p.Live.Beacon("shop.cart") == nil; one.round() {
				if time.Since(begun) > patience {
					t.Fatal("the PDP does not hear the beacons")
				}
			}
			thief, err := nats.Connect(url)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(thief.Close)
			for _, s := range []string{"KV_policy", "BEAT"} {
				if _, err := thief.Request("$JS.API.STREAM.DELETE."+s, nil, patience); err != nil {
					t.Fatal(err)
				}
			}
			store, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: thief, Domain: "shop", MaxBytes: 256 << 20})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := store.Put(t.Context(), "shop.cart", first.Note(), bundles.Pack(d.Rego(allowsAdd).Tar()), 0); err != nil {
				t.Fatal(err)
			}
			if e := roundsUntil[pdp.HeadDoubted](one); !strings.Contains(e.Err.Error(), "older than revision 2") {
				t.Errorf("%+v", e)
			}
			for begun := time.Now(); newest(t, d, thief, "shop_cart") == nil; one.round() { // the thief is quicker only before that
				if time.Since(begun) > patience {
					t.Fatal("the beacon that was removed is not stored again")
				}
			}
			if !confirmFirst {
				if _, err := thief.Request("$KV.policy.shop.-tick.head", []byte(`{"issuer":"","nonce":"x"}`), patience); err != nil {
					t.Fatal(err)
				}
			}
			empty, err := live.New(t.Context(), live.Config{Trust: d.Trust()})
			if err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			two := startIssuer(t, d, &testkit.PDP{Live: empty, Store: store, NATSConn: thief}, "beat2", "two")
			if note, err := two.Confirm(t.Context(), "shop.cart"); policy.KindOf(err) != policy.Unavailable || !strings.Contains(err.Error(), "older than revision 2") {
				t.Errorf("confirmed: %s, %v", note, err)
			}
			if confirmFirst {
				wantIssuer[pdp.StandingBy](two)
			} else {
				wantIssuer[pdp.Issued](two)
			}
			if b := newest(t, d, thief, "shop_cart"); b == nil || b.Time().After(begun) || b.Heads()[0] != second.Version() {
				t.Errorf("the newest beacon: %+v", b)
			}
		})
	}
}

func TestTheStoreIsNotBelievedIfItHasLostWhatIsHeld(t *testing.T) {
	d, p, url := startBeacons(t)
	one := d.Push(p, "cart", "shop.cart", allowsAdd).Release
	d.Push(p, "cart", "shop.cart", allowsAdd+" ")
	i := startIssuer(t, d, p, "beat", "one")
	wantIssuer[pdp.Issued](i)
	before := newest(t, d, p.NATSConn, "shop_cart")
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Request("$JS.API.STREAM.DELETE.KV_policy", nil, patience); err != nil {
		t.Fatal(err)
	}
	i.stop()
	// Somebody has an old copy of it.
	store, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: nc, Domain: "shop", MaxBytes: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Put(t.Context(), "shop.cart", one.Note(), bundles.Pack(d.Rego(allowsAdd).Tar()), 0); err != nil {
		t.Fatal(err)
	}
	again := startIssuer(t, d, p, "beat", "one")
	if e := wantIssuer[pdp.HeadDoubted](again); e.Namespace != "shop.cart" || !strings.Contains(e.Err.Error(), "revision 2") {
		t.Errorf("%+v", e)
	}
	wantIssuer[pdp.Issued](again)
	if b := newest(t, d, p.NATSConn, "shop_cart"); !b.Time().Equal(before.Time()) {
		t.Errorf("a beacon of %v names %v; before, one of %v named %v", b.Time(), b.Heads(), before.Time(), before.Heads())
	}
}
