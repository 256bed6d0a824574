package jetstream_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/policy"
)

const (
	day   = 24 * time.Hour
	pause = 15 * time.Minute
)

// openKeeping opens a store that keeps two heads, and tells events.
func openKeeping(t *testing.T, url string, events func(jetstream.Event)) *jetstream.Store {
	t.Helper()
	s, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, url), Domain: domain, Keep: 2, Events: events})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustSweep(t *testing.T, s *jetstream.Store, ahead time.Duration) {
	t.Helper()
	if err := s.Sweep(t.Context(), ahead); err != nil {
		t.Fatal(err)
	}
}

// chunks returns how many chunks the broker holds.
func chunks(t *testing.T, url string) int {
	t.Helper()
	stream, err := admin(t, url).Stream(t.Context(), "BLOBS")
	if err != nil {
		t.Fatal(err)
	}
	return int(stream.CachedInfo().State.Msgs)
}

// wantBundle reads the bundle of the head.
func wantBundle(t *testing.T, s *jetstream.Store, ns policy.Namespace, packed []byte) {
	t.Helper()
	h, err := s.Head(t.Context(), ns)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Bundle(t.Context(), h); err != nil || !bytes.Equal(got, packed) {
		t.Fatalf("bundle of %q has %d bytes, want %d, %v", h.Note, len(got), len(packed), err)
	}
}

// releaseThree releases three bundles of one chunk, of which the first is not
// kept, and returns them and the number of the last head.
func releaseThree(t *testing.T, s *jetstream.Store) (packed [3][]byte, after uint64) {
	t.Helper()
	for i := range packed {
		packed[i] = random(uint64(100+i), 100_000)
		after = mustPut(t, s, cart, note(cart, i), packed[i], after)
	}
	return packed, after
}

func TestChunksThatNoHeadNamesAreSweptAfterADay(t *testing.T) {
	url := serve(t).URL()
	var mu sync.Mutex
	var events []jetstream.Event
	s := openKeeping(t, url, func(e jetstream.Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
	})
	packed, after := releaseThree(t, s)
	for _, tt := range []struct {
		name string
		at   time.Duration
		want int
	}{
		{"it is not a day old", day - time.Minute, 3},
		{"it is marked", day + time.Minute, 3},
		{"it is left to who may be at it", pause - time.Minute, 3},
		{"it is purged", pause + time.Minute, 2},
		{"that is all", 3 * day, 2},
	} {
		mustSweep(t, s, tt.at)
		if got := chunks(t, url); got != tt.want {
			t.Errorf("%s: %d chunks, want %d", tt.name, got, tt.want)
		}
	}
	if want := []jetstream.Event{jetstream.Swept{Namespace: cart, Chunks: 1}, jetstream.Swept{Namespace: cart, Chunks: 1, Purged: true}}; !slices.Equal(events, want) {
		t.Errorf("events are %+v", events)
	}
	wantBundle(t, s, cart, packed[2])
	// It can come back.
	mustPut(t, s, cart, note(cart, 4), packed[0], after)
	wantBundle(t, s, cart, packed[0])
}

// Whoever sweeps may have a clock that is days off. Ages are between times of the
// broker, so nothing is swept before a day has gone by there. Here it is the broker
// that says so, two days too early, against the clock of everybody else.
func TestNoClockButTheBrokersSaysWhatIsOldEnoughToBeSwept(t *testing.T) {
	url := serve(t).URL()
	releaseThree(t, openKeeping(t, url, nil))
	told := regexp.MustCompile(`"ts":"(\d{4}-\d\d-\d\d)T`)
	var days atomic.Int64
	p := newProxy(t, url, "", nil)
	alter := func(said []byte) {
		for _, at := range told.FindAllSubmatchIndex(said, -1) {
			date := said[at[2]:at[3]]
			if now, err := time.Parse(time.DateOnly, string(date)); err == nil {
				copy(date, now.Add(time.Duration(days.Load())*day).Format(time.DateOnly))
			}
		}
	}
	p.alter.Store(&alter)
	s := openKeeping(t, p.url(), nil)
	for _, tt := range []struct {
		name string
		days int64
		want int
	}{
		{"today", 0, 3},
		{"yesterday", -1, 3},
		{"in two days: it is marked", 2, 3},
		{"today: its mark is of today, too", 0, 3},
		{"in two days: it is purged", 2, 2},
	} {
		days.Store(tt.days)
		mustSweep(t, s, 0)
		if got := chunks(t, url); got != tt.want {
			t.Errorf("%s: %d chunks, want %d", tt.name, got, tt.want)
		}
	}
}

