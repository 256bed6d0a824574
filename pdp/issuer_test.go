package pdp_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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

// patience bounds every wait for what must come.
const patience = 30 * time.Second

// issuing is an issuer that does a round when the test says so.
type issuing struct {
	*pdp.Issuer
	t      *testing.T
	d      *testkit.Domain
	p      *testkit.PDP
	events chan pdp.Event
	rounds chan chan time.Time // of an issuer that waits for its next round
	waits  atomic.Int64        // how long it would
	ahead  atomic.Int64        // of its clock
	stop   func()
}

// startIssuer starts the issuer of a PDP, and waits until its first round is
// done.
func startIssuer(t *testing.T, d *testkit.Domain, p *testkit.PDP, key, name string) *issuing {
	t.Helper()
	return startIssuerAt(t, d, p, key, name, 0)
}

// startIssuerAt starts one whose clock is ahead.
func startIssuerAt(t *testing.T, d *testkit.Domain, p *testkit.PDP, key, name string, ahead time.Duration) *issuing {
	t.Helper()
	i := &issuing{t: t, d: d, p: p, events: make(chan pdp.Event, 10_000), rounds: make(chan chan time.Time, 1)}
	i.ahead.Store(int64(ahead))
	var err error
	i.Issuer, err = pdp.NewIssuer(pdp.IssuerConfig{
		Live: p.Live, Store: p.Store, Key: d.Signer(key), Name: name,
		Events: func(e pdp.Event) { i.events <- e },
		Now:    func() time.Time { return time.Now().Add(time.Duration(i.ahead.Load())) },
		After: func(d time.Duration) <-chan time.Time {
			if d < pdp.DefaultInterval/10 { // after a round for what is new
				return time.After(d)
			}
			c := make(chan time.Time, 1)
			i.waits.Store(int64(d))
			i.rounds <- c
			return c
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { _ = i.Run(ctx) })
	work.Go(func() {
		_ = jetstream.ServeConfirm(ctx, jetstream.ConfirmConfig{Conn: p.NATSConn, Domain: "shop", Confirm: i.Confirm})
	})
	i.stop = sync.OnceFunc(func() {
		cancel()
		work.Wait()
	})
	t.Cleanup(i.stop)
	i.rounds <- i.next()
	return i
}

// next waits until the issuer waits.
func (i *issuing) next() chan time.Time {
	i.t.Helper()
	select {
	case c := <-i.rounds:
		return c
	case <-time.After(patience):
		i.t.Fatal("the issuer does not end its round")
		panic("unreachable")
	}
}

// round has the issuer do its next round.
func (i *issuing) round() {
	i.t.Helper()
	i.next() <- time.Time{}
	i.rounds <- i.next()
}

// wantIssuer waits for an event of a type, and fails if it does not come.
func wantIssuer[E pdp.Event](i *issuing) E {
	i.t.Helper()
	late := time.After(patience)
	var others []pdp.Event
	for {
		select {
		case e := <-i.events:
			if wanted, ok := e.(E); ok {
				return wanted
			}
			others = append(others, e)
		case <-late:
			var e E
			i.t.Fatalf("no %T came, but %+v", e, others)
			return e
		}
	}
}

// roundsUntil does rounds until there is an event of a type: what others do
// reaches the log in its time.
func roundsUntil[E pdp.Event](i *issuing) E {
	i.t.Helper()
	for begun := time.Now(); time.Since(begun) < patience; {
		i.round()
		for len(i.events) > 0 {
			if wanted, ok := (<-i.events).(E); ok {
				return wanted
			}
		}
	}
	var e E
	i.t.Fatalf("no %T came", e)
	return e
}

// none fails if there was an event of a type.
func none[E pdp.Event](i *issuing) {
	i.t.Helper()
	for {
		select {
		case e := <-i.events:
			if unwanted, ok := e.(E); ok {
				i.t.Errorf("there was %T%+v", unwanted, unwanted)
			}
		default:
			return
		}
	}
}

// newest returns the newest beacon of a namespace, nil if there is none.
func newest(t *testing.T, d *testkit.Domain, nc *nats.Conn, ns string) *bundles.SignedBeacon {
	t.Helper()
	m, err := nc.Request("$JS.API.DIRECT.GET.BEAT.pdp.beatin.shop."+ns, nil, patience)
	if err != nil {
		t.Fatal(err)
	}
	if m.Header.Get("Status") == "404" {
		return nil
	}
	b, err := d.Trust().OpenBeacon(m.Data)
	if err != nil {
		t.Fatalf("%v: %s", err, m.Data)
	}
	return b
}

func wantBeacon(t *testing.T, d *testkit.Domain, nc *nats.Conn, ns string, head policy.Version, since time.Time) {
	t.Helper()
	b := newest(t, d, nc, ns)
	if b == nil {
		t.Fatalf("no beacon of %s", ns)
	}
	if len(b.Heads()) != 1 || b.Heads()[0] != head || b.Time().Before(since.Truncate(time.Millisecond)) {
		t.Errorf("beacon of %v names %v; want %v since %v", b.Time(), b.Heads(), head, since)
	}
}

// startBeacons starts a PDP whose trust file lists two keys that sign beacons.
func startBeacons(t *testing.T) (*testkit.Domain, *testkit.PDP, string) {
	t.Helper()
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat", "beat2"}})
	url := testkit.NATS(t, t.TempDir()).URL()
	return d, d.StartPDP(url, t.TempDir()), url
}

func TestBeaconsNameTheHeads(t *testing.T) {
	d, p, _ := startBeacons(t)
	shop := d.Push(p, "center", "shop", guardrail).Release
	cart := d.Push(p, "cart", "shop.cart", allowsAdd).Release
	begun := time.Now()
	i := startIssuer(t, d, p, "beat", "one")
	if e := wantIssuer[pdp.Issued](i); e.Namespaces != 2 || e.Time.Before(begun) {
		t.Errorf("%+v", e)
	}
	wantBeacon(t, d, p.NATSConn, "shop", shop.Version(), begun)
	wantBeacon(t, d, p.NATSConn, "shop_cart", cart.Version(), begun)
	for n := range 3 {
		begun = time.Now()
		cart = d.Push(p, "cart", "shop.cart", allowsAdd+strings.Repeat(" ", n+1)).Release
		i.round()
		wantBeacon(t, d, p.NATSConn, "shop", shop.Version(), begun)
		wantBeacon(t, d, p.NATSConn, "shop_cart", cart.Version(), begun)
	}
	retired, err := d.PAP(p).Push(t.Context(), d.Draft("cart", "shop.new", allowsAdd))
	if err == nil {
		t.Fatalf("%v was released by a key that may not", retired)
	}
	i.round()
	if b := newest(t, d, p.NATSConn, "shop_new"); b != nil {
		t.Errorf("a beacon of what has no head: %v", b.Heads())
	}
	none[pdp.HeadDoubted](i)
}

func TestOfTwoIssuersOneStandsByAndTakesOver(t *testing.T) {
	d, p, url := startBeacons(t)
	q := d.StartPDP(url, t.TempDir())
	cart := d.Push(p, "cart", "shop.cart", allowsAdd).Release
	one := startIssuer(t, d, p, "beat", "one")
	wantIssuer[pdp.Issuing](one)
	two := startIssuer(t, d, q, "beat2", "two")
	if e := wantIssuer[pdp.StandingBy](two); e.Issuer != "one" {
		t.Errorf("%+v", e)
	}
	for range 3 {
		one.round()
		two.round()
	}
	none[pdp.Issued](two)

	// One is killed: it cannot say so. The other takes over when three intervals
	// are over, not at the end of the round after.
	p.NATSConn.Close()
	two.ahead.Store(int64(5 * pdp.DefaultInterval / 2))
	two.round()
	none[pdp.Issued](two)
	if wait := time.Duration(two.waits.Load()); wait > pdp.DefaultInterval/2 {
		t.Errorf("after two intervals and a half without a tick it waits for another %s", wait)
	}
	two.ahead.Store(int64(3 * pdp.DefaultInterval))
	begun := time.Now()
	roundsUntil[pdp.Issuing](two)
	wantBeacon(t, d, q.NATSConn, "shop_cart", cart.Version(), begun)

	// Another one comes, and is told that the other stops.
	r := d.StartPDP(url, t.TempDir())
	three := startIssuer(t, d, r, "beat", "three")
	wantIssuer[pdp.StandingBy](three)
	two.stop()
	roundsUntil[pdp.Issuing](three)
	// One that is started again under its name goes on at once.
	again := startIssuer(t, d, q, "beat", "three")
	wantIssuer[pdp.Issuing](again)
	roundsUntil[pdp.StandingBy](three)
}

// Who issues does not depend on what anybody's clock says, but who has the wrong
// time leaves it to who has the right one: his beacons prove nothing.
func TestIssuersWhoseClocksAreFiveMinutesOff(t *testing.T) {
	for name, off := range map[string]time.Duration{"ahead": 5 * time.Minute, "behind": -5 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			d, p, url := startBeacons(t)
			q := d.StartPDP(url, t.TempDir())
			d.Push(p, "cart", "shop.cart", allowsAdd)
			right := startIssuer(t, d, p, "beat", "right")
			wantIssuer[pdp.Issuing](right)
			// It does not take the last tick for an old one.
			wrong := startIssuerAt(t, d, q, "beat2", "wrong", off)
			if e := wantIssuer[pdp.StandingBy](wrong); e.Issuer != "right" {
				t.Errorf("%+v", e)
			}
			for range 3 {
				right.round()
				wrong.round()
			}
			none[pdp.Issued](wrong)
			none[pdp.StandingBy](right)
			// It issues when there is no other, and says what is wrong.
			right.stop()
			roundsUntil[pdp.Issued](wrong)
			if e := roundsUntil[pdp.ClockOff](wrong); (e.Ahead - off).Abs() > 5*time.Second {
				t.Errorf("%+v", e)
			}
			roundsUntil[pdp.Issued](wrong)
			none[pdp.ClockOff](wrong)
			// It does not keep the other from it for three intervals.
			again := startIssuer(t, d, p, "beat", "right")
			roundsUntil[pdp.Issued](again)
			roundsUntil[pdp.StandingBy](wrong)
			for range 3 {
				wrong.round()
				again.round()
			}
			none[pdp.Issued](wrong)
			// That one is killed: three intervals later it is there again, by a
			// clock that is as wrong as before.
			p.NATSConn.Close()
			wrong.round()
			none[pdp.Issued](wrong)
			wrong.ahead.Store(int64(off + 3*pdp.DefaultInterval))
			roundsUntil[pdp.Issued](wrong)
		})
	}
}

