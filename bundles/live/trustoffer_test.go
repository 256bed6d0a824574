package live_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// rooted is a trust file with two roots.
func rooted(version uint64, without ...string) testkit.TrustOptions {
	return testkit.TrustOptions{Version: version, NoGuardrail: true, Without: without, Roots: []string{"ann", "bob"}, RootThreshold: 2}
}

func TestATrustFileThatIsOfferedIsInForceAndIsKept(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(rooted(1))
	dir := t.TempDir()
	s := newState(t, d, inDir(dir))
	s.Synced()
	s.offer(d.Release("cart", "shop.cart", nil, d.Rego(cartAllowsAdd)))
	two, three := d.SignTrust(rooted(2), "ann", "bob"), d.SignTrust(rooted(3, "cart"), "ann", "bob")
	if err := s.OfferTrust(three); policy.KindOf(err) != policy.Conflict {
		t.Errorf("one that leaves a version out: %v", err)
	}
	for _, note := range [][]byte{two, two, three, three} {
		if err := s.OfferTrust(note); err != nil {
			t.Fatal(err)
		}
	}
	s.expect("shop.cart", "Add", "unavailable")
	if err := s.OfferTrust(two); policy.KindOf(err) != policy.Conflict {
		t.Errorf("going back: %v", err)
	}

	// A restart begins at the file of version 1, and ends at version 3.
	s = newState(t, d, inDir(dir))
	if v := s.Trust().Version(); v != 3 {
		t.Errorf("restarted at version %d", v)
	}
	s.expect("shop.cart", "Add", "unavailable")

	// A newer file that somebody puts into place counts, and so does what
	// follows it.
	d.WriteTrust(rooted(4))
	s = newState(t, d, inDir(dir))
	if err := s.OfferTrust(d.SignTrust(rooted(5), "ann", "bob")); err != nil {
		t.Fatal(err)
	}
	d.WriteTrust(rooted(4))
	s = newState(t, d, inDir(dir))
	if v := s.Trust().Version(); v != 5 {
		t.Errorf("restarted at version %d", v)
	}
	// An older one on disk is where the way begins, whichever it is.
	d.WriteTrust(rooted(2))
	if _, err := live.New(t.Context(), live.Config{Trust: d.Trust(), Dir: dir}); policy.KindOf(err) != policy.Denied || !strings.Contains(err.Error(), "version 5 was in force here") {
		t.Errorf("where the way has a gap: %v", err)
	}
}

