package jetstream_test

import (
	"context"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/policy"
)

// Whoever may ask one question can have its answer delivered to every client, as
// often as it likes.
func TestAFloodOfMisdeliveredAnswersIsCountedAndFillsNoLog(t *testing.T) {
	const flood = 900
	g := guard(t, jetstream.Accounts{})
	mustPut(t, g.store, pay, note(pay, 1), []byte("of pay"), 0)
	seq := mustPut(t, g.store, cart, note(cart, 1), []byte("a"), 0)
	victim, thief := g.connect(t, "cart-1"), g.connect(t, "pay-1")
	clock := newClock()
	f := startFollower(t, "", jetstream.FollowConfig{Conn: victim.Conn, As: jetstream.Client, Namespaces: cartOnly, After: clock.after}, nil)
	f.wantOffer(t, note(cart, 1), []byte("a"))
	f.wantSynced(t)

	const question = "ask.boutique_pay.head"
	misdeliver := func(n int) {
		t.Helper()
		for range n {
			if err := thief.PublishRequest(question, "hear.boutique_cart.head", nil); err != nil {
				t.Fatal(err)
			}
		}
		thief.answer(t, question, "") // which comes after the others were answered
	}
	misdeliver(1)
	// The first one is told of at once, and none of the others before the pause is over.
	if e := wantEvent[jetstream.Ignored](t, f.events, nil); e.More != 0 || e.Subject != "hear.boutique_cart.head" || policy.KindOf(e.Err) != policy.Denied {
		t.Errorf("ignored %+v", e)
	}
	misdeliver(flood)
	// They came before this one, over the same connection.
	mustPut(t, g.store, cart, note(cart, 2), []byte("b"), seq)
	f.wantOffer(t, note(cart, 2), []byte("b"))
	for _, e := range drain(f.events) {
		if e, ok := e.(jetstream.Ignored); ok {
			t.Errorf("told at once of %+v", e)
		}
	}
	for told := 0; told < flood; {
		clock.fire(t, func(d time.Duration) bool { return d == 5*time.Second })
		e := wantEvent[jetstream.Ignored](t, f.events, nil)
		if told += 1 + e.More; told > flood {
			t.Errorf("%d of %d were counted", told, flood)
		}
	}
	// What is not told of yet is told when the follower ends.
	misdeliver(3)
	mustPut(t, g.store, cart, note(cart, 3), []byte("c"), headSeq(t, g.store, cart))
	f.wantOffer(t, note(cart, 3), []byte("c"))
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	last := 0
	for _, e := range drain(f.events) {
		if e, ok := e.(jetstream.Ignored); ok {
			last += 1 + e.More
		}
	}
	if last != 3 {
		t.Errorf("%d of the last 3 were told of", last)
	}
}

// The head of a guardrail, which all may read, can be delivered to all as often as
// one of them likes: where it belongs, and genuine. That costs bandwidth and nothing
// else.
func TestAHeadThatIsDeliveredAgainAndAgainIsTakenOnce(t *testing.T) {
	g := guard(t, jetstream.Accounts{})
	seq := mustPut(t, g.store, shop, note(shop, 1), random(1, jetstream.MaxInline), 0)
	victim, thief := g.connect(t, "cart-1"), g.connect(t, "pay-1")
	f := startFollower(t, "", jetstream.FollowConfig{Conn: victim.Conn, As: jetstream.Client, Namespaces: []policy.Namespace{cart, shop}, After: never}, nil)
	f.wantOffer(t, note(shop, 1), random(1, jetstream.MaxInline))
	f.wantSynced(t)
	wantEvent(t, f.events, func(e jetstream.Offered) bool { return e.Namespace == shop })
	received := victim.Stats().InBytes
	const question, again = "ask.boutique.head", 200
	for range again {
		if err := thief.PublishRequest(question, "hear.boutique.head", nil); err != nil {
			t.Fatal(err)
		}
	}
	thief.answer(t, question, "") // which comes after the others were answered
	mustPut(t, g.store, shop, note(shop, 2), []byte("two"), seq)
	f.wantOffer(t, note(shop, 2), []byte("two"))
	if got := victim.Stats().InBytes - received; got < again*jetstream.MaxInline {
		t.Errorf("only %d bytes came", got)
	}
	for _, e := range drain(f.events) {
		switch e := e.(type) {
		case jetstream.HeadSeen:
			if e.Seq == seq {
				t.Errorf("taken again: %+v", e)
			}
		case jetstream.Ignored:
			t.Errorf("told of %+v", e)
		}
	}
}