// Both would issue: whichever commits its tick on the last one does.
func TestOfTwoIssuersWithTheWrongTimeOneAtATimeIssues(t *testing.T) {
	d, p, url := startBeacons(t)
	q := d.StartPDP(url, t.TempDir())
	d.Push(p, "cart", "shop.cart", allowsAdd)
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	heard, err := nc.SubscribeSync("pdp.head.shop.-tick")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	both := []*issuing{
		startIssuerAt(t, d, p, "beat", "fast", 5*time.Minute),
		startIssuerAt(t, d, q, "beat2", "slow", -5*time.Minute),
	}
	for range 20 {
		var work sync.WaitGroup
		for _, i := range both { // each knows what came before
			if _, err := i.Confirm(t.Context(), "shop.cart"); err != nil {
				t.Fatal(err)
			}
		}
		for _, i := range both {
			work.Go(i.round)
		}
		work.Wait()
	}
	rounds := 0
	for _, i := range both {
		i.stop()
		for len(i.events) > 0 {
			switch e := (<-i.events).(type) {
			case pdp.Issued:
				rounds++
			case pdp.IssueFailed:
				t.Error(e.Err)
			}
		}
	}
	// Each round has a tick of its own, and has ended when the next one begins.
	issuer, ticks := "", 0
	for {
		m, err := heard.NextMsg(time.Second)
		if err != nil {
			break
		}
		tick := string(m.Data)
		switch {
		case strings.Contains(tick, `"issuer":""`):
			issuer = ""
			continue
		case issuer != "" && issuer != tick[:20]:
			t.Errorf("%s came after %s, who had not said that the round was over", tick, issuer)
		}
		issuer, ticks = tick[:20], ticks+1
	}
	if rounds < 20 || ticks != rounds {
		t.Errorf("%d rounds by %d ticks", rounds, ticks)
	}
}

