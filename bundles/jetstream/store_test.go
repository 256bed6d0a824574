package jetstream_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/policy"
)

func TestWhatWasPutIsReadBack(t *testing.T) {
	s := openStore(t, serve(t).URL())
	var after uint64
	for i, tt := range []struct {
		name   string
		packed []byte
	}{
		{"one byte", []byte{1}},
		{"as large as fits into the head", random(1, jetstream.MaxInline)},
		{"one byte more", random(2, jetstream.MaxInline+1)},
		{"one chunk exactly", random(3, jetstream.ChunkSize)},
		{"one chunk and a byte", random(4, jetstream.ChunkSize+1)},
		{"the same chunk twice", bytes.Repeat(random(5, jetstream.ChunkSize), 2)},
		{"several chunks", random(6, 3*jetstream.ChunkSize+17)},
		{"retired", nil},
	} {
		after = mustPut(t, s, cart, note(cart, i), tt.packed, after)
		h, err := s.Head(t.Context(), cart)
		if err != nil || string(h.Note) != note(cart, i) || h.Seq != after || h.Namespace != cart || time.Since(h.Stored) > time.Minute {
			t.Fatalf("%s: head is %+v, %v", tt.name, h, err)
		}
		got, err := s.Bundle(t.Context(), h)
		if tt.packed == nil {
			wantKind(t, err, policy.NotFound, "retires")
		} else if err != nil || !bytes.Equal(got, tt.packed) {
			t.Fatalf("%s: bundle has %d bytes, want %d, %v", tt.name, len(got), len(tt.packed), err)
		}
	}
}

func TestHistoryIsNewestFirstAndAHundredLong(t *testing.T) {
	s := openStore(t, serve(t).URL())
	if h, err := s.History(t.Context(), cart); err != nil || len(h) != 0 {
		t.Fatalf("history of nothing is %v, %v", h, err)
	}
	var after uint64
	for i := range 103 {
		after = mustPut(t, s, cart, note(cart, i), []byte{byte(i)}, after)
		if i%50 == 0 {
			mustPut(t, s, shop, note(shop, i), []byte{1}, headSeq(t, s, shop))
		}
	}
	h, err := s.History(t.Context(), cart)
	if err != nil || len(h) != 100 {
		t.Fatalf("%d heads, %v", len(h), err)
	}
	for i := range h {
		if want := note(cart, 102-i); string(h[i].Note) != want {
			t.Fatalf("entry %d is %q, want %q", i, h[i].Note, want)
		}
	}
	if got, err := s.Bundle(t.Context(), h[99]); err != nil || !bytes.Equal(got, []byte{3}) {
		t.Errorf("oldest bundle is %v, %v", got, err)
	}
}

func headSeq(t *testing.T, s *jetstream.Store, ns policy.Namespace) uint64 {
	t.Helper()
	h, err := s.Head(t.Context(), ns)
	if err != nil && policy.KindOf(err) != policy.NotFound {
		t.Fatal(err)
	}
	return h.Seq
}

func TestNamespacesAreListedSorted(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	if all, err := s.Namespaces(t.Context()); err != nil || len(all) != 0 {
		t.Fatalf("an empty store lists %v, %v", all, err)
	}
	other, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, url), Domain: "other"})
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, other, "other.cart", "not of this domain", nil, 0)
	want := []policy.Namespace{"boutique", "boutique.a", "boutique.a-b.c", "boutique.cart"}
	for _, ns := range []policy.Namespace{want[2], want[0], want[3], want[1]} {
		mustPut(t, s, ns, "note", nil, 0)
	}
	if all, err := s.Namespaces(t.Context()); err != nil || !slices.Equal(all, want) {
		t.Fatalf("lists %v, %v", all, err)
	}
}

func TestANamespaceWithoutAReleaseSaysHowToMakeOne(t *testing.T) {
	_, err := openStore(t, serve(t).URL()).Head(t.Context(), cart)
	wantKind(t, err, policy.NotFound, "boutique.cart has no release", "microwall push")
}

