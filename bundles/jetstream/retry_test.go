package jetstream_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/policy"
)

func TestARetryableRefusalIsOfferedAgain(t *testing.T) {
	for name, fault := range map[string]error{
		"not ready":       policy.Errorf(policy.Unavailable, "not now"),
		"out of time":     context.DeadlineExceeded,
		"wrapped timeout": policy.Errorf(policy.Internal, "no time: %w", context.DeadlineExceeded),
	} {
		t.Run(name, func(t *testing.T) {
			url := serve(t).URL()
			s := openStore(t, url)
			mustPut(t, s, cart, note(cart, 1), []byte("one"), 0)
			clock := newClock()
			var calls atomic.Int32
			f := startFollower(t, url, jetstream.FollowConfig{Namespaces: cartOnly, After: clock.after}, func(string) error {
				if calls.Add(1) <= 4 {
					return fault
				}
				return nil
			})
			least := 50 * time.Millisecond
			for range 4 {
				if e := wantEvent[jetstream.Offered](t, f.events, nil); !e.Again || e.Err == nil {
					t.Fatalf("offered %+v", e)
				}
				clock.fire(t, func(d time.Duration) bool { return d >= least && d < 3*least })
				least *= 2
			}
			f.wantOffer(t, note(cart, 1), []byte("one"))
		})
	}
}

func TestANewerHeadReplacesTheOneThatIsRetried(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	first := mustPut(t, s, cart, note(cart, 1), nil, 0)
	clock := newClock()
	var calls sync.Map
	f := startFollower(t, url, jetstream.FollowConfig{Namespaces: cartOnly, After: clock.after}, func(n string) error {
		calls.Store(n, true)
		if n == note(cart, 1) {
			return policy.Errorf(policy.Unavailable, "never")
		}
		return nil
	})
	wantEvent[jetstream.Offered](t, f.events, nil)
	second := mustPut(t, s, cart, note(cart, 2), []byte("two"), first)
	f.wantOffer(t, note(cart, 2), []byte("two"))
	calls.Delete(note(cart, 1))
	// Its timer goes off, and there is nothing to do.
	clock.fire(t, func(d time.Duration) bool { return d < time.Second })
	mustPut(t, s, cart, note(cart, 3), []byte("three"), second)
	f.wantOffer(t, note(cart, 3), []byte("three"))
	if _, again := calls.Load(note(cart, 1)); again {
		t.Error("the older head was offered again")
	}
}

func TestAFinalRefusalIsReportedOnceUntilTheHeadChangesOrRefresh(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	clock := newClock()
	var refusing atomic.Bool
	refusing.Store(true)
	var offers atomic.Int32
	f := startFollower(t, url, jetstream.FollowConfig{Namespaces: cartOnly, After: clock.after}, func(n string) error {
		offers.Add(1)
		if refusing.Load() {
			return policy.Errorf(policy.Denied, "key not trusted")
		}
		return nil
	})
	f.wantSynced(t)
	mustPut(t, s, cart, note(cart, 1), []byte("one"), 0)
	if e := wantEvent[jetstream.Offered](t, f.events, nil); e.Again || policy.KindOf(e.Err) != policy.Denied {
		t.Fatalf("offered %+v", e)
	}
	// Three polls bring the same message. The next namespace to be asked for
	// proves that the poll before is over.
	for range 3 {
		clock.fire(t, func(d time.Duration) bool { return d >= jetstream.DefaultPoll/2 })
	}
	clock.fire(t, func(d time.Duration) bool { return d >= jetstream.DefaultPoll/2 })
	if n := offers.Load(); n != 1 {
		t.Errorf("offered %d times", n)
	}
	refusing.Store(false)
	f.Refresh()
	f.wantOffer(t, note(cart, 1), []byte("one"))
}

// A trust file may drop a release, and a later one open it again.
func TestWhatWasTakenAndDroppedIsOfferedAgainAfterRefresh(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	mustPut(t, s, cart, note(cart, 1), []byte("one"), 0)
	f := startFollower(t, url, jetstream.FollowConfig{Namespaces: cartOnly, After: never}, nil)
	for range 3 {
		f.wantOffer(t, note(cart, 1), []byte("one"))
		f.mu.Lock()
		clear(f.held)
		f.mu.Unlock()
		f.Refresh()
	}
}

