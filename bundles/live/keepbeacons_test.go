package live_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
)

// restarted returns a state that has nothing but what is in dir: as after a
// crash, if the one before was not closed.
func (p *proven) restarted(t testing.TB, dir string) *state {
	t.Helper()
	return newState(t, p.Domain, inDir(dir), func(c *live.Config) { c.Now = p.clock.now })
}

// kept is a directory in which both releases are kept, and a proof of them from
// now.
func (p *proven) kept(t testing.TB) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s := p.state(t, inDir(dir))
	s.prove(p.Beacon("beat", p.clock.now(), p.guardrail.Version(), p.cart.Version()))
	s.Close()
	return dir
}

func TestARestartWithAnOldDiskDoesNotLookFresh(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{})
	dir := d.kept(t)
	d.clock.pass(3 * time.Hour)
	s := d.restarted(t, dir)
	s.expectAge(3 * time.Hour)
	if got := short(judged(t, s.Snapshot(), "shop.cart", d.clock.now())); got != "allow stale [shop shop.cart]" {
		t.Errorf("got %s", got)
	}
	if n := count[live.Proven](s); n != 0 {
		t.Errorf("a beacon from the disk was told as if it had come: %v", s.events)
	}
	s.prove(d.Beacon("beat", d.clock.now(), d.cart.Version()))
	s.expectAge(0)
	if n := count[live.Proven](s); n != 1 {
		t.Errorf("events: %v", s.events)
	}
}

func TestARestartThatIsQuickIsAsFreshAsBefore(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{More: map[policy.Namespace]string{"shop.cart": "max-staleness: 15s, when-stale: deny"}})
	dir := d.kept(t)
	d.clock.pass(3 * time.Second)
	s := d.restarted(t, dir)
	s.expectAge(3 * time.Second)
	if got := short(judged(t, s.Snapshot(), "shop.cart", d.clock.now())); got != "allow" {
		t.Errorf("got %s", got)
	}
}

func TestACrashLoopDoesNotMakeAnythingYounger(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"clocks agree": 0, "the beacon's clock is ahead": 30 * time.Second, "it is behind": -time.Minute} {
		t.Run(name, func(t *testing.T) {
			d := newProven(t, testkit.TrustOptions{})
			dir := t.TempDir()
			s := d.state(t, inDir(dir))
			note := d.Beacon("beat", d.clock.now().Add(ahead), d.guardrail.Version(), d.cart.Version())
			s.prove(note)
			start := s.status("shop.cart").Age
			for i := range 20 {
				d.clock.pass(3 * time.Second)
				s = d.restarted(t, dir)
				if i%2 == 0 {
					s.prove(note) // the network replays it
				}
				s.expectAge(start + time.Duration(i+1)*3*time.Second)
				if i%3 == 0 {
					s.Close()
				}
			}
		})
	}
}

func TestBeaconsAreNotWrittenAllTheTime(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{})
	dir := t.TempDir()
	s := d.state(t, inDir(dir))
	for _, step := range []struct {
		passes, want time.Duration // the age that a restart finds
	}{{0, 0}, {5 * time.Second, 5 * time.Second}, {5 * time.Second, 0}, {5 * time.Second, 5 * time.Second}} {
		d.clock.pass(step.passes)
		s.prove(d.Beacon("beat", d.clock.now(), d.cart.Version()))
		s.expectAge(0)
		d.restarted(t, dir).expectAge(step.want)
	}
	s.Close()
	d.restarted(t, dir).expectAge(0)
}

func TestWhatIsBehindIsStillBehindAfterARestart(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{})
	dir := d.kept(t)
	s := d.restarted(t, dir)
	d.clock.pass(time.Minute)
	next := d.next(cartAllowsNone)
	if err := s.Prove(d.Beacon("beat", d.clock.now(), next.Version())); policy.KindOf(err) != policy.Unavailable {
		t.Fatalf("got %v", err)
	}
	s.Close()
	d.clock.pass(time.Second)
	s = d.restarted(t, dir)
	s.expectAge(61 * time.Second)
	s.offer(next)
	s.expectAge(time.Second)
}