// So can the newest beacon of a guardrail. It is verified once.
func TestABeaconThatIsDeliveredAgainAndAgainIsHandedOnOnce(t *testing.T) {
	g := guard(t, jetstream.Accounts{})
	victim, thief := g.connect(t, "cart-1"), g.connect(t, "pay-1")
	beats := make(chan string, 10_000)
	f := startFollower(t, "", jetstream.FollowConfig{
		Conn: victim.Conn, As: jetstream.Client, Namespaces: []policy.Namespace{cart, shop}, After: never,
		Beacon: func(_ context.Context, _ policy.Namespace, beacon []byte) error { beats <- string(beacon); return nil },
	}, nil)
	f.wantSynced(t)
	put := func(beacon string) {
		t.Helper()
		if err := g.store.PutBeacons(t.Context(), []jetstream.Beacon{{Namespace: shop, Note: []byte(beacon)}}); err != nil {
			t.Fatal(err)
		}
	}
	put("one")
	if got := receive(t, beats, "the first beacon"); got != "one" {
		t.Fatalf("got %q", got)
	}
	received := victim.Stats().InMsgs
	const question, again = "ask.boutique.beat", 300
	for range again {
		// One by one, so that they do not take each other's place where they wait.
		if err := thief.PublishRequest(question, "hear.boutique.beat", nil); err != nil {
			t.Fatal(err)
		}
		thief.answer(t, question, "")
	}
	put("two")
	if got := receive(t, beats, "the second beacon"); got != "two" {
		t.Errorf("%q was handed on again", got)
	}
	if n := victim.Stats().InMsgs - received; n < again {
		t.Errorf("only %d came again", n)
	}
}

// A question to a PDP may say nothing of where the answer is to go.
func TestAFloodOfQuestionsWithoutAPlaceForTheAnswerFillsNoLog(t *testing.T) {
	const flood = 300
	g := guard(t, jetstream.Accounts{})
	clock, events := newClock(), make(chan jetstream.Event, 10_000)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- jetstream.ServeConfirm(ctx, jetstream.ConfirmConfig{
			Conn: g.pdp.Conn, Domain: domain, After: clock.after, Events: func(e jetstream.Event) { events <- e },
			Confirm: func(context.Context, policy.Namespace) ([]byte, error) { return []byte("a beacon"), nil },
		})
	}()
	defer stop()
	thief := g.connect(t, "pay-1")
	answered := func() {
		t.Helper()
		if _, err := jetstream.Confirm(t.Context(), thief.Conn, jetstream.Client, domain, pay); err != nil {
			t.Fatal(err)
		}
	}
	answered() // it is there
	for range flood {
		if err := thief.Publish("ask.boutique_pay.confirm.head", nil); err != nil {
			t.Fatal(err)
		}
	}
	answered() // which comes after the others
	stop()
	if err := receive(t, served, "the end"); err != nil {
		t.Error(err)
	}
	told, times := 0, 0
	for _, e := range drain(events) {
		if e, ok := e.(jetstream.Ignored); ok {
			told, times = told+1+e.More, times+1
		}
	}
	if told != flood || times > 2 {
		t.Errorf("of %d questions %d were told of, %d times", flood, told, times)
	}
}