// Its owner may deny what is not proven: nobody is to wait for the next round.
func TestTheFirstReleaseOfANamespaceIsProvenAtOnce(t *testing.T) {
	d := testkit.NewDomain(t)
	d.WriteTrust(testkit.TrustOptions{Beacons: []string{"beat"}, More: map[policy.Namespace]string{"shop.cart": "when-stale: deny"}})
	p := d.StartPDP(testkit.NATS(t, t.TempDir()).URL(), t.TempDir())
	d.Push(p, "center", "shop", guardrail)
	i := startIssuer(t, d, p, "beat", "one") // and no round after the first
	if e := wantIssuer[pdp.Issued](i); e.Namespaces != 1 {
		t.Errorf("%+v", e)
	}
	d.Push(p, "cart", "shop.cart", allowsAdd)
	if e := wantIssuer[pdp.Issued](i); e.Namespaces != 1 {
		t.Errorf("%+v", e)
	}
	proven := errors.New("it is proven")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.Service.Watch(ctx, []policy.Namespace{"shop.cart"}, func(s pdp.State) error {
		for _, proof := range s.Path {
			if proof.Version.Namespace == "shop.cart" && !proof.Time.IsZero() {
				return proven
			}
		}
		return nil
	}); !errors.Is(err, proven) {
		t.Fatal(err)
	}
	if decision, err := p.Service.Authorize(t.Context(), testkit.Request("shop.cart", "Add")); err != nil || !decision.Allowed || len(decision.Stale) > 0 {
		t.Errorf("%+v, %v", decision, err)
	}
	// Another release of it is as proven as the one before.
	d.Push(p, "cart", "shop.cart", allowsAdd+" ")
	if _, err := i.Confirm(t.Context(), "shop.cart"); err != nil { // the log has come that far
		t.Fatal(err)
	}
	// Many that come at once do not bring as many rounds.
	begun := time.Now()
	const many = 100
	for n := range many {
		ns := policy.Namespace("shop.team-" + strconv.Itoa(n))
		r := d.Release("center", ns, nil, d.Rego(allowsAdd))
		if _, err := p.Store.Put(t.Context(), ns, r.Note(), r.Packed, 0); err != nil {
			t.Fatal(err)
		}
	}
	rounds := 0
	for namespaces := 0; namespaces < many; rounds++ {
		namespaces += wantIssuer[pdp.Issued](i).Namespaces
	}
	if most := 2 + int(time.Since(begun)/(pdp.DefaultInterval/20)); rounds > most {
		t.Errorf("%d rounds for %d namespaces, %d at most", rounds, many, most)
	}
	none[pdp.Issued](i)
}

