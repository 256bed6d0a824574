package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/policy"
)

// trustFollow is a follower of the trust file, and what it was offered.
type trustFollow struct {
	*jetstream.TrustFollower
	version atomic.Uint64
	offered chan string
	events  chan jetstream.Event
}

// followTrust starts a follower from version 1 on, which takes what is called
// "trust N" as version N, and refuses anything else.
func followTrust(t *testing.T, nc *nats.Conn, as jetstream.Kind, after func(time.Duration) <-chan time.Time) *trustFollow {
	t.Helper()
	f := &trustFollow{offered: make(chan string, 1000), events: make(chan jetstream.Event, 1000)}
	f.version.Store(1)
	var err error
	f.TrustFollower, err = jetstream.NewTrustFollower(jetstream.TrustFollowConfig{
		Conn: nc, As: as, Domain: domain, After: after, Version: f.version.Load, Events: func(e jetstream.Event) { f.events <- e },
		Offer: func(note []byte) error {
			f.offered <- string(note)
			if string(note) != trustNote(f.version.Load()+1) {
				return errors.New("not to be believed")
			}
			f.version.Add(1)
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return f
}

func trustNote(version uint64) string { return fmt.Sprintf("trust %d", version) }

func (f *trustFollow) wants(t *testing.T, note string) {
	t.Helper()
	select {
	case got := <-f.offered:
		if got != note {
			t.Fatalf("offered %q, want %q", got, note)
		}
	case <-time.After(patience):
		t.Fatalf("%q was not offered", note)
	}
}

func (f *trustFollow) hasLooked(t *testing.T) {
	t.Helper()
	select {
	case <-f.Looked():
	case <-time.After(patience):
		t.Fatal("the broker was not asked")
	}
}

// putTrust stores a version, and announces it.
func putTrust(t *testing.T, s *jetstream.Store, version uint64) {
	t.Helper()
	storeTrust(t, s, version, trustNote(version))
	if err := s.AnnounceTrust(t.Context(), version); err != nil {
		t.Fatal(err)
	}
}

func storeTrust(t *testing.T, s *jetstream.Store, version uint64, note string) {
	t.Helper()
	if held, err := s.PutTrust(t.Context(), version, []byte(note)); err != nil || string(held) != note {
		t.Fatalf("stored %q, %v", held, err)
	}
}

func TestVersionsOfTheTrustFileArriveOneByOneAndInOrder(t *testing.T) {
	g := guard(t, jetstream.Accounts{})
	for v := uint64(2); v < 5; v++ {
		putTrust(t, g.store, v)
	}
	// A client has no more rights than it must have.
	f := followTrust(t, g.connect(t, "cart-1").Conn, jetstream.Client, never)
	f.hasLooked(t)
	for v := uint64(2); v < 5; v++ {
		f.wants(t, trustNote(v))
	}
	putTrust(t, g.store, 5)
	f.wants(t, trustNote(5))
	if v, err := g.store.NewestTrust(t.Context()); v != 5 || err != nil {
		t.Errorf("newest is %d, %v", v, err)
	}
	// The heads of namespaces know nothing of it.
	mustPut(t, g.store, cart, note(cart, 1), nil, 0)
	if all, err := g.store.Namespaces(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("namespaces %v, %v", all, err)
	}
	if err := g.store.Sweep(t.Context(), 1000*time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := g.store.Trust(t.Context(), 2); err != nil {
		t.Errorf("swept: %v", err)
	}
}

func TestAVersionOfTheTrustFileIsStoredOnce(t *testing.T) {
	s := openStore(t, serve(t).URL())
	putTrust(t, s, 2)
	putTrust(t, s, 2)
	held, err := s.PutTrust(t.Context(), 2, []byte("another"))
	if err != nil || string(held) != trustNote(2) {
		t.Errorf("there is %q now, %v", held, err)
	}
	// An older one that is announced late takes nobody back.
	putTrust(t, s, 4)
	putTrust(t, s, 3)
	if v, err := s.NewestTrust(t.Context()); v != 4 || err != nil {
		t.Errorf("newest is %d, %v", v, err)
	}
	_, err = s.Trust(t.Context(), 7)
	wantKind(t, err, policy.NotFound, "version 7")
	_, err = s.PutTrust(t.Context(), 8, make([]byte, jetstream.ChunkSize+1))
	wantKind(t, err, policy.Exhausted, "by hand")
	_, err = s.PutTrust(t.Context(), 8, nil)
	wantKind(t, err, policy.Exhausted)
}

// A PDP died between storing and announcing, or the announcement was lost.
func TestATrustFileThatNobodyAnnouncedIsFoundByThePoll(t *testing.T) {
	url := serve(t).URL()
	s, clock := openStore(t, url), newClock()
	f := followTrust(t, connect(t, url), jetstream.PDP, clock.after)
	f.hasLooked(t)
	clock.fire(t, func(d time.Duration) bool { return d < 10*time.Second }) // the second look of a start
	storeTrust(t, s, 2, trustNote(2))
	clock.fire(t, func(d time.Duration) bool { return d > 10*time.Second })
	f.wants(t, trustNote(2))
}

// A beacon tells of a version whose announcement was lost.
func TestATrustFileIsAskedForWhenThereIsReasonTo(t *testing.T) {
	url := serve(t).URL()
	s, clock := openStore(t, url), newClock()
	f := followTrust(t, connect(t, url), jetstream.PDP, clock.after)
	f.hasLooked(t)
	storeTrust(t, s, 2, trustNote(2))
	f.Ask()
	f.wants(t, trustNote(2))
}

// A client that may ask for the announcement can have the broker answer to where
// others hear it.
func TestAnAnnouncementThatIsDeliveredAgainHasNobodyAsk(t *testing.T) {
	g := guard(t, jetstream.Accounts{})
	putTrust(t, g.store, 2)
	victim, thief := g.connect(t, "cart-1"), g.connect(t, "pay-1")
	f := followTrust(t, victim.Conn, jetstream.Client, newClock().after)
	f.wants(t, trustNote(2))
	f.hasLooked(t)
	asked := victim.Stats().OutMsgs
	const question = "ask.-trust.head"
	for range 500 {
		if err := thief.PublishRequest(question, "hear.-trust.head", nil); err != nil {
			t.Fatal(err)
		}
		thief.answer(t, question, "") // which comes after the other was answered
	}
	if err := victim.Flush(); err != nil {
		t.Fatal(err)
	}
	if in := victim.Stats().InMsgs; in < 500 {
		t.Errorf("only %d messages reached the victim", in)
	}
	putTrust(t, g.store, 3)
	f.wants(t, trustNote(3))
	if n := victim.Stats().OutMsgs - asked; n > 10 {
		t.Errorf("it asked %d times", n)
	}
}

func TestAnnouncementsThatAreForgedLeadNowhere(t *testing.T) {
	url := serve(t).URL()
	s, nc, clock := openStore(t, url), connect(t, url), newClock()
	f := followTrust(t, connect(t, url), jetstream.PDP, clock.after)
	f.hasLooked(t)
	for _, forged := range []string{"", "version: 0x2\n", "version: 02\n", "version: 2", "version: -1\n", "version: 99999999999999999999\n", strings.Repeat("9", 1000)} {
		if err := nc.Publish("pdp.head."+domain+".-trust", []byte(forged)); err != nil {
			t.Fatal(err)
		}
		wantEvent(t, f.events, func(e jetstream.Ignored) bool { return strings.Contains(e.Err.Error(), "announces no version") })
		clock.fire(t, func(d time.Duration) bool { return d == 5*time.Second })
	}
	// One that is not there is looked for a few times, said, and forgotten.
	if err := nc.Publish("pdp.head."+domain+".-trust", []byte("version: 9\n")); err != nil {
		t.Fatal(err)
	}
	for said := false; !said; {
		clock.fire(t, func(time.Duration) bool { return true })
		for _, e := range drain(f.events) {
			e, ok := e.(jetstream.Ignored)
			said = said || ok && strings.Contains(e.Err.Error(), "version 9 of the trust file was announced, but version 2, which leads there, is not to be had")
		}
	}
	// What is stored there and not to be believed is refused, and stays where
	// it is until somebody acts.
	storeTrust(t, s, 2, "garbage")
	if err := s.AnnounceTrust(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	f.wants(t, "garbage")
	if v := f.version.Load(); v != 1 {
		t.Errorf("version %d is in force", v)
	}
}

func TestAFollowerOfTheTrustFileNeedsWhatItNeeds(t *testing.T) {
	nc := connect(t, serve(t).URL())
	for _, c := range []jetstream.TrustFollowConfig{
		{Domain: domain, Version: func() uint64 { return 1 }, Offer: func([]byte) error { return nil }},
		{Conn: nc, As: jetstream.PDP, Domain: domain, Offer: func([]byte) error { return nil }},
		{Conn: nc, As: jetstream.PDP, Domain: domain, Version: func() uint64 { return 1 }},
		{Conn: nc, Domain: domain, Version: func() uint64 { return 1 }, Offer: func([]byte) error { return nil }},
		{Conn: nc, As: jetstream.PDP, Domain: "a.b", Version: func() uint64 { return 1 }, Offer: func([]byte) error { return nil }},
	} {
		_, err := jetstream.NewTrustFollower(c)
		wantKind(t, err, policy.BadRequest)
	}
}

// Whoever could write once into the stream must not keep later versions from being
// announced.
func TestAnAnnouncementOfWhatIsNotStoredIsReplaced(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	announce := func(version, want uint64) {
		t.Helper()
		if err := s.AnnounceTrust(t.Context(), version); err != nil {
			t.Fatal(err)
		}
		if got, err := s.NewestTrust(t.Context()); err != nil || got != want {
			t.Errorf("version %d is announced, %v; want %d", got, err, want)
		}
	}
	announce(9, 9) // it is not there
	storeTrust(t, s, 2, trustNote(2))
	announce(2, 2)
	storeTrust(t, s, 3, trustNote(3))
	announce(3, 3)
	announce(2, 3)
}
