package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/natsserver"
	"github.com/microwall/microwall/policy"
)

var cartOnly = []policy.Namespace{cart}

// never is a clock on which nothing is ever due: what arrives was pushed, or
// asked for because of a connection.
func never(time.Duration) <-chan time.Time { return nil }

func TestWhatIsPutIsOffered(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	small, large := random(1, 16<<10), random(2, 2*jetstream.ChunkSize+1)
	seq := mustPut(t, s, cart, note(cart, 1), small, 0)
	f := startFollower(t, url, jetstream.FollowConfig{Namespaces: cartOnly, FetchJitter: -1}, nil)
	f.wantOffer(t, note(cart, 1), small)
	f.wantSynced(t)
	seq = mustPut(t, s, cart, note(cart, 2), large, seq)
	f.wantOffer(t, note(cart, 2), large)
	seq = mustPut(t, s, cart, note(cart, 3)+" retired", nil, seq)
	f.wantOffer(t, note(cart, 3)+" retired", nil)
	mustPut(t, s, cart, note(cart, 4), small, seq)
	f.wantOffer(t, note(cart, 4), small)

	seen := wantEvent(t, f.events, func(e jetstream.HeadSeen) bool { return e.Namespace == cart && e.Seq == seq })
	if !seen.Pushed {
		t.Error("a push was not seen as one")
	}
	if err := f.stop(); err != nil {
		t.Error(err)
	}
}

func TestANamespaceIsFollowedFromItsFirstRelease(t *testing.T) {
	for name, namespaces := range map[string][]policy.Namespace{"named": {shop, cart}, "all": nil} {
		t.Run(name, func(t *testing.T) {
			url := serve(t).URL()
			s := openStore(t, url)
			mustPut(t, s, shop, note(shop, 1), []byte("guardrail"), 0)
			f := startFollower(t, url, jetstream.FollowConfig{Namespaces: namespaces, List: s.Namespaces, After: never}, nil)
			f.wantOffer(t, note(shop, 1), []byte("guardrail"))
			f.wantSynced(t)
			mustPut(t, s, cart, note(cart, 1), []byte("first"), 0)
			f.wantOffer(t, note(cart, 1), []byte("first"))
		})
	}
}

func TestAFollowerOfAnEmptyBrokerIsSynced(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	startFollower(t, url, jetstream.FollowConfig{Namespaces: cartOnly}, nil).wantSynced(t)
	startFollower(t, url, jetstream.FollowConfig{List: s.Namespaces}, nil).wantSynced(t)
}