// A PDP that does not issue hears the beacons of the one that does, and says that
// it is behind.
func TestAPDPThatIsBehindTheIssuerBecomesStale(t *testing.T) {
	d := testkit.NewDomain(t)
	trust := testkit.TrustOptions{Beacons: []string{"beat"}, NoGuardrail: true, More: map[policy.Namespace]string{"shop.cart": "when-stale: deny, max-staleness: 15s"}}
	d.WriteTrust(trust)
	url := testkit.NATS(t, t.TempDir()).URL()
	p := d.StartPDP(url, t.TempDir())
	d.Push(p, "cart", "shop.cart", allowsAdd)
	i := startIssuer(t, d, p, "beat", "one")
	wantIssuer[pdp.Issued](i)
	behind := d.StartPDP(url, t.TempDir())
	decide := func(q *testkit.PDP, after time.Duration) policy.Decision {
		t.Helper()
		service := pdp.New(pdp.Config{Source: q.Live, Now: func() time.Time { return time.Now().Add(after) }})
		decision, err := service.Authorize(t.Context(), testkit.Request("shop.cart", "Add"))
		if err != nil {
			t.Fatal(err)
		}
		return decision
	}
	if decision := decide(behind, 0); !decision.Allowed {
		t.Errorf("as it starts: %+v", decision)
	}
	// It does not get the new trust file, and so not the release.
	trust.Version, trust.CartSigners = 2, []string{"pay"}
	d.WriteTrust(trust)
	if err := p.Live.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	trust.CartSigners = []string{"pay", "cart"}
	trust.Version = 3
	d.WriteTrust(trust)
	if err := p.Live.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	second := d.Push(p, "pay", "shop.cart", "allow := false").Release
	i.round()
	waitStatus(t, behind, "shop.cart", func(s live.Status) bool {
		return s.Unproven != nil && strings.Contains(s.Unproven.Error(), "revision 2")
	})
	if decision := decide(behind, 16*time.Second); decision.Allowed || len(decision.Stale) != 1 {
		t.Errorf("by %v, after %v was the head for 16 s: %+v", decision.Versions, second.Version(), decision)
	}
	if decision := decide(p, 0); decision.Allowed || decision.Versions[0] != second.Version() {
		t.Errorf("%+v", decision)
	}
}