// What cannot be kept is in force all the same: a stolen key does not decide on
// because a disk is full. And the process starts again afterwards.
func TestAFullDiskDoesNotKeepATrustFileOut(t *testing.T) {
	for _, broken := range []string{"trust.2.note", "trust.json"} {
		d := testkit.NewDomain(t)
		d.WriteTrust(rooted(1))
		dir := t.TempDir()
		s := newState(t, d, inDir(dir))
		s.offer(d.Release("cart", "shop.cart", nil, d.Rego(cartAllowsAdd)))
		file := filepath.Join(dir, broken) // a folder in its place cannot be replaced
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(file, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := s.OfferTrust(d.SignTrust(rooted(2, "cart"), "ann", "bob")); err != nil {
			t.Fatal(err)
		}
		s.expect("shop.cart", "Add", "unavailable")
		if last, ok := s.events[len(s.events)-1].(live.TrustChanged); !ok || last.NotKept == nil {
			t.Errorf("event: %#v", s.events[len(s.events)-1])
		}
		if err := os.RemoveAll(file); err != nil {
			t.Fatal(err)
		}
		if _, err := live.New(t.Context(), live.Config{Trust: d.Trust(), Dir: dir}); err != nil {
			t.Errorf("%s: %v", broken, err)
		}
	}
}

// Who holds a trust file back holds back which keys are gone and which guardrails
// have come: nothing is proven to those who do not have it, and their releases
// become stale as if they were cut off.
func TestABeaconProvesNothingToWhoeverHasAnOlderTrustFileThanItsIssuer(t *testing.T) {
	beating := func(version uint64) testkit.TrustOptions {
		o := rooted(version)
		o.Beacons = []string{"beat"}
		return o
	}
	p := newProven(t, beating(1))
	dir := t.TempDir()
	s := p.state(t, inDir(dir))
	s.prove(p.Beacon("beat", p.clock.now(), p.cart.Version()))
	p.clock.pass(time.Minute)
	after := p.BeaconAfter(2, "beat", p.clock.now(), p.cart.Version())
	if err := s.Prove(after); policy.KindOf(err) != policy.Unavailable || !errors.Is(err, live.ErrOlderTrust) || !strings.Contains(err.Error(), "version 2 of the trust file was pushed") {
		t.Errorf("proven by version 1: %v", err)
	}
	if age := ageOf(t, s, "shop.cart"); age != time.Minute {
		t.Errorf("the age is %s", age)
	}
	if err := s.status("shop.cart").Unproven; err == nil || !strings.Contains(err.Error(), "version 2 of the trust file") {
		t.Errorf("the status says %v", err)
	}
	if got := s.PushedTrust(); got != 0 {
		t.Errorf("version %d was pushed", got)
	}
	if err := s.OfferTrust(p.SignTrust(beating(2), "ann", "bob")); err != nil {
		t.Fatal(err)
	}
	s.prove(after)
	if age := ageOf(t, s, "shop.cart"); age != 0 {
		t.Errorf("with version 2 the age is %s", age)
	}
	if got := s.PushedTrust(); got != 2 {
		t.Errorf("version %d was pushed", got)
	}
	s.Close()

	// After a restart the same, with and without the file in place by hand.
	for _, version := range []uint64{1, 2} {
		p.WriteTrust(beating(version))
		again := newState(t, p.Domain, inDir(dir), func(c *live.Config) { c.Now = p.clock.now })
		if got := again.PushedTrust(); got != 2 {
			t.Errorf("restarted from version %d: version %d was pushed", version, got)
		}
		again.Close()
	}
	// And where the way to it is lost, the beacon that was kept proves nothing.
	p.WriteTrust(beating(1))
	for _, name := range []string{"trust.2.note", "trust.json"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	again := newState(t, p.Domain, inDir(dir), func(c *live.Config) { c.Now = p.clock.now })
	if age := ageOf(t, again, "shop.cart"); age == 0 {
		t.Error("proven by an older trust file than that of the issuer")
	}
}

func ageOf(t *testing.T, s *state, n policy.Namespace) time.Duration {
	t.Helper()
	for _, one := range s.Status() {
		if one.Namespace == n {
			return one.Age
		}
	}
	t.Fatalf("%s is not held", n)
	return 0
}

func TestManyOfferTrustFilesAtOnce(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(rooted(1))
	dir := t.TempDir()
	var events sync.Mutex
	var versions []uint64
	s, err := live.New(t.Context(), live.Config{Trust: d.Trust(), Dir: dir, Events: func(e live.Event) {
		if e, ok := e.(live.TrustChanged); ok {
			events.Lock()
			defer events.Unlock()
			versions = append(versions, e.Version)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	var notes [][]byte
	for v := uint64(2); v < 10; v++ {
		notes = append(notes, d.SignTrust(rooted(v), "ann", "bob"))
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for s.Trust().Version() < 9 {
				v := s.Trust().Version()
				if v < 9 {
					_ = s.OfferTrust(notes[v-1]) // another may have been first
				}
			}
		})
	}
	all.Wait()
	for i, v := range versions {
		if v != uint64(i)+2 {
			t.Fatalf("in force one after the other: %v", versions)
		}
	}
	if again, err := live.New(t.Context(), live.Config{Trust: d.Trust(), Dir: dir}); err != nil || again.Trust().Version() != 9 {
		t.Errorf("restarted: %v", err)
	}
}
