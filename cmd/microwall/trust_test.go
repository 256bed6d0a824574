package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// A team changes its key by the trust file on disk, which the server and the
// client read again: the new key beside the old one, one push, the old one gone.
// No decision is lost meanwhile. Without that push the last step takes the
// namespace with it, and check-trust says so before.
func TestATeamChangesItsKeyAndNoDecisionIsLost(t *testing.T) {
	s := newSite(t)
	s.push("center", "shop", neverForbidden, "released revision 1")
	s.push("cart", "shop.cart", allowsGet, "released revision 1")
	changed, second := make(chan live.TrustChanged, 100), make(chan struct{})
	client, err := embedded.New(t.Context(), embedded.Config{
		NATS: s.NATS, TrustFile: s.TrustFile, Namespaces: []policy.Namespace{"shop.cart"},
		OnRelease: func(e live.Event) {
			switch e := e.(type) {
			case live.TrustChanged:
				changed <- e
			case live.Activated:
				if e.Version.Namespace == "shop.cart" && e.Version.Revision == 2 {
					close(second)
				}
			}
		},
	})
	s.must(err)
	defer client.Close()
	authorize := func() (policy.Decision, error) {
		return client.Authorize(t.Context(), testkit.Request("shop.cart", "Get"))
	}
	stop, asked := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		defer func() { asked <- n }()
		for ; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if d, err := authorize(); err != nil || !d.Allowed {
				t.Errorf("decision %d: %v, %v", n, d, err)
				return
			}
		}
	}()
	// next puts the next trust file into place, and waits until both have it.
	next := func(o testkit.TrustOptions) (dropped []policy.Namespace) {
		t.Helper()
		s.WriteTrust(o)
		_, err := s.waitFor(`"msg":"trust file taken over"`)
		s.must(err)
		select {
		case e := <-changed:
			return e.Dropped
		case <-time.After(patience):
			t.Fatal("the client does not read its trust file again")
		}
		return nil
	}
	check := func(code int, says string, o testkit.TrustOptions) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "next.yaml")
		s.must(os.WriteFile(file, s.TrustText(o), 0o600))
		s.expect("cart", code, says, "check-trust", s.TrustFile, file)
	}
	both := testkit.TrustOptions{Version: 2, CartSigners: []string{"cart", "pay"}}
	alone := testkit.TrustOptions{Version: 3, CartSigners: []string{"pay"}}
	check(exitYes, "shop.cart: may sign it now: pay", both)
	if dropped := next(both); len(dropped) > 0 {
		t.Errorf("both keys: %v dropped", dropped)
	}
	check(exitNo, "PROBLEM  shop.cart: nothing in it is decided any more: its head, release 1, is signed by cart", alone)
	s.push("pay", "shop.cart", allowsGet, "released revision 2")
	<-second
	check(exitYes, "shop.cart: there is no rolling back any more to release 1", alone)
	if dropped := next(alone); len(dropped) > 0 {
		t.Errorf("the new key alone: %v dropped", dropped)
	}
	s.expect("cart", exitError, "sign with the keys that the trust file lists for shop.cart: pay", "push", s.folder("shop.cart", allowsPut))
	close(stop)
	if n := <-asked; n == 0 {
		t.Error("nothing was decided meanwhile")
	}

	gone := testkit.TrustOptions{Version: 4, CartSigners: []string{"center"}}
	check(exitNo, "PROBLEM  shop.cart: nothing in it is decided any more", gone)
	if dropped := next(gone); len(dropped) != 1 || dropped[0] != "shop.cart" {
		t.Errorf("a key that nobody replaced: %v dropped", dropped)
	}
	if _, err := authorize(); policy.KindOf(err) != policy.Unavailable {
		t.Errorf("the client still decides by a key that is gone: %v", err)
	}
	s.expect("cart", exitError, "no release of namespace shop.cart could be loaded", "authorize", "--namespace", "shop.cart", "--subject", "workload:x", "--resource", "grpc:Cart", "--action", "Get")
}