func TestAnythingElseThanOldChunksIsLeftAlone(t *testing.T) {
	url := serve(t).URL()
	s := openKeeping(t, url, nil)
	api := admin(t, url)
	sum := policy.DigestOf([]byte("x")).Hex()
	for _, subject := range []string{"pdp.blob.boutique.-trust.7", "pdp.blob.boutique.-trust." + sum, "pdp.blob.other.other_cart." + sum, "pdp.blob.boutique.boutique_cart.what-is-this", "pdp.blob.boutique.other." + sum} {
		if _, err := api.Publish(t.Context(), subject, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	// This one is left over, in a namespace that was never released.
	if _, err := api.Publish(t.Context(), "pdp.blob.boutique.boutique_new."+sum, []byte("x")); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		mustSweep(t, s, time.Duration(2+i)*day)
	}
	if n := chunks(t, url); n != 5 {
		t.Errorf("%d are left, want 5", n)
	}
	mustPut(t, s, "boutique.new", "first", random(1, 100_000), 0)
	wantBundle(t, s, "boutique.new", random(1, 100_000))
}

func TestAMarkIsNoHeadToReleaseAfter(t *testing.T) {
	url := serve(t).URL()
	s := openKeeping(t, url, nil)
	packed, third := releaseThree(t, s)
	h, err := s.History(t.Context(), cart)
	if err != nil || len(h) != 2 {
		t.Fatalf("history is %v, %v", h, err)
	}
	mustSweep(t, s, 2*day) // the mark has the highest number now
	for _, after := range []uint64{h[1].Seq, third + 1, third + 2} {
		_, err := s.Put(t.Context(), cart, []byte("note"), nil, after)
		wantKind(t, err, policy.Conflict)
	}
	_, err = s.Put(t.Context(), cart, []byte("note"), nil, 0) // it may be the first one, which is not kept
	wantKind(t, err, policy.Unavailable, "not known")
	fourth := mustPut(t, s, cart, "fourth", packed[1], third)
	if again := mustPut(t, s, cart, "fourth", packed[1], third); again != fourth {
		t.Errorf("released again as %d", again)
	}
	// The mark counts on behind a head that does not carry it.
	if _, err := admin(t, url).Publish(t.Context(), "$KV.policy.boutique.boutique_cart.head", []byte("by hand")); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, cart, "sixth", packed[0], headSeq(t, s, cart))
	mustSweep(t, s, 4*day)
	wantBundle(t, s, cart, packed[0])
}

// What a publisher finds stored may be purged before it has released: at every
// moment that matters, the other one goes through all of its steps.
func TestAChunkIsNotSweptUnderItsPublisher(t *testing.T) {
	for _, tt := range []struct{ name, watch string }{
		{"before it looks for the chunk", "HPUB pdp.blob."},
		{"before it releases", aHead},
	} {
		for steps := range 4 {
			t.Run(fmt.Sprintf("%s, %d steps", tt.name, steps), func(t *testing.T) {
				url := serve(t).URL()
				direct := openKeeping(t, url, nil)
				packed, after := releaseThree(t, direct)
				var once sync.Once
				p := newProxy(t, url, tt.watch, func() bool {
					once.Do(func() {
						for i := range steps {
							if err := direct.Sweep(t.Context(), time.Duration(2+i)*day); err != nil {
								t.Error(err)
							}
						}
					})
					return true
				})
				mustPut(t, openStore(t, p.url()), cart, "back again", packed[0], after)
				wantBundle(t, direct, cart, packed[0])
				for i := range 3 {
					mustSweep(t, direct, time.Duration(10+i)*day)
				}
				wantBundle(t, direct, cart, packed[0])
			})
		}
	}
}

func TestASweeperThatWasHeldUpPurgesNothingThatIsNeeded(t *testing.T) {
	for _, tt := range []struct{ name, watch string }{
		{"before it marks", "HPUB $KV.policy.boutique.boutique_cart.sweep"},
		{"before it purges", "$JS.API.STREAM.PURGE.BLOBS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := serve(t).URL()
			direct := openKeeping(t, url, nil)
			packed, after := releaseThree(t, direct)
			reached, on := make(chan bool, 10), make(chan bool)
			p := newProxy(t, url, tt.watch, func() bool {
				reached <- true
				<-on
				return true
			})
			late := openStore(t, p.url())
			swept := make(chan error, 1)
			go func() {
				err := late.Sweep(t.Context(), 2*day)
				if err == nil {
					err = late.Sweep(t.Context(), 3*day)
				}
				swept <- err
			}()
			<-reached
			mustPut(t, direct, cart, "back again", packed[0], after)
			close(on)
			if err := <-swept; err != nil {
				t.Fatal(err)
			}
			wantBundle(t, direct, cart, packed[0])
		})
	}
}

