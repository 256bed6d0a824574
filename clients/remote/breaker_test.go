package remote

import (
	"testing"
	"time"
)

func TestABreakerKeepsCallsFromAPDPThatDoesNotAnswer(t *testing.T) {
	start := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		calls string // a: answered, u: unanswered, w: withdrawn; what is not let through is skipped
		open  bool
	}{
		"nobody asked":                        {"", false},
		"answers":                             {"aaaaaaaaaa", false},
		"four in a row are not enough":        {"uuuu", false},
		"five are":                            {"uuuuu", true},
		"an answer begins the row anew":       {"uuuuauuuu", false},
		"who gives up says nothing":           {"wwwwwwwwwwww", false},
		"and does not end the row":            {"uuwuwuwu", true},
		"more than half of fifty, never five": {"uuuauuuauuuauuuauuuauuuauuuauuuauuua", true},
		"half of fifty":                       {"uauauauauauauauauauauauauauauauauauauauauauauauauaua", false},
	} {
		t.Run(name, func(t *testing.T) {
			var b breaker
			for _, c := range test.calls {
				if b.allow(start) {
					b.done(map[rune]outcome{'a': answered, 'u': unanswered, 'w': withdrawn}[c], start)
				}
			}
			if open, _ := b.state(); open != test.open || b.allow(start) == test.open {
				t.Errorf("open is %v", open)
			}
		})
	}
}

func TestOneCallFindsOutWhetherAPDPIsBack(t *testing.T) {
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	var b breaker
	fail := func() {
		for range trips {
			b.done(unanswered, now)
		}
	}
	fail()
	// Each time the probe fails, the pause may be twice as long, up to the longest.
	longest := firstPause
	for range 10 {
		if b.allow(now.Add(longest/2 - 1)) {
			t.Fatal("let through too early")
		}
		if now = now.Add(longest); !b.allow(now) {
			t.Fatalf("nobody is let through after %s", longest)
		}
		if b.allow(now) {
			t.Fatal("a second probe beside the first")
		}
		b.done(unanswered, now)
		longest = min(2*longest, lastPause)
	}
	// One that gives up leaves it to the next.
	if now = now.Add(longest); !b.allow(now) {
		t.Fatal("no probe")
	}
	b.done(withdrawn, now)
	if !b.allow(now) {
		t.Fatal("no other probe after one that gave up")
	}
	b.done(answered, now)
	if open, _ := b.state(); open || !b.allow(now) || !b.allow(now) {
		t.Fatal("an answer lets everybody through")
	}
	// A connection that is new is reason to look at once, and what failed then begins
	// with the shortest pause.
	fail()
	if b.allow(now) {
		t.Fatal("let through at once")
	}
	b.reconnected()
	if !b.allow(now) || b.allow(now) {
		t.Fatal("one call looks at a new connection")
	}
	b.done(answered, now)
	fail()
	if now = now.Add(firstPause); !b.allow(now) {
		t.Fatal("the pause of another failure is not the shortest")
	}
	if _, opened := b.state(); opened != 13 {
		t.Errorf("opened %d times", opened)
	}
}

func TestRetriesAreATenthOfTheCalls(t *testing.T) {
	var b budget
	retries := 0
	for range 10_000 {
		b.earn()
		if b.spend() {
			retries++
		}
	}
	if retries < 1000 || retries > 1000+retryReserve {
		t.Errorf("%d retries in 10,000 calls", retries)
	}
}