func TestADiskThatLiesAboutBeaconsProvesNothing(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{Beacons: []string{"beat", "beat2"}})
	dir := d.kept(t)
	file := filepath.Join(dir, "beacons.json")
	whole := must(os.ReadFile(file))
	now := d.clock.now()
	d.clock.pass(time.Minute)
	beacons := func(origin time.Time, notes ...[]byte) []byte {
		var all []map[string]any
		for _, note := range notes {
			all = append(all, map[string]any{"origin": origin, "note": string(note)})
		}
		return must(json.Marshal(all))
	}
	other := d.cart.Version()
	other.Digest = policy.Digest{7}
	good := d.Beacon("beat", now, d.cart.Version())
	elsewhere, err := bundles.SignBeacon(bundles.Beacon{Domain: "store", Time: now, Heads: []policy.Version{{Namespace: "store.cart", Epoch: 1, Revision: 1, Digest: d.cart.Digest()}}}, d.Signer("beat"))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		content []byte
		want    time.Duration
		told    string // of an event, "" if there is none
	}{
		"as it was":               {whole, time.Minute, ""},
		"empty":                   {nil, live.Forever, "damaged"},
		"torn":                    {whole[:len(whole)/2], live.Forever, "damaged"},
		"something else":          {[]byte(`{"a": 1}`), live.Forever, "damaged"},
		"no beacons":              {[]byte(`[]`), live.Forever, ""},
		"null":                    {[]byte(`[null]`), live.Forever, "beacon"},
		"a note that is none":     {beacons(now, []byte("hello")), live.Forever, "beacon"},
		"a stranger's":            {beacons(now, d.Beacon("stranger", now, d.cart.Version())), live.Forever, "trusted"},
		"a changed one":           {beacons(now, []byte(strings.Replace(string(good), "10:00:00", "10:00:59", 1))), live.Forever, "changed"},
		"another domain's":        {beacons(now, elsewhere), live.Forever, "store"},
		"from the future":         {beacons(now, d.Beacon("beat", now.Add(time.Hour), d.cart.Version())), live.Forever, "ahead"},
		"of another release":      {beacons(now, d.Beacon("beat", now, other)), live.Forever, ""},
		"an older one":            {beacons(now, d.Beacon("beat", now.Add(-time.Hour), d.cart.Version())), 61 * time.Minute, ""},
		"a younger origin":        {beacons(now.Add(time.Minute), good), time.Minute, ""},
		"an origin in the future": {beacons(now.Add(1000*time.Hour), good), time.Minute, ""},
		"no origin":               {beacons(time.Time{}, good), live.Forever, ""},
		"one bad, one good":       {beacons(now, []byte("hello"), good), time.Minute, "beacon"},
		"the same one twice":      {beacons(now, good, good), time.Minute, ""},
		"three, in no order": {beacons(now, d.Beacon("beat", now.Add(-time.Second), d.cart.Version()), good, d.Beacon("beat2", now.Add(-time.Hour), d.cart.Version())),
			time.Minute, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, test.content, 0o600); err != nil {
				t.Fatal(err)
			}
			s := d.restarted(t, dir)
			s.expectAge(test.want)
			s.expect("shop.cart", "Add", "allow") // whatever it says, the releases are there
			e, told := last[live.BeaconRefused](s)
			if told != (test.told != "") || told && (!strings.Contains(e.Err.Error(), test.told) || !strings.Contains(e.Err.Error(), "kept on disk")) {
				t.Errorf("events: %v", s.events)
			}
			// And the next beacon mends it.
			s.prove(d.Beacon("beat", d.clock.now(), d.cart.Version()))
			d.restarted(t, dir).expectAge(0)
		})
	}
}

func TestAClockThatIsSetBackBeforeARestart(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{})
	dir := d.kept(t)
	d.clock.pass(-time.Hour)
	d.restarted(t, dir).expectAge(live.Forever)
}

func TestAKeyThatIsTakenOutWhileNobodyRuns(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{})
	dir := d.kept(t)
	d.WriteTrust(testkit.TrustOptions{Version: 2, Beacons: []string{"beat2"}})
	d.restarted(t, dir).expectAge(live.Forever)
}

func TestAFullDiskLosesNoProofThatCounts(t *testing.T) {
	d := newProven(t, testkit.TrustOptions{})
	dir := t.TempDir()
	s := d.state(t, inDir(dir))
	// A folder in the file's place makes every write of it fail, for root too.
	file := filepath.Join(dir, "beacons.json")
	if err := os.MkdirAll(filepath.Join(file, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s.prove(d.Beacon("beat", d.clock.now(), d.cart.Version()))
		d.clock.pass(time.Minute)
	}
	s.expectAge(time.Minute)
	if n := count[live.BeaconsNotKept](s); n != 1 {
		t.Errorf("told %d times: %v", n, s.events)
	}
	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}
	s.prove(d.Beacon("beat", d.clock.now(), d.cart.Version()))
	d.restarted(t, dir).expectAge(0)
	if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// FuzzBeaconsFile lets a disk say anything: nothing of it is younger than the
// newest beacon that was ever signed.
func FuzzBeaconsFile(f *testing.F) {
	d := newProven(f, testkit.TrustOptions{})
	// Retirements, which need not be compiled.
	d.guardrail, d.cart = d.Release("center", "shop", nil, nil), d.Release("cart", "shop.cart", nil, nil)
	dir := d.kept(f)
	file := filepath.Join(dir, "beacons.json")
	f.Add(must(os.ReadFile(file)))
	f.Add([]byte(`[{"origin":"9999-01-01T00:00:00Z","note":""},null]`))
	d.clock.pass(time.Minute)
	config := live.Config{Trust: d.Trust(), Dir: dir, Now: d.clock.now}
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := live.New(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		s := state{Live: l, t: t}
		if age := s.status("shop.cart").Age; age < time.Minute {
			t.Errorf("age is %v", age)
		}
	})
}