func TestAFollowerCatchesUpOnWhatItMissedWhileDisconnected(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	p := newProxy(t, url, "", nil)
	events := make(chan jetstream.Event, 1000)
	nc, err := jetstream.Connect(t.Context(), p.url(), jetstream.ConnectOptions{Events: func(e jetstream.Event) { events <- e }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	wantEvent[jetstream.Connected](t, events, nil)
	f := startFollower(t, url, jetstream.FollowConfig{Conn: nc, Namespaces: []policy.Namespace{cart, shop}, After: never}, nil)
	f.wantSynced(t)

	p.down.Store(true)
	p.cut()
	wantEvent[jetstream.Disconnected](t, events, nil)
	seq := mustPut(t, s, cart, note(cart, 1), []byte("one"), 0)
	mustPut(t, s, cart, note(cart, 2), []byte("two"), seq)
	p.down.Store(false)
	wantEvent[jetstream.Connected](t, events, nil)
	f.wantOffer(t, note(cart, 2), []byte("two"))
	mustPut(t, s, shop, note(shop, 1), []byte("pushes work again"), 0)
	f.wantOffer(t, note(shop, 1), []byte("pushes work again"))
}

func TestAFollowerOutlivesTheServer(t *testing.T) {
	dir := t.TempDir()
	server := serveAt(t, dir, natsserver.AnyPort)
	url, port := server.URL(), portOf(t, server.URL())
	mustPut(t, openStore(t, url), cart, note(cart, 1), []byte("one"), 0)
	f := startFollower(t, url, jetstream.FollowConfig{Namespaces: cartOnly, After: never}, nil)
	f.wantOffer(t, note(cart, 1), []byte("one"))

	server.Shutdown()
	serveAt(t, dir, port)
	s := openStore(t, url)
	mustPut(t, s, cart, note(cart, 2), []byte("two"), headSeq(t, s, cart))
	f.wantOffer(t, note(cart, 2), []byte("two"))
}

func TestAFollowerMayBeThereBeforeTheBroker(t *testing.T) {
	dir := t.TempDir()
	server := serveAt(t, dir, natsserver.AnyPort)
	url, port := server.URL(), portOf(t, server.URL())
	mustPut(t, openStore(t, url), cart, note(cart, 1), []byte("one"), 0)
	server.Shutdown()

	f := startFollower(t, url, jetstream.FollowConfig{Namespaces: cartOnly, After: never}, nil)
	if isSynced(f) {
		t.Error("synced without a broker")
	}
	serveAt(t, dir, port)
	f.wantOffer(t, note(cart, 1), []byte("one"))
	f.wantSynced(t)
}

func TestAFollowerMayBeThereBeforeTheStreams(t *testing.T) {
	url := serve(t).URL()
	clock := newClock()
	f := startFollower(t, url, jetstream.FollowConfig{Namespaces: cartOnly, After: clock.after}, nil)
	wantEvent(t, f.events, func(e jetstream.AskFailed) bool { return e.Namespace == cart })
	if isSynced(f) {
		t.Error("synced without an answer")
	}
	openStore(t, url)
	clock.fire(t, func(d time.Duration) bool { return d < time.Second })
	f.wantSynced(t)
}

func TestGarbageOnThePushSubjectsIsIgnored(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	seq := mustPut(t, s, cart, note(cart, 1), []byte("one"), 0)
	f := startFollower(t, url, jetstream.FollowConfig{List: s.Namespaces, After: never}, nil)
	f.wantOffer(t, note(cart, 1), []byte("one"))
	wantEvent(t, f.events, func(e jetstream.Offered) bool { return e.Err == nil })
	nc := connect(t, url)
	for _, tt := range []struct {
		subject string
		data    []byte
	}{
		{"pdp.head.boutique.boutique_cart", nil},
		{"pdp.head.boutique.boutique_cart", []byte("\x00Ibundle")},
		{"pdp.head.boutique.boutique_cart", []byte("note\x00C12")},
		{"pdp.head.boutique.boutique_cart", make([]byte, 500_000)},
		{"pdp.head.boutique.other_cart", []byte("note")},
		{"pdp.head.boutique.UPPER", []byte("note")},
		{"pdp.head.boutique._", []byte("note")},
		{"pdp.head.boutique.boutique-", []byte("note")},
	} {
		if err := nc.PublishMsg(pushed(tt.subject, tt.data)); err != nil {
			t.Fatal(err)
		}
		if e := wantEvent[jetstream.Ignored](t, f.events, nil); e.Subject != tt.subject || e.Err == nil {
			t.Errorf("ignored %+v, want %s", e, tt.subject)
		}
	}
	// A note that nobody signed reaches the callback, and no further.
	if err := nc.PublishMsg(pushed("pdp.head.boutique.boutique_cart", []byte("unsigned"))); err != nil {
		t.Fatal(err)
	}
	if e := wantEvent[jetstream.Offered](t, f.events, nil); policy.KindOf(e.Err) != policy.Denied || e.Again {
		t.Errorf("offered %+v", e)
	}
	mustPut(t, s, cart, note(cart, 2), []byte("true"), seq)
	f.wantOffer(t, note(cart, 2), []byte("true"))
}

func TestGarbageAsTheHeadDoesNotStopAFollower(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	for i := range 10 {
		if _, err := admin(t, url).Publish(t.Context(), "$KV.policy.boutique.boutique_cart.head", fmt.Appendf(nil, "\x00%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	f := startFollower(t, url, jetstream.FollowConfig{Namespaces: cartOnly, After: never}, nil)
	wantEvent[jetstream.Ignored](t, f.events, nil)
	f.wantSynced(t)
	mustPut(t, s, cart, note(cart, 1), []byte("true"), damagedSeq(t, s))
	f.wantOffer(t, note(cart, 1), []byte("true"))
}

func TestAForgedPushDoesNotKeepTheTrueHeadOut(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	f := startFollower(t, url, jetstream.FollowConfig{Namespaces: cartOnly, After: never}, nil)
	f.wantSynced(t)
	nc := connect(t, url)
	// It claims to be the newest there ever was.
	forged := pushed("pdp.head.boutique.boutique_cart", []byte("forged"))
	forged.Header.Set(js.SequenceHeader, "18446744073709551615")
	var seq uint64
	for i := 1; i <= 20; i++ {
		if err := nc.PublishMsg(forged); err != nil {
			t.Fatal(err)
		}
		forged.Data = fmt.Appendf(nil, "forged %d", -i)
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		wantEvent(t, f.events, func(e jetstream.Offered) bool { return e.Err != nil })
		seq = mustPut(t, s, cart, note(cart, i), []byte{byte(i)}, seq)
		f.wantOffer(t, note(cart, i), []byte{byte(i)})
	}
}

func TestAReplayedOldHeadIsOfferedAndDoesNoHarm(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	first := mustPut(t, s, cart, note(cart, 1), []byte("one"), 0)
	mustPut(t, s, cart, note(cart, 2), []byte("two"), first)
	f := startFollower(t, url, jetstream.FollowConfig{Namespaces: cartOnly, After: never}, nil)
	f.wantOffer(t, note(cart, 2), []byte("two"))
	if err := connect(t, url).PublishMsg(pushed("pdp.head.boutique.boutique_cart", []byte(note(cart, 1)+"\x00Ione"))); err != nil {
		t.Fatal(err)
	}
	if e := wantEvent(t, f.events, func(e jetstream.Offered) bool { return e.Err != nil }); e.Again || !errors.Is(e.Err, errOld) {
		t.Errorf("the old head was %+v", e)
	}
}

// While one head is being offered, a newer and then an older one arrive: the
// newer is offered next.
func TestWhatArrivesDuringAnOfferIsNotLost(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	entered, leave := make(chan string, 10), make(chan struct{})
	f := startFollower(t, url, jetstream.FollowConfig{Namespaces: cartOnly, After: never}, func(note string) error {
		entered <- note
		<-leave
		return nil
	})
	defer close(leave)
	f.wantSynced(t)
	first := mustPut(t, s, cart, note(cart, 1), nil, 0)
	if got := receive(t, entered, "the first offer"); got != note(cart, 1) {
		t.Fatalf("offered %q", got)
	}
	second := mustPut(t, s, cart, note(cart, 2), []byte("two"), first)
	third := mustPut(t, s, cart, note(cart, 3), []byte("three"), second)
	// When the broker pushes what it has acknowledged is its own affair; so the
	// third is sent here as well, and behind it a late echo of the second, as a
	// deposed leader may send it.
	nc := connect(t, url)
	const subject = "pdp.head.boutique.boutique_cart"
	for _, m := range []struct {
		data string
		seq  uint64
	}{
		{note(cart, 3) + "\x00Ithree", third},
		{note(cart, 2) + "\x00Itwo", second},
		// What is too large is ignored as soon as it arrives, and says by that
		// that those before it have.
		{strings.Repeat("x", 500_000), 0},
	} {
		late := pushed(subject, []byte(m.data))
		late.Header.Set(js.SequenceHeader, fmt.Sprint(m.seq))
		if err := nc.PublishMsg(late); err != nil {
			t.Fatal(err)
		}
	}
	wantEvent(t, f.events, func(e jetstream.Ignored) bool { return policy.KindOf(e.Err) == policy.Exhausted })
	leave <- struct{}{}
	if got := receive(t, entered, "the second offer"); got != note(cart, 3) {
		t.Fatalf("%q was offered next, want the newest", got)
	}
	leave <- struct{}{}
}

func TestABundleOverTheLimitIsRefusedBeforeItIsFetched(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	clock := newClock()
	f := startFollower(t, url, jetstream.FollowConfig{Namespaces: cartOnly, MaxPacked: jetstream.ChunkSize + 10, FetchJitter: -1, After: clock.after}, func(string) error { return nil })
	f.wantSynced(t)
	var seq uint64
	for i, n := range []int{3 * jetstream.ChunkSize, jetstream.ChunkSize + 11} {
		seq = mustPut(t, s, cart, note(cart, i+1), random(uint64(n), n), seq)
		e := wantEvent[jetstream.Offered](t, f.events, nil)
		if e.Again || !strings.Contains(e.Err.Error(), "the limit is 524298") {
			t.Fatalf("%d bytes: %+v", n, e)
		}
	}
	mustPut(t, s, cart, note(cart, 3), random(3, jetstream.ChunkSize+10), seq)
	f.wantOffer(t, note(cart, 3), random(3, jetstream.ChunkSize+10))
}

func TestLargeBundlesAreFetchedWithJitterAndSmallOnesAtOnce(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	seq := mustPut(t, s, cart, note(cart, 1), random(1, jetstream.MaxInline), 0)
	clock := newClock()
	f := startFollower(t, url, jetstream.FollowConfig{Namespaces: cartOnly, Poll: time.Hour, FetchJitter: time.Second, After: clock.after}, nil)
	f.wantOffer(t, note(cart, 1), random(1, jetstream.MaxInline))
	mustPut(t, s, cart, note(cart, 2), random(2, jetstream.MaxInline+1), seq)
	// Not before the timer went off.
	wantEvent(t, f.events, func(e jetstream.HeadSeen) bool { return e.Seq > seq })
	if len(f.offers) > 0 {
		t.Error("fetched at once")
	}
	clock.fire(t, func(d time.Duration) bool { return d < time.Second })
	f.wantOffer(t, note(cart, 2), random(2, jetstream.MaxInline+1))
}

func TestWhatIsDroppedIsAskedFor(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	block, blocked := make(chan struct{}), make(chan struct{})
	unblock := sync.OnceFunc(func() { close(block) })
	var once sync.Once
	followed := connect(t, url)
	f := startFollower(t, url, jetstream.FollowConfig{Conn: followed, List: s.Namespaces, After: never, Events: func(e jetstream.Event) {
		if _, ok := e.(jetstream.Ignored); ok {
			// What a callback must not do.
			once.Do(func() { close(blocked); <-block })
		}
	}}, nil)
	defer unblock()
	f.wantSynced(t)
	nc := connect(t, url)
	flood := func(n int) {
		for range n {
			if err := nc.PublishMsg(pushed("pdp.head.boutique.NOBODY", nil)); err != nil {
				t.Fatal(err)
			}
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	flood(1)
	receive(t, blocked, "the first message")
	flood(5000)
	// Nothing more fits into the subscription, so this one is dropped as well;
	// the answer to a ping behind it says that it has been.
	mustPut(t, s, cart, note(cart, 1), []byte("dropped"), 0)
	if err := followed.Flush(); err != nil {
		t.Fatal(err)
	}
	unblock()
	wantEvent(t, f.events, func(e jetstream.SlowConsumer) bool { return strings.HasPrefix(e.Subject, "pdp.head.") && e.Dropped > 0 })
	f.wantOffer(t, note(cart, 1), []byte("dropped"))
}

func TestRunEndsWithItsContextEvenDuringAnOffer(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	mustPut(t, s, cart, note(cart, 1), random(1, 100_000), 0)
	entered := make(chan struct{})
	var once sync.Once
	// The fetch waits for a timer that never goes off.
	f := startFollower(t, url, jetstream.FollowConfig{Namespaces: cartOnly, After: never}, func(string) error {
		once.Do(func() { close(entered) })
		return nil
	})
	receive(t, entered, "the offer")
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	wantKind(t, f.Run(t.Context()), policy.Internal, "runs once")
}

func TestRunEndsWhenTheConnectionIsClosed(t *testing.T) {
	url := serve(t).URL()
	openStore(t, url)
	nc := connect(t, url)
	f, err := jetstream.NewFollower(jetstream.FollowConfig{Conn: nc, As: jetstream.PDP, Domain: domain, Namespaces: []policy.Namespace{cart, shop}, Offer: func(context.Context, []byte, func(context.Context) ([]byte, error)) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- f.Run(t.Context()) }()
	receive(t, f.Synced(), "the first answer")
	nc.Close()
	wantKind(t, receive(t, done, "the end of Run"), policy.Unavailable, "closed")

	f, err = jetstream.NewFollower(jetstream.FollowConfig{Conn: nc, As: jetstream.PDP, Domain: domain, Namespaces: cartOnly, Offer: func(context.Context, []byte, func(context.Context) ([]byte, error)) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	wantKind(t, f.Run(t.Context()), policy.Unavailable)
}

func TestAFollowerThatCannotWorkIsNotMade(t *testing.T) {
	nc := connect(t, serve(t).URL())
	taker := func(context.Context, []byte, func(context.Context) ([]byte, error)) error { return nil }
	for name, c := range map[string]jetstream.FollowConfig{
		"no connection":     {Domain: domain, Namespaces: cartOnly, Offer: taker},
		"no callback":       {Conn: nc, As: jetstream.PDP, Domain: domain, Namespaces: cartOnly},
		"no namespaces":     {Conn: nc, As: jetstream.PDP, Domain: domain, Offer: taker},
		"no kind":           {Conn: nc, Domain: domain, Namespaces: cartOnly, Offer: taker},
		"no domain":         {Conn: nc, As: jetstream.PDP, Namespaces: cartOnly, Offer: taker},
		"another domain":    {Conn: nc, As: jetstream.PDP, Domain: "other", Namespaces: cartOnly, Offer: taker},
		"wildcard":          {Conn: nc, As: jetstream.PDP, Domain: domain, Namespaces: []policy.Namespace{"boutique.>"}, Offer: taker},
		"negative interval": {Conn: nc, As: jetstream.PDP, Domain: domain, Namespaces: cartOnly, Offer: taker, Poll: -1},
	} {
		if _, err := jetstream.NewFollower(c); policy.KindOf(err) != policy.BadRequest || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
