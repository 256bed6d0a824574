package live_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// clock is a wall clock that tests set.
type clock struct{ time.Time }

func (c *clock) now() time.Time { return c.Time }

func (c *clock) pass(d time.Duration) { c.Time = c.Add(d) }

// proven is a domain whose trust file lists the key beat, and what it released.
type proven struct {
	*testkit.Domain
	clock     clock
	guardrail testkit.Release
	cart      testkit.Release
}

func newProven(t testing.TB, o testkit.TrustOptions) *proven {
	p := &proven{Domain: testkit.NewDomain(t), clock: clock{testkit.Created}}
	if o.Beacons == nil {
		o.Beacons = []string{"beat"}
	}
	p.WriteTrust(o)
	p.guardrail = p.Release("center", "shop", nil, p.Rego(openGuardrail))
	p.cart = p.Release("cart", "shop.cart", nil, p.Rego(cartAllowsAdd))
	return p
}

// state returns one that holds both releases.
func (p *proven) state(t testing.TB, change ...func(*live.Config)) *state {
	t.Helper()
	s := newState(t, p.Domain, append(change, func(c *live.Config) { c.Now = p.clock.now })...)
	s.offer(p.guardrail)
	s.offer(p.cart)
	return s
}

// next releases the policy of shop.cart that follows the newest one.
func (p *proven) next(module string) testkit.Release {
	p.cart = p.Release("cart", "shop.cart", p.cart.Signed, p.Rego(module))
	return p.cart
}

func (s *state) prove(note []byte) {
	s.t.Helper()
	if err := s.Prove(note); err != nil {
		s.t.Fatal(err)
	}
}

func (s *state) status(n policy.Namespace) live.Status {
	s.t.Helper()
	for _, status := range s.Status() {
		if status.Namespace == n {
			return status
		}
	}
	s.t.Fatalf("no status of %s", n)
	return live.Status{}
}

// expectAge checks how old the proof of shop.cart is.
func (s *state) expectAge(want time.Duration) {
	s.t.Helper()
	if got := s.status("shop.cart").Age; got != want {
		s.t.Errorf("age is %v, want %v", got, want)
	}
}

// last returns the last event of a type.
func last[E live.Event](s *state) (e E, ok bool) {
	for _, e := range slices.Backward(s.events) {
		if e, ok := e.(E); ok {
			return e, true
		}
	}
	return e, false
}

func count[E live.Event](s *state) (n int) {
	for _, e := range s.events {
		if _, ok := e.(E); ok {
			n++
		}
	}
	return n
}

func TestABeaconProvesTheHead(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{})
	s := d.state(t)
	s.expectAge(live.Forever)
	if status := s.status("shop.cart"); !status.Stale || !status.Proven.IsZero() || status.MaxStaleness != time.Hour || status.WhenStale != bundles.Serve {
		t.Errorf("before any beacon: %+v", status)
	}
	sent := d.clock.now().Add(-2 * time.Second)
	s.prove(d.Beacon("beat", sent, d.guardrail.Version(), d.cart.Version()))
	s.expectAge(2 * time.Second)
	d.clock.pass(time.Minute)
	s.expectAge(62 * time.Second)
	if status := s.status("shop.cart"); status.Stale || !status.Proven.Equal(sent) || status.Unproven != nil {
		t.Errorf("proven: %+v", status)
	}
	if e, ok := last[live.Proven](s); !ok || e.Version != d.cart.Version() || count[live.Proven](s) != 2 {
		t.Errorf("events: %v", s.events)
	}
	s.prove(d.Beacon("beat", d.clock.now(), d.cart.Version()))
	s.expectAge(0)
	if got := s.status("shop").Age; got != 62*time.Second {
		t.Errorf("a beacon about another namespace: the guardrail's age is %v", got)
	}
	if count[live.Proven](s) != 2 {
		t.Error("an event for every beacon")
	}
	d.clock.pass(time.Hour + time.Millisecond)
	if !s.status("shop.cart").Stale {
		t.Error("not stale after an hour")
	}
	s.prove(d.Beacon("beat", d.clock.now(), d.cart.Version()))
	if s.status("shop.cart").Stale || count[live.Proven](s) != 3 {
		t.Error("fresh again, and nobody was told")
	}
	replay := d.Beacon("beat", d.clock.now().Add(time.Second), d.cart.Version())
	for range 3 {
		s.prove(replay)
		d.clock.pass(2 * time.Hour)
	}
	if !s.status("shop.cart").Stale || count[live.Proven](s) != 3 {
		t.Error("a replayed beacon is told as a new one")
	}
}