func TestTwoPublishersRaceAndOneWins(t *testing.T) {
	url := serve(t).URL()
	stores := []*jetstream.Store{openStore(t, url), openStore(t, url)}
	var after uint64
	for round := range 20 {
		var wg sync.WaitGroup
		errs := make([]error, len(stores))
		seqs := make([]uint64, len(stores))
		for i, s := range stores {
			wg.Go(func() {
				seqs[i], errs[i] = s.Put(t.Context(), cart, fmt.Appendf(nil, "round %d author %d", round, i), random(7, 100_000), after)
			})
		}
		wg.Wait()
		winner := slices.Index(errs, nil)
		if winner < 0 || errs[1-winner] == nil {
			t.Fatalf("round %d: %v", round, errs)
		}
		wantKind(t, errs[1-winner], policy.Conflict, "somebody else released boutique.cart first", "microwall history")
		after = seqs[winner]
		if h, err := stores[0].Head(t.Context(), cart); err != nil || h.Seq != after || string(h.Note) != fmt.Sprintf("round %d author %d", round, winner) {
			t.Fatalf("round %d: head is %+v, %v", round, h, err)
		}
	}
	if h, err := stores[0].History(t.Context(), cart); err != nil || len(h) != 20 {
		t.Errorf("20 rounds made %d releases, %v", len(h), err)
	}
}

func TestAPutOnWhatIsNotTheHeadLoses(t *testing.T) {
	s := openStore(t, serve(t).URL())
	first := mustPut(t, s, cart, "first", nil, 0)
	second := mustPut(t, s, cart, "second", nil, first)
	mustPut(t, s, shop, "elsewhere", nil, 0)
	for _, after := range []uint64{0, first, second + 1, second + 100} {
		_, err := s.Put(t.Context(), cart, []byte("third"), nil, after)
		wantKind(t, err, policy.Conflict)
	}
	_, err := s.Put(t.Context(), "boutique.new", []byte("third"), nil, 3)
	wantKind(t, err, policy.Conflict)
	// Once more what was released already is the same release.
	for range 2 {
		if seq := mustPut(t, s, cart, "second", nil, first); seq != second {
			t.Errorf("released again as %d", seq)
		}
	}
	if seq := mustPut(t, s, cart, "first", nil, 0); seq != first {
		t.Errorf("released again as %d", seq)
	}
}

func TestALostAcknowledgementIsNoSecondRelease(t *testing.T) {
	for _, tt := range []struct {
		name string
		also bool // another author follows before the first one asks
	}{{"and nobody followed", false}, {"and somebody followed", true}} {
		t.Run(tt.name, func(t *testing.T) {
			url := serve(t).URL()
			direct := openStore(t, url)
			watch := connect(t, url)
			stored, err := watch.SubscribeSync("pdp.head.>")
			if err != nil {
				t.Fatal(err)
			}
			if err := watch.Flush(); err != nil {
				t.Fatal(err)
			}
			var p *proxy
			var once sync.Once
			p = newProxy(t, url, aHead, func() bool {
				once.Do(func() { p.muted.Store(true) }) // from here on no answer arrives
				return true
			})
			s := openStore(t, p.url())

			var wg sync.WaitGroup
			var seq uint64
			var putErr error
			wg.Go(func() { seq, putErr = s.Put(t.Context(), cart, []byte("mine"), random(8, 200_000), 0) })
			m, err := stored.NextMsg(patience)
			if err != nil {
				t.Fatal(err)
			}
			if tt.also {
				mustPut(t, direct, cart, "theirs", nil, headSeq(t, direct, cart))
			}
			p.muted.Store(false)
			p.cut()
			wg.Wait()
			if putErr != nil {
				t.Fatal("a release that was stored counts as failed:", putErr)
			}
			h, err := direct.History(t.Context(), cart)
			if err != nil {
				t.Fatal(err)
			}
			mine := h[len(h)-1]
			if string(mine.Note) != "mine" || mine.Seq != seq || m.Header.Get(js.SequenceHeader) != fmt.Sprint(seq) {
				t.Errorf("stored as %d, reported as %d", mine.Seq, seq)
			}
			if want := 1; !tt.also && len(h) != want || tt.also && len(h) != 2 {
				t.Errorf("%d releases", len(h))
			}
		})
	}
}