func TestAPollFindsWhatWasNeverPushed(t *testing.T) {
	for name, named := range map[string][]policy.Namespace{"named": cartOnly, "all": nil} {
		t.Run(name, func(t *testing.T) {
			url := serve(t).URL()
			s := openStore(t, url)
			clock := newClock()
			f := startFollower(t, url, jetstream.FollowConfig{Namespaces: named, List: s.Namespaces, Poll: time.Minute, After: clock.after}, nil)
			f.wantSynced(t)
			loseRepublishing(t, url)
			mustPut(t, s, cart, note(cart, 1), []byte("one"), 0)
			d := clock.fire(t, func(d time.Duration) bool { return d >= 30*time.Second })
			if d >= 90*time.Second {
				t.Errorf("polls after %s", d)
			}
			f.wantOffer(t, note(cart, 1), []byte("one"))
			if e := wantEvent[jetstream.HeadSeen](t, f.events, nil); e.Pushed {
				t.Error("it was pushed")
			}
		})
	}
}

// On a cluster the first answer may be behind. Here it is, because the release
// comes after it and is not pushed.
func TestAfterConnectingAHeadIsAskedForTwice(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	seq := mustPut(t, s, cart, note(cart, 1), []byte("one"), 0)
	loseRepublishing(t, url)
	clock := newClock()
	f := startFollower(t, url, jetstream.FollowConfig{Namespaces: cartOnly, After: clock.after}, nil)
	f.wantOffer(t, note(cart, 1), []byte("one"))
	mustPut(t, s, cart, note(cart, 2), []byte("two"), seq)
	clock.fire(t, func(d time.Duration) bool { return d < 5*time.Second })
	f.wantOffer(t, note(cart, 2), []byte("two"))
}

// loseRepublishing makes the broker push no heads any more.
func loseRepublishing(t *testing.T, url string) {
	t.Helper()
	stream, err := admin(t, url).Stream(t.Context(), "KV_policy")
	if err != nil {
		t.Fatal(err)
	}
	c := stream.CachedInfo().Config
	c.RePublish = nil
	if _, err := admin(t, url).UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func TestAListThatFailsIsAskedForAgain(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	mustPut(t, s, cart, note(cart, 1), []byte("one"), 0)
	clock := newClock()
	var calls atomic.Int32
	f := startFollower(t, url, jetstream.FollowConfig{After: clock.after, List: func(ctx context.Context) ([]policy.Namespace, error) {
		if calls.Add(1) == 1 {
			return nil, errTest
		}
		return s.Namespaces(ctx)
	}}, nil)
	if e := wantEvent[jetstream.AskFailed](t, f.events, nil); e.Namespace != "" || !errors.Is(e.Err, errTest) {
		t.Errorf("failed: %+v", e)
	}
	clock.fire(t, func(d time.Duration) bool { return d < time.Second })
	f.wantOffer(t, note(cart, 1), []byte("one"))
	f.wantSynced(t)
}

func TestAForgedChunkIsNotHandedOverAndTheTrueOneIsTakenLater(t *testing.T) {
	url := serve(t).URL()
	s := openStore(t, url)
	packed := random(1, jetstream.ChunkSize+100)
	mustPut(t, s, cart, note(cart, 1), packed, 0)
	subject := "pdp.blob.boutique.boutique_cart." + policy.DigestOf(packed[jetstream.ChunkSize:]).Hex()
	stream, err := admin(t, url).Stream(t.Context(), "BLOBS")
	if err != nil {
		t.Fatal(err)
	}
	replace := func(data []byte) {
		t.Helper()
		if err := stream.Purge(t.Context(), js.WithPurgeSubject(subject)); err != nil {
			t.Fatal(err)
		}
		if data != nil {
			if _, err := admin(t, url).Publish(t.Context(), subject, data); err != nil {
				t.Fatal(err)
			}
		}
	}
	soon := func(d time.Duration) <-chan time.Time {
		if d > 5*time.Second {
			return nil // no poll
		}
		return time.After(0)
	}
	replace([]byte("forged"))
	f := startFollower(t, url, jetstream.FollowConfig{Namespaces: cartOnly, After: soon}, nil)
	if e := wantEvent[jetstream.Offered](t, f.events, nil); !e.Again || !strings.Contains(e.Err.Error(), "other bytes") {
		t.Fatalf("offered %+v", e)
	}
	replace(nil)
	wantEvent(t, f.events, func(e jetstream.Offered) bool { return e.Again && strings.Contains(e.Err.Error(), "no message") })
	replace(packed[jetstream.ChunkSize:])
	f.wantOffer(t, note(cart, 1), packed)
}