func TestReplayedAndOlderBeaconsMakeNothingYounger(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{})
	s := d.state(t)
	first := d.Beacon("beat", d.clock.now(), d.cart.Version())
	d.clock.pass(5 * time.Second)
	between := d.Beacon("beat", d.clock.now(), d.cart.Version())
	d.clock.pass(5 * time.Second)
	newest := d.Beacon("beat", d.clock.now(), d.cart.Version())
	s.prove(first)
	s.prove(newest)
	d.clock.pass(time.Minute)
	s.prove(newest) // a direct get brings the last one again
	for name, note := range map[string][]byte{"the first one": first, "one that was late": between} {
		if err := s.Prove(note); policy.KindOf(err) != policy.Conflict {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.expectAge(time.Minute)
	if got := s.Beacons(); got != (live.Beacons{Taken: 2, Ignored: 2}) {
		t.Errorf("counted %+v", got)
	}
}

func TestBeaconsThatAreNotBelieved(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{})
	at := d.clock.now()
	good := d.Beacon("beat", at, d.cart.Version())
	flipped := slices.Clone(good)
	flipped[40] ^= 1
	sign := func(b bundles.Beacon) []byte {
		note, err := bundles.SignBeacon(b, d.Signer("beat"))
		if err != nil {
			t.Fatal(err)
		}
		return note
	}
	fork := d.cart.Version()
	fork.Digest = policy.Digest{7}
	for name, test := range map[string]struct {
		note []byte
		kind policy.Kind
		want string
	}{
		"nothing":                      {nil, policy.BadRequest, ""},
		"a release":                    {d.cart.Note(), policy.BadRequest, ""},
		"a flipped bit":                {flipped, policy.Denied, "changed"},
		"a stranger's key":             {d.Beacon("stranger", at, d.cart.Version()), policy.Denied, "beacons"},
		"the author's own key":         {d.Beacon("cart", at, d.cart.Version()), policy.Denied, "beacons"},
		"another domain's":             {sign(bundles.Beacon{Domain: "store", Time: at, Heads: []policy.Version{{Namespace: "store.cart", Epoch: 1, Revision: 1, Digest: d.cart.Digest()}}}), policy.Denied, "store"},
		"from the future":              {d.Beacon("beat", at.Add(30*time.Second+time.Millisecond), d.cart.Version()), policy.BadRequest, "clock"},
		"of namespaces not known here": {d.Beacon("beat", at, policy.Version{Namespace: "shop.pay", Epoch: 1, Revision: 1, Digest: policy.Digest{1}}), policy.BadRequest, "followed"},
		"about nothing":                {d.Beacon("beat", at), policy.BadRequest, "followed"},
		"another release there":        {d.Beacon("beat", at, fork), policy.Conflict, "fork"},
	} {
		t.Run(name, func(t *testing.T) {
			s := d.state(t, func(c *live.Config) { c.Namespaces = []policy.Namespace{"shop.cart"} })
			err := s.Prove(test.note)
			if err == nil || policy.KindOf(err) != test.kind || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v (%v), want %v with %q", err, policy.KindOf(err), test.kind, test.want)
			}
			s.expectAge(live.Forever)
			if e, ok := last[live.BeaconRefused](s); !ok || !errors.Is(err, e.Err) {
				t.Errorf("events: %v", s.events)
			}
			if got := s.Beacons(); got != (live.Beacons{Ignored: 1}) {
				t.Errorf("counted %+v", got)
			}
			s.prove(good) // and nothing of it stays
			s.expectAge(0)
		})
	}
}