// So many follow before the first one asks that its release is not kept any more.
func TestALostAcknowledgementOfWhatIsNotKeptAnyMoreIsNoConflict(t *testing.T) {
	for _, tt := range []struct {
		name      string
		before    int // releases that were there
		followers int
		kind      policy.Kind
	}{
		{"the first release", 0, 2, policy.Unavailable},
		{"a later release", 3, 2, policy.Unavailable},
		{"it is just kept", 1, 1, policy.Internal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := serve(t).URL()
			direct := openKeeping(t, url, nil) // two
			var after uint64
			for i := range tt.before {
				after = mustPut(t, direct, cart, fmt.Sprint("before ", i), nil, after)
			}
			watch := connect(t, url)
			stored, err := watch.SubscribeSync("pdp.head.>")
			if err != nil {
				t.Fatal(err)
			}
			if err := watch.Flush(); err != nil {
				t.Fatal(err)
			}
			var p *proxy
			var once sync.Once
			p = newProxy(t, url, aHead, func() bool {
				once.Do(func() { p.muted.Store(true) }) // from here on no answer arrives
				return true
			})
			s := openStore(t, p.url())
			var wg sync.WaitGroup
			var putErr error
			wg.Go(func() { _, putErr = s.Put(t.Context(), cart, []byte("mine"), []byte("bundle"), after) })
			if _, err := stored.NextMsg(patience); err != nil {
				t.Fatal(err)
			}
			for i := range tt.followers {
				mustPut(t, direct, cart, fmt.Sprint("theirs ", i), nil, headSeq(t, direct, cart))
			}
			p.muted.Store(false)
			p.cut()
			wg.Wait()
			if tt.kind == policy.Internal {
				if putErr != nil {
					t.Error("a release that was stored counts as failed:", putErr)
				}
				return
			}
			wantKind(t, putErr, tt.kind, "not known any more whether this was released", "microwall history boutique.cart", "--keep")
			// The same again, by whoever is told so, changes nothing.
			_, err = direct.Put(t.Context(), cart, []byte("mine"), []byte("bundle"), after)
			wantKind(t, err, tt.kind, "not known any more")
			if h, err := direct.Head(t.Context(), cart); err != nil || string(h.Note) != fmt.Sprint("theirs ", tt.followers-1) {
				t.Errorf("head is %q, %v", h.Note, err)
			}
		})
	}
}

func TestARequestThatNeverArrivedIsMadeAgain(t *testing.T) {
	url := serve(t).URL()
	first := true
	var mu sync.Mutex
	p := newProxy(t, url, aHead, func() bool {
		mu.Lock()
		defer mu.Unlock()
		forward := !first
		first = false
		return forward
	})
	s := openStore(t, p.url())
	seq := mustPut(t, s, cart, "mine", []byte("bundle"), 0)
	h, err := s.History(t.Context(), cart)
	if err != nil || len(h) != 1 || h[0].Seq != seq {
		t.Fatalf("history is %v, %v", h, err)
	}
	if first {
		t.Error("nothing was lost")
	}
}

func TestWithoutABrokerNothingIsReleased(t *testing.T) {
	server := serve(t)
	s := openStore(t, server.URL())
	server.Shutdown()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := s.Put(ctx, cart, []byte("note"), []byte("small"), 0)
	wantKind(t, err, policy.Unavailable, "nothing was released")
	_, err = s.Put(ctx, cart, []byte("note"), random(9, 100_000), 0)
	wantKind(t, err, policy.Unavailable, "nothing was released")
	for name, read := range map[string]func() error{
		"head":       func() error { _, err := s.Head(ctx, cart); return err },
		"history":    func() error { _, err := s.History(ctx, cart); return err },
		"namespaces": func() error { _, err := s.Namespaces(ctx); return err },
	} {
		if err := read(); policy.KindOf(err) != policy.Unavailable || policy.Ended(err) || !strings.Contains(err.Error(), "see that it runs") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenStoreWithoutABrokerGivesUpWhenTold(t *testing.T) {
	server := serve(t)
	url := server.URL()
	server.Shutdown()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := jetstream.OpenStore(ctx, jetstream.StoreConfig{Conn: connect(t, url), Domain: domain})
	wantKind(t, err, policy.Unavailable, "did not answer in time", "see that it runs")
}

func TestAChunkWithOtherContentIsNotBuiltUpon(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	packed := random(10, 2*jetstream.ChunkSize)
	subject := "pdp.blob.boutique.boutique_cart." + policy.DigestOf(packed[jetstream.ChunkSize:]).Hex()
	if _, err := admin(t, url).Publish(t.Context(), subject, []byte("forged")); err != nil {
		t.Fatal(err)
	}
	_, err := s.Put(t.Context(), cart, []byte("note"), packed, 0)
	wantKind(t, err, policy.Internal, "holds other bytes", "purge")
	_, err = s.Head(t.Context(), cart)
	wantKind(t, err, policy.NotFound)

	// The advice works.
	stream, err := admin(t, url).Stream(t.Context(), "BLOBS")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), js.WithPurgeSubject(subject)); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, cart, "note", packed, 0)
}