// waitStatus waits until the status of a namespace is as it shall be, which
// beacons change.
func waitStatus(t *testing.T, p *testkit.PDP, n policy.Namespace, is func(live.Status) bool) {
	t.Helper()
	beats, err := p.NATSConn.SubscribeSync("pdp.beat.shop.*")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = beats.Unsubscribe() }()
	for begun := time.Now(); time.Since(begun) < patience; {
		for _, s := range p.Live.Status() {
			if s.Namespace == n && is(s) {
				return
			}
		}
		_, _ = beats.NextMsg(50 * time.Millisecond)
	}
	t.Fatalf("the status of %s stays %+v", n, p.Live.Status())
}

func TestABeaconKeyThatIsTakenOutIssuesNoMore(t *testing.T) {
	d, p, _ := startBeacons(t)
	d.Push(p, "cart", "shop.cart", allowsAdd)
	i := startIssuer(t, d, p, "beat", "one")
	wantIssuer[pdp.Issued](i)
	replace := func(o testkit.TrustOptions) {
		t.Helper()
		d.WriteTrust(o)
		if err := p.Live.SetTrust(d.Trust()); err != nil {
			t.Fatal(err)
		}
		i.round()
	}
	replace(testkit.TrustOptions{Version: 2, Beacons: []string{"beat2"}})
	if e := wantIssuer[pdp.IssueFailed](i); policy.KindOf(e.Err) != policy.Denied || !strings.Contains(e.Err.Error(), `"beat"`) {
		t.Errorf("%+v", e)
	}
	none[pdp.Issued](i)
	if _, err := i.Confirm(t.Context(), "shop.cart"); policy.KindOf(err) != policy.Unavailable {
		t.Errorf("confirmed: %v", err)
	}
	replace(testkit.TrustOptions{Version: 3, Beacons: []string{"beat"}})
	wantIssuer[pdp.Issuing](i)
	// What the trust file does not open any more is no head.
	begun := time.Now()
	replace(testkit.TrustOptions{Version: 4, Beacons: []string{"beat"}, CartSigners: []string{"pay"}})
	if b := newest(t, d, p.NATSConn, "shop_cart"); b.Time().After(begun) {
		t.Errorf("a beacon of %v names %v", b.Time(), b.Heads())
	}
	wantIssuer[pdp.HeadDoubted](i)
	// And what it opens again is one.
	begun = time.Now()
	replace(testkit.TrustOptions{Version: 5, Beacons: []string{"beat"}, CartSigners: []string{"pay", "cart"}})
	if b := newest(t, d, p.NATSConn, "shop_cart"); b.Time().Before(begun.Truncate(time.Millisecond)) {
		t.Errorf("no beacon since the key is back")
	}
}