func TestAFloodOfForgedBeaconsIsNotAFloodOfEvents(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{})
	s := d.state(t)
	forged := d.Beacon("stranger", d.clock.now(), d.cart.Version())
	for range 100 {
		_ = s.Prove(forged)
	}
	if n := count[live.BeaconRefused](s); n != 1 {
		t.Errorf("%d events", n)
	}
	d.clock.pass(time.Minute)
	_ = s.Prove(forged)
	if e, _ := last[live.BeaconRefused](s); e.More != 99 {
		t.Errorf("last event: %+v", e)
	}
}

func TestTheSameRevisionWithAnotherDigestIsAnAlarmAndNoProof(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{})
	s := d.state(t)
	s.prove(d.Beacon("beat", d.clock.now(), d.cart.Version()))
	d.clock.pass(10 * time.Second)
	other := d.cart.Version()
	other.Digest = policy.Digest{7}
	note := d.Beacon("beat", d.clock.now(), other)
	err := s.Prove(note)
	var fork *live.BeaconForkError
	if !errors.As(err, &fork) || fork.Held.Digest() != d.cart.Digest() || string(fork.Beacon.Note()) != string(note) {
		t.Fatalf("got %v", err)
	}
	if e, ok := last[live.BeaconRefused](s); !ok || e.Namespace != "shop.cart" || !errors.As(e.Err, &fork) {
		t.Errorf("the alarm has no evidence: %+v", e)
	}
	s.expectAge(10 * time.Second)
	s.expect("shop.cart", "Add", "allow") // the first one stays
	if !errors.As(s.status("shop.cart").Unproven, &fork) {
		t.Errorf("status: %+v", s.status("shop.cart"))
	}
}

func TestABeaconThatSaysThatWeAreBehind(t *testing.T) {
	for name, held := range map[string]bool{"an older one is held": true, "nothing is held": false} {
		t.Run(name, func(t *testing.T) {
			d := newProven(t, testkit.TrustOptions{})
			s := newState(t, d.Domain, func(c *live.Config) { c.Now = d.clock.now })
			var before policy.Version
			if held {
				s = d.state(t)
				before = d.cart.Version()
				s.prove(d.Beacon("beat", d.clock.now(), before))
				d.clock.pass(time.Minute)
			}
			next := d.next(cartAllowsNone)
			note := d.Beacon("beat", d.clock.now(), next.Version())
			for range 2 { // the same one again says the same
				if err := s.Prove(note); policy.KindOf(err) != policy.Unavailable {
					t.Fatalf("got %v", err)
				}
			}
			d.clock.pass(5 * time.Second)
			sent := d.clock.now()
			if err := s.Prove(d.Beacon("beat", sent, next.Version())); policy.KindOf(err) != policy.Unavailable {
				t.Fatalf("got %v", err)
			}
			if e, ok := last[live.Behind](s); !ok || e != (live.Behind{Held: before, Head: next.Version()}) || count[live.Behind](s) != 1 {
				t.Errorf("events: %v", s.events)
			}
			if held {
				s.expectAge(65 * time.Second) // what is held is as old as it was
			}
			if s.status("shop.cart").Unproven == nil {
				t.Error("the status does not say why")
			}
			d.clock.pass(time.Second)
			s.offer(next)
			s.expectAge(time.Second) // proven at once
			if e, ok := last[live.Proven](s); !ok || e.Version != next.Version() || !e.Time.Equal(sent) {
				t.Errorf("events: %v", s.events)
			}
			if err := s.status("shop.cart").Unproven; err != nil {
				t.Error(err)
			}
		})
	}
}

