package live_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

func TestTrustOnlyGoesForward(t *testing.T) {
	d := testkit.NewDomain(t)
	dir := t.TempDir()
	one := d.Trust()
	d.WriteTrust(testkit.TrustOptions{Version: 2})
	two := d.Trust()
	s := newState(t, d, inDir(dir))
	if err := s.SetTrust(one); policy.KindOf(err) != policy.Denied {
		t.Errorf("a lower version while running: %v", err)
	}
	if _, err := live.New(t.Context(), live.Config{Trust: one, Dir: dir}); policy.KindOf(err) != policy.Denied || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("a lower version after a restart: %v", err)
	}
	d.WriteTrust(testkit.TrustOptions{Version: 2, NoGuardrail: true})
	if err := s.SetTrust(d.Trust()); policy.KindOf(err) != policy.Denied || !strings.Contains(err.Error(), "raise it") {
		t.Errorf("another file under the same version: %v", err)
	}
	if err := s.SetTrust(two); err != nil {
		t.Errorf("the same file again: %v", err)
	}
	d.WriteTrust(testkit.TrustOptions{Version: 3, Epoch: 2})
	if err := s.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	d.WriteTrust(testkit.TrustOptions{Version: 4, Epoch: 1})
	if err := s.SetTrust(d.Trust()); policy.KindOf(err) != policy.Denied || !strings.Contains(err.Error(), "epoch") {
		t.Errorf("a lower epoch: %v", err)
	}
}

func TestAKeyThatIsTakenOutOfTheTrustFileStopsDeciding(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{NoGuardrail: true})
	s := newState(t, d)
	s.Synced()
	s.offer(d.Release("cart", "shop.cart", nil, d.Rego(cartAllowsAdd)))
	s.offer(d.Release("pay", "shop.pay", nil, d.Rego(cartAllowsAdd)))
	d.WriteTrust(testkit.TrustOptions{Version: 2, NoGuardrail: true, Without: []string{"cart"}})
	if err := s.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	s.expect("shop.cart", "Add", "unavailable")
	s.expect("shop.pay", "Add", "allow")
	last, ok := s.events[len(s.events)-1].(live.TrustChanged)
	if !ok || !slices.Equal(last.Dropped, []policy.Namespace{"shop.cart"}) {
		t.Errorf("event: %#v", s.events[len(s.events)-1])
	}
}

func TestWhatComesBackAfterAKeyWasGoneIsNotOlder(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{NoGuardrail: true})
	s := newState(t, d)
	one := d.Release("cart", "shop.cart", nil, d.Rego(cartAllowsAdd))
	two := d.Release("cart", "shop.cart", one.Signed, d.Rego(cartAllowsNone))
	s.offer(one)
	s.offer(two)
	trust := func(version uint64, without ...string) {
		t.Helper()
		d.WriteTrust(testkit.TrustOptions{Version: version, NoGuardrail: true, Without: without})
		if err := s.SetTrust(d.Trust()); err != nil {
			t.Fatal(err)
		}
	}
	trust(2, "cart")
	s.expect("shop.cart", "Add", "unavailable")
	trust(3)
	if err := s.Offer(t.Context(), one.Note(), never(t)); policy.KindOf(err) != policy.Conflict {
		t.Errorf("the older release: %v", err)
	}
	s.expect("shop.cart", "Add", "unavailable")
	s.offer(two)
	s.expect("shop.cart", "Add", "deny")
}

func TestWhatComesBackAfterARestartWithoutItsKeyIsNotOlder(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{NoGuardrail: true})
	dir := t.TempDir()
	one := d.Release("cart", "shop.cart", nil, d.Rego(cartAllowsAdd))
	two := d.Release("cart", "shop.cart", one.Signed, d.Rego(cartAllowsNone))
	s := newState(t, d, inDir(dir))
	s.offer(one)
	s.offer(two)
	d.WriteTrust(testkit.TrustOptions{Version: 2, NoGuardrail: true, Without: []string{"cart"}})
	s = newState(t, d, inDir(dir)) // a restart, with the key taken out
	s.expect("shop.cart", "Add", "unavailable")
	d.WriteTrust(testkit.TrustOptions{Version: 3, NoGuardrail: true})
	if err := s.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	if err := s.Offer(t.Context(), one.Note(), never(t)); policy.KindOf(err) != policy.Conflict {
		t.Errorf("the older release: %v", err)
	}
	s.offer(two)
	s.expect("shop.cart", "Add", "deny")
}

