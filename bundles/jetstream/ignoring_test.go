package jetstream_test

import (
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