// Whoever has an older trust file, or an older store, than the one who signed the
// beacon before, may name what was the head once.
func TestABeaconDoesNotProveWhatAnotherHasOvertaken(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{Beacons: []string{"beat", "beat2"}})
	dir := t.TempDir()
	s := d.state(t, func(c *live.Config) { c.Dir = dir })
	one := d.cart.Version()
	s.prove(d.Beacon("beat", d.clock.now(), one))
	d.clock.pass(5 * time.Second)
	next := d.next(cartAllowsNone)
	if err := s.Prove(d.Beacon("beat", d.clock.now(), next.Version())); policy.KindOf(err) != policy.Unavailable {
		t.Fatalf("got %v", err)
	}
	overtaken := func() {
		t.Helper()
		d.clock.pass(5 * time.Second)
		if err := s.Prove(d.Beacon("beat2", d.clock.now(), one)); policy.KindOf(err) != policy.Conflict {
			t.Errorf("got %v", err)
		}
		if err := s.status("shop.cart").Unproven; err == nil || !strings.Contains(err.Error(), "revision 2") {
			t.Errorf("the status says %v", err)
		}
	}
	overtaken()
	s.expectAge(10 * time.Second)
	s.Close()
	s = newState(t, d.Domain, func(c *live.Config) { c.Dir, c.Now = dir, d.clock.now })
	overtaken() // after a restart as well
	s.expectAge(15 * time.Second)
	s.offer(next)
	s.expectAge(10 * time.Second)
	// It counts no longer than the key that vouched for it.
	d.clock.pass(5 * time.Second)
	made := next.Version()
	made.Revision = 99
	if err := s.Prove(d.Beacon("beat", d.clock.now(), made)); policy.KindOf(err) != policy.Unavailable {
		t.Fatalf("got %v", err)
	}
	d.WriteTrust(testkit.TrustOptions{Version: 2, Beacons: []string{"beat2"}})
	if err := s.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	s.prove(d.Beacon("beat2", d.clock.now(), next.Version()))
	s.expectAge(0)
}

func TestAReleaseIsAsProvenAsTheOneBeforeIt(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{})
	s := d.state(t)
	one := d.cart.Version()
	s.prove(d.Beacon("beat", d.clock.now(), one))
	d.clock.pass(3 * time.Second)
	two := d.next(cartAllowsNone)
	s.offer(two)
	s.expectAge(3 * time.Second)
	// A beacon that was on its way while two came, or one by somebody who does not know of two.
	d.clock.pass(time.Second)
	if err := s.Prove(d.Beacon("beat", d.clock.now(), one)); policy.KindOf(err) != policy.Conflict {
		t.Errorf("got %v", err)
	}
	s.expectAge(4 * time.Second)
	if s.status("shop.cart").Unproven == nil {
		t.Error("the status does not say why")
	}
	s.prove(d.Beacon("beat", d.clock.now(), two.Version()))
	s.expectAge(0)
}

// What takes the place of the head that a beacon named must be that very
// release: another one under its revision is not proven by it.
func TestAReleaseThatABeaconContradictsIsNotProven(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{})
	s := d.state(t)
	s.prove(d.Beacon("beat", d.clock.now(), d.cart.Version()))
	d.clock.pass(time.Minute)
	evil := d.Release("cart", "shop.cart", d.cart.Signed, d.Rego("allow := true"))
	good := d.next(cartAllowsNone)
	note := d.Beacon("beat", d.clock.now(), good.Version())
	if err := s.Prove(note); policy.KindOf(err) != policy.Unavailable {
		t.Fatalf("got %v", err)
	}
	s.offer(evil)
	s.expectAge(time.Minute)
	d.clock.pass(5 * time.Second)
	var fork *live.BeaconForkError
	if err := s.Prove(d.Beacon("beat", d.clock.now(), good.Version())); !errors.As(err, &fork) {
		t.Errorf("got %v", err)
	}
	s.expectAge(65 * time.Second)
}