func TestAGuardrailThatIsNotFollowedAnyMoreIsLoadedAnew(t *testing.T) {
	d := testkit.NewDomain(t)
	s := newState(t, d, func(c *live.Config) { c.Namespaces = []policy.Namespace{"shop.cart"} })
	s.offer(d.Release("center", "shop", nil, d.Rego(openGuardrail)))
	s.offer(d.Release("cart", "shop.cart", nil, d.Rego(cartAllowsAdd)))
	s.expect("shop.cart", "Add", "allow")
	s.expect("shop", "Add", "bad request") // it binds here, and is not asked here
	trust := func(version uint64, guardrail bool) {
		t.Helper()
		d.WriteTrust(testkit.TrustOptions{Version: version, NoGuardrail: !guardrail})
		if err := s.SetTrust(d.Trust()); err != nil {
			t.Fatal(err)
		}
	}
	trust(2, false)
	s.expect("shop.cart", "Forbidden", "allow")
	trust(3, true)
	s.expect("shop.cart", "Add", "unavailable") // it may have changed meanwhile
	s.offer(d.Release("center", "shop", nil, d.Rego(openGuardrail)))
	s.expect("shop.cart", "Forbidden", "deny [shop: never]")
}

// What was compiled as a guardrail and is none any more when it is to be activated
// is not kept up to date from then on.
func TestAGuardrailThatIsNoneAnyMoreIsNotActivated(t *testing.T) {
	d := testkit.NewDomain(t)
	s := newState(t, d, func(c *live.Config) { c.Namespaces = []policy.Namespace{"shop.cart"} })
	s.offer(d.Release("cart", "shop.cart", nil, d.Rego(cartAllowsAdd)))
	shop := d.Release("center", "shop", nil, d.Rego(openGuardrail))
	c, err := s.Prepare(t.Context(), shop.Note(), packed(shop.Packed))
	if err != nil {
		t.Fatal(err)
	}
	for version := uint64(2); version < 4; version++ {
		d.WriteTrust(testkit.TrustOptions{Version: version, NoGuardrail: version == 2})
		if err := s.SetTrust(d.Trust()); err != nil {
			t.Fatal(err)
		}
		if version == 2 {
			if err := s.Activate(c); policy.KindOf(err) != policy.BadRequest {
				t.Errorf("got %v", err)
			}
		}
	}
	s.expect("shop.cart", "Add", "unavailable") // it may have changed meanwhile
}

func TestAFullDiskDoesNotKeepAStolenKeyInForce(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{NoGuardrail: true})
	dir := t.TempDir()
	s := newState(t, d, inDir(dir))
	s.offer(d.Release("cart", "shop.cart", nil, d.Rego(cartAllowsAdd)))
	file := filepath.Join(dir, "trust.json") // as in the test of a full disk
	if err := errors.Join(os.Remove(file), os.MkdirAll(filepath.Join(file, "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	d.WriteTrust(testkit.TrustOptions{Version: 2, NoGuardrail: true, Without: []string{"cart"}})
	if err := s.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	s.expect("shop.cart", "Add", "unavailable")
	if last, ok := s.events[len(s.events)-1].(live.TrustChanged); !ok || last.NotKept == nil {
		t.Errorf("event: %#v", s.events[len(s.events)-1])
	}
}

func TestATrustFileThatNamesAGuardrailBindsAtOnce(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{NoGuardrail: true})
	s := newState(t, d)
	s.offer(d.Release("cart", "shop.cart", nil, d.Rego(cartAllowsAdd)))
	s.expect("shop.cart", "Forbidden", "allow")
	d.WriteTrust(testkit.TrustOptions{Version: 2})
	if err := s.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	s.expect("shop.cart", "Forbidden", "unavailable")
	s.offer(d.Release("center", "shop", nil, d.Rego(openGuardrail)))
	s.expect("shop.cart", "Forbidden", "deny [shop: never]")
}

// A key that is taken out while a release signed by it is being compiled must
// not get in by the back door.
func TestTrustThatChangesDuringAnActivationCounts(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{NoGuardrail: true})
	s := newState(t, d)
	r := d.Release("cart", "shop.cart", nil, d.Rego(cartAllowsAdd))
	c, err := s.Prepare(t.Context(), r.Note(), packed(r.Packed))
	if err != nil {
		t.Fatal(err)
	}
	d.WriteTrust(testkit.TrustOptions{Version: 2, NoGuardrail: true, Without: []string{"cart"}})
	if err := s.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	if err := s.Activate(c); policy.KindOf(err) != policy.Denied {
		t.Errorf("got %v", err)
	}
	s.expect("shop.cart", "Add", "unavailable")
}