// Somebody removes both streams while a sweeper is held up, and everything is
// pushed again: what the sweeper knows is of streams that are gone.
func TestASweeperThatOutlivesTheStreamsHarmsNotTheNewOnes(t *testing.T) {
	three := []int{0, 1, 0} // the bundles that are released again, so that the numbers would be the same
	for _, tt := range []struct {
		name, watch string
		nth         int  // time that it says so
		knew        bool // whoever makes the streams anew has seen the old ones
		again       []int
		stuck       bool // nothing is lost, but sweeping waits for somebody to act
	}{
		{"before it marks", "HPUB $KV.policy.boutique.boutique_cart.sweep", 1, true, three, false},
		{"before it marks, with streams by a stranger", "HPUB $KV.policy.boutique.boutique_cart.sweep", 1, false, three, true},
		{"when it looks for its mark", `{"seq":4}`, 1, false, three, false},
		{"when it looks for its mark before it purges", `{"seq":4}`, 2, false, three, false},
		{"when it looks for its mark, and a head is there", `{"seq":4}`, 2, false, []int{0, 1, 0, 1}, false},
		{"before it purges", "$JS.API.STREAM.PURGE.BLOBS", 1, true, three, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := serve(t).URL()
			direct := openKeeping(t, url, nil)
			packed, _ := releaseThree(t, direct)
			reached, on := make(chan bool), make(chan bool)
			said := 0
			p := newProxy(t, url, tt.watch, func() bool {
				if said++; said == tt.nth {
					reached <- true
					<-on
				}
				return true
			})
			late := openStore(t, p.url())
			swept := make(chan error, 1)
			go func() {
				err := late.Sweep(t.Context(), 2*day)
				if err == nil {
					err = late.Sweep(t.Context(), 3*day)
				}
				swept <- err
			}()
			receive(t, reached, "the sweeper")
			api := admin(t, url)
			for _, stream := range []string{"KV_policy", "BLOBS"} {
				if err := api.DeleteStream(t.Context(), stream); err != nil {
					t.Fatal(err)
				}
			}
			if !tt.knew {
				direct = openKeeping(t, url, nil)
			}
			var after uint64
			for i, n := range tt.again {
				after = mustPut(t, direct, cart, note(cart, i), packed[n], after)
			}
			close(on)
			if err := receive(t, swept, "the end of the sweep"); err != nil {
				t.Fatal(err)
			}
			wantBundles(t, direct, 2)
			// Sweeping goes on.
			if _, err := direct.Put(t.Context(), cart, []byte("last"), packed[2], after); err != nil {
				t.Fatal(err)
			}
			var failed []jetstream.Event
			s := openKeeping(t, url, func(e jetstream.Event) { failed = append(failed, e) })
			for i := range 4 {
				mustSweep(t, s, time.Duration(10+i)*day)
			}
			wantBundles(t, direct, 2)
			if tt.stuck {
				if !strings.Contains(story(failed), "the streams do not belong together; remove both and push everything again") {
					t.Error(story(failed))
				}
				return
			}
			if n := chunks(t, url); n != 2 {
				t.Errorf("%d chunks are left, want those of the two heads; %s", n, story(failed))
			}
		})
	}
}

// wantBundles reads the bundles of all heads that are kept.
func wantBundles(t *testing.T, s *jetstream.Store, heads int) {
	t.Helper()
	kept, err := s.History(t.Context(), cart)
	if err != nil || len(kept) != heads {
		t.Fatalf("%d heads are kept, want %d; %v", len(kept), heads, err)
	}
	for _, h := range kept {
		if _, err := s.Bundle(t.Context(), h); err != nil {
			t.Errorf("%q: %v", h.Note, err)
		}
	}
}