func TestABeaconOfAKeyThatWasTakenOutProvesNothing(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{Beacons: []string{"beat", "beat2"}})
	s := d.state(t)
	s.prove(d.Beacon("beat2", d.clock.now(), d.guardrail.Version()))
	stolen := d.Beacon("beat", d.clock.now().Add(29*time.Second), d.cart.Version())
	s.prove(stolen)
	s.expectAge(0)
	later := d.Beacon("beat", d.clock.now().Add(30*time.Second), d.cart.Version())
	d.WriteTrust(testkit.TrustOptions{Version: 2, Beacons: []string{"beat2"}})
	if err := s.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	s.expectAge(live.Forever)
	if got := s.status("shop").Age; got != 0 {
		t.Errorf("what the other key proved has the age %v", got)
	}
	for _, note := range [][]byte{stolen, later} {
		if err := s.Prove(note); policy.KindOf(err) != policy.Denied {
			t.Errorf("got %v", err)
		}
	}
	s.expectAge(live.Forever)
	s.prove(d.Beacon("beat2", d.clock.now(), d.cart.Version())) // though its time is before the thief's
	s.expectAge(0)
}

func TestClocksThatAreFiveMinutesOff(t *testing.T) {
	const off = 5 * time.Minute
	t.Run("ours is slow", func(t *testing.T) {
		d := newProven(t, testkit.TrustOptions{})
		s := d.state(t)
		if err := s.Prove(d.Beacon("beat", d.clock.now().Add(off), d.cart.Version())); policy.KindOf(err) != policy.BadRequest || !strings.Contains(err.Error(), "5m0s ahead") {
			t.Errorf("got %v", err)
		}
		s.expectAge(live.Forever)
		if err := s.status("shop.cart").Unproven; err == nil || !strings.Contains(err.Error(), "clock") {
			t.Errorf("the status says %v", err)
		}
	})
	t.Run("ours is fast", func(t *testing.T) {
		d := newProven(t, testkit.TrustOptions{})
		s := d.state(t)
		for range 3 {
			s.prove(d.Beacon("beat", d.clock.now().Add(-off), d.cart.Version()))
			s.expectAge(off)
			d.clock.pass(5 * time.Second)
		}
	})
	t.Run("ours is slow, and beacons are held back as long", func(t *testing.T) {
		// Nothing here can tell: the error of the clock is added to what is believed.
		d := newProven(t, testkit.TrustOptions{})
		s := d.state(t)
		s.prove(d.Beacon("beat", d.clock.now(), d.cart.Version()))
		s.expectAge(0)
		d.clock.pass(time.Hour + time.Second)
		if !s.status("shop.cart").Stale {
			t.Error("it is believed without end")
		}
	})
	t.Run("ours is slow by less than is borne", func(t *testing.T) {
		d := newProven(t, testkit.TrustOptions{})
		s := d.state(t)
		s.prove(d.Beacon("beat", d.clock.now().Add(30*time.Second), d.cart.Version()))
		s.expectAge(0)
		d.clock.pass(time.Minute)
		s.expectAge(time.Minute) // from when it came, not from its time
	})
}

// setWall returns t as the clock gives it after the wall clock was set by d: the
// monotonic part goes on. There is no other way to make such a time than to
// write into it: it has a bit that says that there is a monotonic part, 33 bits
// of seconds, 30 bits of nanoseconds.
func setWall(t time.Time, d time.Duration) time.Time {
	wall := (*uint64)(unsafe.Pointer(&t))
	*wall += uint64(int64(d/time.Second)) << 30
	return t
}

func TestAWallClockThatIsSetWhileRunning(t *testing.T) {
	start := time.Now()
	if got := setWall(start.Add(time.Minute), -time.Hour); got.Sub(start) != time.Minute || got.Round(0).Sub(start.Round(0)) != -59*time.Minute {
		t.Fatalf("the clock of this test is wrong: %v, %v", got, start)
	}
	for name, test := range map[string]struct{ set, want time.Duration }{
		"not at all": {0, time.Minute},
		"back":       {-time.Hour, time.Minute},
		// So it is after the machine slept: the monotonic clock may have, too.
		"ahead": {time.Hour, time.Hour + time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			d := newProven(t, testkit.TrustOptions{})
			d.clock.Time = start
			s := d.state(t)
			s.prove(d.Beacon("beat", start, d.cart.Version()))
			d.clock.Time = setWall(start.Add(time.Minute), test.set)
			age := s.status("shop.cart").Age
			if age.Round(time.Second) != test.want {
				t.Errorf("age is %v, want %v", age, test.want)
			}
		})
	}
}
