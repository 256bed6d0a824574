package jetstream_test

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/natsserver"
	"github.com/microwall/microwall/policy"
)

// reader is a log and what it has taken in its reading.
type reader struct {
	*jetstream.Log
	store  *jetstream.Store
	events chan jetstream.Event
	stop   func() error
	hold   chan struct{} // if not nil, take waits for it

	mu    sync.Mutex
	heads map[policy.Namespace]string
	order []string
}

func startLog(t *testing.T, nc *nats.Conn, issuer string, change ...func(*reader, *jetstream.LogConfig)) *reader {
	t.Helper()
	store, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: nc, Domain: domain})
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{store: store, events: make(chan jetstream.Event, 10_000), heads: map[policy.Namespace]string{}}
	c := jetstream.LogConfig{Store: store, Issuer: issuer, Begin: r.begin, Take: r.take, Events: func(e jetstream.Event) { r.events <- e }}
	for _, f := range change {
		f(r, &c)
	}
	if r.Log, err = jetstream.NewLog(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		return receive(t, done, "the end of the log")
	})
	t.Cleanup(func() { _ = r.stop() })
	return r
}

func (r *reader) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.heads)
}

func (r *reader) take(ns policy.Namespace, note []byte) {
	if r.hold != nil {
		<-r.hold
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heads[ns] = string(note)
	r.order = append(r.order, string(note))
}

// tick commits a tick, of issuers after the last one that it has read or of
// anybody.
func (r *reader) tick(ctx context.Context, issues bool, at func(time.Time)) error {
	if !issues {
		return r.Tick(ctx, nil, at)
	}
	last, err := r.LastTick(ctx)
	if err != nil {
		return err
	}
	return r.Tick(ctx, &last, at)
}

const issues, confirms = true, false

// headsAt returns the heads at a tick.
func (r *reader) headsAt(t *testing.T, issues bool) map[policy.Namespace]string {
	t.Helper()
	var heads map[policy.Namespace]string
	begun := time.Now()
	at := func(since time.Time) {
		if since.Before(begun) || since.After(time.Now()) {
			t.Errorf("a tick begun at %v says that it is since %v", begun, since)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		heads = maps.Clone(r.heads)
	}
	err := r.tick(t.Context(), issues, at)
	for issues && policy.KindOf(err) == policy.Conflict && time.Since(begun) < patience {
		err = r.tick(t.Context(), issues, at) // what it followed was in another stream
	}
	if err != nil {
		t.Fatalf("%v; %s", err, story(drain(r.events)))
	}
	return heads
}

func wantHeads(t *testing.T, got map[policy.Namespace]string, want ...string) {
	t.Helper()
	all := map[policy.Namespace]string{}
	for _, note := range want {
		name, _, _ := strings.Cut(note, " ")
		all[policy.Namespace(name)] = note
	}
	if !maps.Equal(got, all) {
		t.Errorf("heads are %v, want %v", got, all)
	}
}

func TestATickComesAfterEverythingThatWasReleasedBeforeIt(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	mustPut(t, s, shop, note(shop, 1), nil, 0)
	after := mustPut(t, s, cart, note(cart, 1), random(1, 100), 0)
	one, two := startLog(t, connect(t, url), "one"), startLog(t, connect(t, url), "two")
	for _, r := range []*reader{one, two} {
		wantHeads(t, r.headsAt(t, confirms), note(shop, 1), note(cart, 1))
	}
	// Two who push and two who read, at the same time.
	var work sync.WaitGroup
	for i, r := range []*reader{one, two} {
		work.Go(func() {
			ns, after := shop+"."+policy.Namespace(rune('a'+i)), uint64(0)
			for n := 1; n <= 150; n++ { // more than are kept
				after = mustPut(t, s, ns, note(ns, n), nil, after)
				if got := r.headsAt(t, confirms)[ns]; got != note(ns, n) {
					t.Errorf("at a tick after %q was released, %q is the head", note(ns, n), got)
				}
			}
		})
	}
	work.Wait()
	mustPut(t, s, cart, note(cart, 2), nil, after)
	wantHeads(t, one.headsAt(t, issues), note(shop, 1), note(cart, 2), note(shop+".a", 150), note(shop+".b", 150))
	// Each in its order, and once.
	last := map[string]int{}
	for _, text := range one.order {
		name, number, _ := strings.Cut(text, " ")
		n, err := strconv.Atoi(number)
		if err != nil || n <= last[name] {
			t.Fatalf("%q came after number %d", text, last[name])
		}
		last[name] = n
	}
	if err := one.stop(); err != nil {
		t.Error(err)
	}
	for _, e := range drain(one.events) {
		t.Errorf("event %T%+v", e, e)
	}
}

func TestOfTwoTicksAtOnceOneGetsThrough(t *testing.T) {
	url := serve(t).URL()
	readers := []*reader{startLog(t, connect(t, url), "one"), startLog(t, connect(t, url), "two")}
	for round := range 20 {
		errs := make([]error, 2)
		for _, r := range readers { // both know the last one
			if _, err := r.LastTick(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.headsAt(t, confirms)
		}
		var work sync.WaitGroup
		for i, r := range readers {
			work.Go(func() { errs[i] = r.tick(t.Context(), issues, func(time.Time) {}) })
		}
		work.Wait()
		won := 0
		for i, err := range errs {
			if err == nil {
				won++
				readers[i].headsAt(t, confirms)
			} else {
				wantKind(t, err, policy.Conflict)
			}
		}
		// One may have read the other's tick before it began, and follows it.
		if won == 0 {
			t.Fatalf("round %d: %v", round, errs)
		}
	}
	if err := readers[0].tick(t.Context(), issues, func(time.Time) {}); err != nil {
		readers[0].headsAt(t, confirms)
		if err := readers[0].tick(t.Context(), issues, func(time.Time) {}); err != nil {
			t.Fatal(err)
		}
	}
	for i, r := range readers {
		r.headsAt(t, confirms)
		if last, err := r.LastTick(t.Context()); err != nil || last.Issuer != "one" || last.Own != (i == 0) || time.Since(last.At) > patience {
			t.Errorf("reader %d: %+v, %v", i, last, err)
		}
	}
	// One that comes later knows its own by name only.
	for name, own := range map[string]bool{"one": true, "three": false} {
		r := startLog(t, connect(t, url), name)
		if last, err := r.LastTick(t.Context()); err != nil || last.Issuer != "one" || last.Own != own || time.Since(last.At) > patience {
			t.Errorf("%s: %+v, %v", name, last, err)
		}
	}
	// Who does not issue leaves nothing.
	for i, want := range []string{"one", ""} {
		if err := readers[1-i].Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, r := range readers {
			r.headsAt(t, confirms)
			if last, err := r.LastTick(t.Context()); err != nil || last.Issuer != want {
				t.Errorf("%+v, %v", last, err)
			}
		}
	}
}

// Whoever was frozen between looking who issues and issuing, or has read the
// stream again in between, follows what he saw, and not what came since.
func TestATickFollowsTheOneThatWasLookedAt(t *testing.T) {
	url := serve(t).URL()
	one, two := startLog(t, connect(t, url), "one"), startLog(t, connect(t, url), "two")
	one.headsAt(t, issues)
	seen, err := one.LastTick(t.Context())
	if err != nil || !seen.Own {
		t.Fatalf("%+v, %v", seen, err)
	}
	two.headsAt(t, issues)
	for _, again := range []func(){func() {}, one.Again} {
		again()
		one.headsAt(t, confirms) // it has read what two did
		wantKind(t, one.Tick(t.Context(), &seen, func(time.Time) { t.Error("issued over another") }), policy.Conflict)
	}
	if last, err := one.LastTick(t.Context()); err != nil || last.Issuer != "two" {
		t.Errorf("%+v, %v", last, err)
	}
}

// Whoever reads a tick from before knows how long ago it was, whatever the clocks
// of all of them say.
func TestClocksThatAreOffDoNotMakeATickOlderOrYounger(t *testing.T) {
	url := serve(t).URL()
	one := startLog(t, connect(t, url), "one")
	one.headsAt(t, issues)
	ticked := time.Now()
	for _, off := range []time.Duration{5 * time.Minute, -5 * time.Minute, 0} {
		now := func() time.Time { return time.Now().Add(off) }
		r := startLog(t, connect(t, url), "two", func(_ *reader, c *jetstream.LogConfig) { c.Now = now })
		for range 2 { // the first time it asks the broker
			last, err := r.LastTick(t.Context())
			if age, most := now().Sub(last.At), time.Since(ticked)+time.Second; err != nil || last.Issuer != "one" || age < 0 || age > most {
				t.Errorf("a clock that is %s off: %+v is from %s ago, it was %s at most, %v", off, last, age, most, err)
			}
			if err := r.Tick(t.Context(), nil, func(time.Time) {}); err != nil {
				t.Fatal(err)
			}
			if d := r.Ahead() - off; d.Abs() > 5*time.Second || off == 0 && d != 0 {
				t.Errorf("a clock that is %s off: it is %s ahead", off, r.Ahead())
			}
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	}
}

func TestTheLogIsReadAgainAfterTheBrokerWasAway(t *testing.T) {
	dir := t.TempDir()
	server := serveAt(t, dir, natsserver.AnyPort)
	port := portOf(t, server.URL())
	r := startLog(t, connect(t, server.URL()), "one")
	after := mustPut(t, r.store, cart, note(cart, 1), nil, 0)
	wantHeads(t, r.headsAt(t, issues), note(cart, 1))
	for n := 2; n < 4; n++ {
		server.Shutdown()
		wantEvent[jetstream.ReadAgain](t, r.events, nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		wantKind(t, r.tick(ctx, issues, func(time.Time) { t.Error("ticked without a broker") }), policy.Unavailable)
		server = serveAt(t, dir, port)
		// By somebody who was there first.
		after = mustPut(t, openStore(t, server.URL()), cart, note(cart, n), nil, after)
		wantHeads(t, r.headsAt(t, issues), note(cart, n))
	}
}

func TestAStreamThatWasMadeAnewIsReadFromItsBeginning(t *testing.T) {
	url := serve(t).URL()
	r := startLog(t, connect(t, url), "one")
	for n, after := 1, uint64(0); n <= 20; n++ {
		after = mustPut(t, r.store, cart, note(cart, n), nil, after)
	}
	wantHeads(t, r.headsAt(t, issues), note(cart, 20))
	for n := range 3 {
		if err := admin(t, url).DeleteStream(t.Context(), "KV_policy"); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, url) // makes it
		if n == 2 {
			// It has come further than the one before had.
			for m, after := 1, uint64(0); m <= 50; m++ {
				after = mustPut(t, s, shop+".more", note(shop+".more", m), nil, after)
			}
			wantHeads(t, r.headsAt(t, issues), note(shop+".more", 50))
			break
		}
		mustPut(t, s, shop, note(shop, n), nil, 0)
		wantHeads(t, r.headsAt(t, issues), note(shop, n))
	}
}

// A server whose disk was full has counted messages that it does not have.
func TestTicksBeginThoughTheStreamHasCountedFurtherThanItsMessages(t *testing.T) {
	url := serve(t).URL()
	openStore(t, url)
	api := admin(t, url)
	stream, err := api.Stream(t.Context(), "KV_policy")
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	if err := api.DeleteStream(t.Context(), "KV_policy"); err != nil {
		t.Fatal(err)
	}
	config.FirstSeq = 1000
	if _, err := api.CreateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	r := startLog(t, connect(t, url), "one")
	wantHeads(t, r.headsAt(t, issues))
	mustPut(t, r.store, cart, note(cart, 1), nil, 0)
	wantHeads(t, r.headsAt(t, confirms), note(cart, 1))
}

func TestHeadsThatWereDroppedBeforeTheyWereReadAreNoticed(t *testing.T) {
	url := serve(t).URL()
	hold := make(chan struct{})
	r := startLog(t, connect(t, url), "one", func(r *reader, _ *jetstream.LogConfig) { r.hold = hold })
	if _, err := r.LastTick(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, after := openStore(t, url), uint64(0)
	put := func(to int) {
		for n := 1; n <= to; n++ {
			after = mustPut(t, s, cart, note(cart, n), nil, after)
		}
	}
	// More than wait in the client and are kept in the stream.
	put(300)
	ticked := make(chan map[policy.Namespace]string, 1)
	go func() { ticked <- r.headsAt(t, confirms) }()
	close(hold)
	wantHeads(t, receive(t, ticked, "the tick"), note(cart, 300))
	if n := len(r.order); n >= 300 {
		t.Errorf("%d heads were read; none was dropped", n)
	}
}

// Few heads are kept, so that most are gone before they are read.
func TestTicksAmongReleasesThatAreHardlyKept(t *testing.T) {
	url := serve(t).URL()
	if _, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, url), Domain: domain, Keep: jetstream.MinKeep}); err != nil {
		t.Fatal(err)
	}
	r := startLog(t, connect(t, url), "one")
	s := openStore(t, url)
	var work sync.WaitGroup
	for i := range 4 {
		work.Go(func() {
			ns, after := shop+"."+policy.Namespace(rune('a'+i)), uint64(0)
			for n := 1; n <= 100; n++ {
				after = mustPut(t, s, ns, note(ns, n), nil, after)
				if n%10 > 0 {
					continue
				}
				if got := r.headsAt(t, confirms)[ns]; got != note(ns, n) {
					t.Errorf("at a tick after %q was released, %q is the head", note(ns, n), got)
				}
			}
		})
	}
	work.Wait()
}

func TestWhatIsNoHeadAndNoTickIsPassedBy(t *testing.T) {
	url := serve(t).URL()
	r := startLog(t, connect(t, url), "one")
	api := admin(t, url)
	mustPut(t, r.store, cart, note(cart, 1), nil, 0)
	forged := map[string]string{
		"$KV.policy.boutique.boutique_cart.head":  "note\x00Xwhat is this",
		"$KV.policy.boutique.Boutique.head":       note(cart, 9),
		"$KV.policy.other.other_cart.head":        note(cart, 9),
		"$KV.policy.boutique.-trust.head":         "a trust file",
		"$KV.policy.boutique.-tick.head":          "no tick",
		"$KV.policy.boutique.-confirm.head":       `{"issuer":"` + strings.Repeat("x", 5000) + `","nonce":"1"}`,
		"$KV.policy.boutique.-something.head":     "unknown",
		"$KV.policy.boutique.boutique_other.head": "",
	}
	for subject, text := range forged {
		if _, err := api.Publish(t.Context(), subject, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	wantHeads(t, r.headsAt(t, confirms), note(cart, 1))
	for range 3 {
		wantEvent[jetstream.Ignored](t, r.events, nil)
	}
	if last, err := r.LastTick(t.Context()); err != nil || last.Issuer != "unknown" || last.Own {
		t.Errorf("%+v, %v", last, err)
	}
	// It is followed like another.
	wantHeads(t, r.headsAt(t, issues), note(cart, 1))
}

func TestALogWithoutAStoreIsRefused(t *testing.T) {
	_, err := jetstream.NewLog(jetstream.LogConfig{})
	wantKind(t, err, policy.BadRequest, "no store")
	s := openStore(t, serve(t).URL())
	_, err = jetstream.NewLog(jetstream.LogConfig{Store: s, Take: func(policy.Namespace, []byte) {}, Issuer: strings.Repeat("x", 1000)})
	wantKind(t, err, policy.BadRequest, "limit")
}