// Whoever has an older trust file than the one that was pushed may not open what
// is the head, and does not say that the one before is.
func TestAnIssuerSaysNothingWhileItsTrustFileIsNotTheNewest(t *testing.T) {
	d := testkit.NewDomain(t)
	trust := func(version uint64) testkit.TrustOptions {
		return testkit.TrustOptions{Version: version, Beacons: []string{"beat"}, Roots: []string{"ann"}}
	}
	d.WriteTrust(trust(1))
	p := d.StartPDP(testkit.NATS(t, t.TempDir()).URL(), t.TempDir())
	d.Push(p, "cart", "shop.cart", allowsAdd)
	i := startIssuer(t, d, p, "beat", "one")
	wantIssuer[pdp.Issued](i)
	// It was pushed through another PDP, and does not arrive.
	if err := p.Store.AnnounceTrust(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	if e := roundsUntil[pdp.IssueFailed](i); policy.KindOf(e.Err) != policy.Unavailable || !strings.Contains(e.Err.Error(), "version 3 of the trust file was pushed") {
		t.Errorf("%+v", e)
	}
	if _, err := i.Confirm(t.Context(), "shop.cart"); policy.KindOf(err) != policy.Unavailable {
		t.Errorf("confirmed: %v", err)
	}
	before := newest(t, d, p.NATSConn, "shop_cart")
	i.round()
	if b := newest(t, d, p.NATSConn, "shop_cart"); !b.Time().Equal(before.Time()) {
		t.Errorf("a beacon of %v", b.Time())
	}
	// It was forged: what is pushed then takes its place.
	if _, err := d.PAP(p).PushTrust(t.Context(), d.SignTrust(trust(2), "ann")); err != nil {
		t.Fatal(err)
	}
	roundsUntil[pdp.Issued](i)
	if b := newest(t, d, p.NATSConn, "shop_cart"); !b.Time().After(before.Time()) || b.Trust() != 2 {
		t.Errorf("no beacon since another was pushed: the newest is of %v, by version %d", b.Time(), b.Trust())
	}
}

// A trust file comes, and a release by a key that only it lists, while a tick
// waits to be committed.
func TestABeaconNamesNoHeadThatWasReadByAnOlderTrustFile(t *testing.T) {
	d, p, _ := startBeacons(t)
	first := d.Push(p, "cart", "shop.cart", "allow := false").Release
	var looks atomic.Int64 // until the last look at the clock before the tick is committed
	var released time.Time
	var second policy.Version
	issued := make(chan pdp.Event, 100)
	i, err := pdp.NewIssuer(pdp.IssuerConfig{
		Live: p.Live, Store: p.Store, Key: d.Signer("beat"), Name: "one",
		Now: func() time.Time {
			if looks.Add(-1) == 0 {
				d.WriteTrust(testkit.TrustOptions{Version: 2, Beacons: []string{"beat", "beat2"}, CartSigners: []string{"cart", "pay"}})
				if err := p.Live.SetTrust(d.Trust()); err != nil {
					t.Error(err)
				}
				second = d.Push(p, "pay", "shop.cart", "allow := true").Release.Version()
				released = time.Now()
			}
			return time.Now()
		},
		After:  func(time.Duration) <-chan time.Time { return nil },
		Events: func(e pdp.Event) { issued <- e },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { _ = i.Run(ctx) }) // ends with ctx
	defer work.Wait()
	defer cancel()
	for done := false; !done; { // it looks at the clock no more
		select {
		case e := <-issued:
			_, done = e.(pdp.Issued)
		case <-time.After(patience):
			t.Fatal("nothing was issued")
		}
	}
	looks.Store(1)
	note, err := i.Confirm(t.Context(), "shop.cart")
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Trust().OpenBeacon(note)
	if err != nil {
		t.Fatal(err)
	}
	if head, _ := b.Head("shop.cart"); head != second {
		t.Errorf("a beacon of %s names %v (the first was %v), but %v was released at %s", b.Time(), head, first.Version(), second, released)
	}
}