func TestAChunkThatChangedAfterwardsIsNotHandedOut(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	packed := random(11, 2*jetstream.ChunkSize)
	mustPut(t, s, cart, "note", packed, 0)
	subject := "pdp.blob.boutique.boutique_cart." + policy.DigestOf(packed[:jetstream.ChunkSize]).Hex()
	stream, err := admin(t, url).Stream(t.Context(), "BLOBS")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), js.WithPurgeSubject(subject)); err != nil {
		t.Fatal(err)
	}
	h, err := s.Head(t.Context(), cart)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Bundle(t.Context(), h)
	wantKind(t, err, policy.NotFound, "chunk 1 of 2", "push the bundle again")
	if _, err := admin(t, url).Publish(t.Context(), subject, random(12, jetstream.ChunkSize)); err != nil {
		t.Fatal(err)
	}
	_, err = s.Bundle(t.Context(), h)
	wantKind(t, err, policy.Unavailable, "other bytes")
}

func TestAFullStoreRefusesAndKeepsWhatItHas(t *testing.T) {
	for _, tt := range []struct {
		name string
		size int
	}{{"bundles in heads", jetstream.MaxInline}, {"bundles in chunks", 2 * jetstream.ChunkSize}} {
		t.Run(tt.name, func(t *testing.T) {
			url := serve(t).URL()
			s, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, url), Domain: domain, MaxBytes: 4 << 20})
			if err != nil {
				t.Fatal(err)
			}
			var after uint64
			last := ""
			for i := range 100 {
				n := note(cart, i)
				seq, err := s.Put(t.Context(), cart, []byte(n), random(uint64(i), tt.size), after)
				if err == nil {
					after, last = seq, n
					continue
				}
				wantKind(t, err, policy.Exhausted, "full", "raise its bound")
				h, err := s.Head(t.Context(), cart)
				if err != nil || string(h.Note) != last {
					t.Fatalf("head is %q, %v, want %q", h.Note, err, last)
				}
				if _, err := s.Bundle(t.Context(), h); err != nil {
					t.Error("the last good bundle is gone:", err)
				}
				// The advice works.
				s, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, url), Domain: domain, MaxBytes: 8 << 20})
				if err != nil {
					t.Fatal(err)
				}
				mustPut(t, s, cart, n, random(uint64(i), tt.size), after)
				return
			}
			t.Fatal("a store of 4 MiB never got full")
		})
	}
}