// A sweeper that is killed is one whose connection ends in the middle; the next
// one goes on.
func TestSIGKILLWhileSweepingLosesNoBundleAndLeavesNoChunk(t *testing.T) {
	for _, watch := range []string{"HPUB $KV.policy.boutique.boutique_cart.sweep", "$JS.API.STREAM.PURGE.BLOBS"} {
		for _, whom := range []string{"the sweeper", "the broker"} {
			t.Run(whom+" "+watch, func(t *testing.T) {
				dir := t.TempDir()
				url, sigkill := child(t, dir)
				packed, after := releaseThree(t, openKeeping(t, url, nil))
				ctx, cancel := context.WithCancel(t.Context())
				p := newProxy(t, url, watch, func() bool {
					cancel()
					if whom == "the broker" {
						sigkill()
					}
					return false
				})
				killed := openStore(t, p.url())
				for i := 0; ctx.Err() == nil && i < 3; i++ {
					_ = killed.Sweep(ctx, time.Duration(2+i)*day)
				}
				if ctx.Err() == nil {
					t.Fatal("it was never about to be killed")
				}
				sigkill()
				url, _ = child(t, dir)
				s := openStore(t, url)
				wantBundle(t, s, cart, packed[2])
				mustPut(t, s, cart, "back again", packed[0], after)
				wantBundle(t, s, cart, packed[0])
				for i := range 5 {
					mustSweep(t, s, time.Duration(10+i)*day)
				}
				wantBundle(t, s, cart, packed[0])
				if n := chunks(t, url); n != 2 {
					t.Errorf("%d chunks are left, want those of the two heads", n)
				}
			})
		}
	}
}

// Several PDPs sweep, and several release the same few bundles again and again,
// with clocks so wrong that no chunk is too young and no step too soon: what
// must never happen must not depend on time.
func TestTheHeadAlwaysHasItsBundle(t *testing.T) {
	t.Parallel() // those who lost a race wait most of the time
	url := serve(t).URL()
	churn(t, 10, nil, func(events func(jetstream.Event)) *jetstream.Store { return openKeeping(t, url, events) })
}

// churn lets two sweepers and three authors loose on stores that open opens,
// until each author has made so many releases, or more if nothing was purged yet,
// and looks at the head all the time. Half-way it calls meanwhile.
func churn(t *testing.T, releases int, meanwhile func(), open func(events func(jetstream.Event)) *jetstream.Store) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	pool := make([][]byte, 4)
	for i := range pool {
		pool[i] = random(uint64(i), jetstream.ChunkSize+70_000)
	}
	var authors, others sync.WaitGroup
	var purged atomic.Int64
	events := func(e jetstream.Event) {
		switch e := e.(type) {
		case jetstream.Swept:
			if e.Purged {
				purged.Add(int64(e.Chunks))
			}
		case jetstream.SweepFailed:
			// A broker may be gone for a moment; what it must not be is wrong.
			if policy.KindOf(e.Err) == policy.Failed {
				t.Error(e.Err)
			}
		}
	}
	for sweeper := range 2 {
		s := open(events)
		others.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := s.Sweep(ctx, time.Duration(sweeper+2*i)*2*day); policy.KindOf(err) == policy.Failed {
					t.Error(err)
				}
			}
		})
	}
	// look reports what is wrong with the head, if it stays the head.
	look := func(s *jetstream.Store) {
		h, err := s.Head(ctx, cart)
		if err != nil {
			return
		}
		if _, err := s.Bundle(ctx, h); policy.KindOf(err) == policy.NotFound {
			if now, again := s.Head(ctx, cart); again == nil && now.Seq == h.Seq {
				t.Errorf("the head %q: %v", h.Note, err)
			}
		}
	}
	reader := open(nil)
	others.Go(func() {
		for ctx.Err() == nil {
			look(reader)
		}
	})
	half := sync.OnceFunc(func() {
		if meanwhile != nil {
			meanwhile()
		}
	})
	for author := range 3 {
		s := open(nil)
		r := rand.New(rand.NewPCG(uint64(author), 1))
		authors.Go(func() {
			// Without a purge in between, nothing was tried.
			for i := 0; i < releases || purged.Load() == 0 && i < 100*releases; {
				h, err := s.Head(ctx, cart)
				if err == nil || policy.KindOf(err) == policy.NotFound {
					_, err = s.Put(ctx, cart, fmt.Appendf(nil, "%d %d", author, i), pool[r.IntN(len(pool))], h.Seq)
				}
				switch kind := policy.KindOf(err); {
				case err == nil:
					look(s)
					if i++; i == releases/2 {
						half()
					}
				case kind != policy.Conflict && kind != policy.Unavailable:
					t.Error(err)
					return
				}
			}
		})
	}
	authors.Wait()
	if _, err := reader.Head(ctx, cart); err != nil {
		t.Error(err)
	}
	look(reader)
	stop()
	others.Wait()
	if purged.Load() == 0 {
		t.Error("nothing was purged meanwhile")
	}
	t.Logf("%d chunks were purged", purged.Load())
}

func TestASweepIsBoundedAndEndsWithItsContext(t *testing.T) {
	url := serve(t).URL()
	s := openKeeping(t, url, nil)
	api := admin(t, url)
	const all = 1030
	for i := range all {
		if _, err := api.PublishAsync("pdp.blob.boutique.boutique_cart."+policy.DigestOf([]byte{byte(i), byte(i >> 8)}).Hex(), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	<-api.PublishAsyncComplete()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Sweep(ended, 2*day); err == nil {
		t.Error("a sweep whose context has ended says that it is done")
	}
	for i, want := range []int{all, all - 1024, all - 1024, 0} {
		mustSweep(t, s, time.Duration(2+i)*day)
		if n := chunks(t, url); n != want {
			t.Errorf("after step %d there are %d chunks, want %d", i+1, n, want)
		}
	}
}

func TestAStreamThatDeniesPurgingIsNotSwept(t *testing.T) {
	url := serve(t).URL()
	s := openKeeping(t, url, nil)
	api := admin(t, url)
	stream, err := api.Stream(t.Context(), "BLOBS")
	if err != nil {
		t.Fatal(err)
	}
	c := stream.CachedInfo().Config
	c.DenyPurge = true
	if _, err := api.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	packed, _ := releaseThree(t, s)
	wantKind(t, s.Sweep(t.Context(), 2*day), policy.Failed, "denies purging")
	wantBundle(t, s, cart, packed[2])
}

func TestKeepSaysHowManyHeadsThereAre(t *testing.T) {
	url := serve(t).URL()
	open := func(keep int) (*jetstream.Store, error) {
		return jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, url), Domain: domain, Keep: keep})
	}
	for _, keep := range []int{-1, 1, 101} {
		_, err := open(keep)
		wantKind(t, err, policy.BadRequest, "2 to 100")
	}
	var after uint64
	for _, tt := range []struct{ keep, put, want int }{{3, 5, 3}, {0, 1, 3}, {5, 1, 4}, {0, 4, 5}, {2, 0, 2}, {100, 10, 12}} {
		s, err := open(tt.keep)
		if err != nil {
			t.Fatal(err)
		}
		for range tt.put {
			after = mustPut(t, s, cart, fmt.Sprint("after ", after), nil, after)
		}
		if h, err := s.History(t.Context(), cart); err != nil || len(h) != tt.want || h[0].Seq != after {
			t.Errorf("--keep %d: %d heads, %v; want %d", tt.keep, len(h), err, tt.want)
		}
	}
}

func TestAHeadStreamFromBeforeThereWereMarksIsBroughtUpToDate(t *testing.T) {
	url := serve(t).URL()
	openKeeping(t, url, nil)
	api := admin(t, url)
	stream, err := api.Stream(t.Context(), "KV_policy")
	if err != nil {
		t.Fatal(err)
	}
	c := stream.CachedInfo().Config
	c.Subjects = []string{"$KV.policy.*.*.head"}
	if _, err := api.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	s := openKeeping(t, url, nil)
	packed, _ := releaseThree(t, s)
	for i := range 2 {
		mustSweep(t, s, time.Duration(2+i)*day)
	}
	if n := chunks(t, url); n != 2 {
		t.Errorf("%d chunks are left", n)
	}
	wantBundle(t, s, cart, packed[2])
}

func TestNoMarkSpeaksOfAChunkOfAStreamThatIsMadeAnew(t *testing.T) {
	url := serve(t).URL()
	s := openKeeping(t, url, nil)
	packed, after := releaseThree(t, s)
	mustSweep(t, s, 2*day) // marks the first one's
	api := admin(t, url)
	if err := api.DeleteStream(t.Context(), "BLOBS"); err != nil {
		t.Fatal(err)
	}
	s = openKeeping(t, url, nil)
	stream, err := api.Stream(t.Context(), "BLOBS")
	if err != nil {
		t.Fatal(err)
	}
	// No further than it must: a server counts up to the number of what it
	// cannot write when its disk is full.
	if state := stream.CachedInfo().State; state.LastSeq < 1 || state.LastSeq > 3 {
		t.Errorf("the stream made anew begins behind %d", state.LastSeq)
	}
	mustPut(t, s, cart, note(cart, 3), packed[0], after)
	mustSweep(t, s, 4*day) // purges what is marked
	wantBundle(t, s, cart, packed[0])
}