func TestWhatCannotBeARequestIsRefused(t *testing.T) {
	url := serve(t).URL()
	s, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, url), Domain: domain, MaxPacked: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name         string
		ns           policy.Namespace
		note, packed []byte
		kind         policy.Kind
		says         string
	}{
		{"no namespace", "", []byte("n"), nil, policy.BadRequest, "empty"},
		{"wildcard", "boutique.*", []byte("n"), nil, policy.BadRequest, "label"},
		{"another subject", "boutique.>", []byte("n"), nil, policy.BadRequest, "label"},
		{"underscore", "boutique_cart", []byte("n"), nil, policy.BadRequest, "label"},
		{"another domain", "evil.cart", []byte("n"), nil, policy.BadRequest, "not in the domain boutique"},
		{"no note", cart, nil, nil, policy.BadRequest, "no note"},
		{"note with a NUL", cart, []byte("n\x00I"), nil, policy.BadRequest, "NUL"},
		{"long note", cart, bytes.Repeat([]byte("n"), bundles.MaxNote+1), nil, policy.Exhausted, "limit is 16384"},
		{"large bundle", cart, []byte("n"), make([]byte, 100_001), policy.Exhausted, "limit is 100000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.Put(t.Context(), tt.ns, tt.note, tt.packed, 0)
			wantKind(t, err, tt.kind, tt.says)
		})
	}
	if all, err := s.Namespaces(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("something was stored: %v, %v", all, err)
	}
	for _, d := range []string{"", "a.b", "a*", "A"} {
		if _, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, url), Domain: d}); policy.KindOf(err) != policy.BadRequest {
			t.Errorf("domain %q: %v", d, err)
		}
	}
}

func TestGarbageOnAHeadIsNoReleaseAndCanBePutOver(t *testing.T) {
	url := serve(t).URL()
	var mu sync.Mutex
	var ignored int
	s, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, url), Domain: domain, Events: func(e jetstream.Event) {
		mu.Lock()
		defer mu.Unlock()
		if _, ok := e.(jetstream.Ignored); ok {
			ignored++
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, cart, "first", []byte("bundle"), 0)
	// `nats kv del` leaves an empty message.
	for _, garbage := range [][]byte{nil, {0}, []byte("n\x00I"), []byte("n\x00C123"), []byte("n\x00X1")} {
		if _, err := admin(t, url).Publish(t.Context(), "$KV.policy.boutique.boutique_cart.head", garbage); err != nil {
			t.Fatal(err)
		}
		h, err := s.Head(t.Context(), cart)
		wantKind(t, err, policy.Failed, "damaged", "push a release over it")
		if h.Seq == 0 || h.Note != nil {
			t.Errorf("head is %+v", h)
		}
	}
	mustPut(t, s, cart, "second", nil, damagedSeq(t, s))
	if h, err := s.History(t.Context(), cart); err != nil || len(h) != 2 || string(h[0].Note) != "second" || string(h[1].Note) != "first" {
		t.Errorf("history is %v, %v", h, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if ignored != 5 {
		t.Errorf("%d of 5 garbled heads were reported", ignored)
	}
}

func damagedSeq(t *testing.T, s *jetstream.Store) uint64 {
	t.Helper()
	h, _ := s.Head(t.Context(), cart)
	return h.Seq
}

// Whoever waits longer than that waits for somebody to start the broker: he is told,
// however much time he has.
func TestABrokerThatIsGoneIsSaidToBe(t *testing.T) {
	t.Parallel() // it waits
	server := serve(t)
	s := openStore(t, server.URL())
	server.Shutdown()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	_, err := s.Head(ctx, cart)
	wantKind(t, err, policy.Unavailable, "there is no connection to NATS", "see that NATS runs")
	_, err = s.Put(ctx, cart, []byte("note"), []byte("small"), 0)
	wantKind(t, err, policy.Unavailable, "there is no connection to NATS", "nothing was released")
	if ctx.Err() != nil {
		t.Error("it took all the time there was")
	}
}

// A broker that takes a question and never answers is to blame, not who asked it.
func TestAnAnswerThatDoesNotComeIsSaidBeforeTheTimeIsOver(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	go func() {
		for {
			conn, err := silent.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.WriteString(conn, `INFO {"server_id":"a","version":"2.15.0","proto":1,"headers":true,"max_payload":1048576}`+"\r\n")
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					if lines.Text() == "PING" {
						_, _ = io.WriteString(conn, "PONG\r\n") // who has gone needs none
					}
				}
			}()
		}
	}()
	nc, err := jetstream.Connect(t.Context(), "nats://"+silent.Addr().String(), jetstream.ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err = jetstream.OpenStore(ctx, jetstream.StoreConfig{Conn: nc, Domain: "shop"})
	if ctx.Err() != nil {
		t.Error("whoever waits for the answer has gone")
	}
	wantKind(t, err, policy.Unavailable, "NATS", "see that it runs")
}
