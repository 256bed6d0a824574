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
				if let, ok := b.allow(start); ok {
					b.done(let, map[rune]outcome{'a': answered, 'u': unanswered, 'w': withdrawn}[c], start)
				}
			}
			open, _ := b.state()
			if _, ok := b.allow(start); open != test.open || ok == test.open {
				t.Errorf("open is %v", open)
			}
		})
	}
}

func TestOneCallFindsOutWhetherAPDPIsBack(t *testing.T) {
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	var b breaker
	var let ticket
	allow := func() (ok bool) {
		if t, ok := b.allow(now); ok {
			let = t
			return true
		}
		return false
	}
	fail := func() {
		for range trips {
			allow()
			b.done(let, unanswered, now)
		}
	}
	early, _ := b.allow(now)
	fail()
	// Each time the probe fails, the pause may be twice as long, up to the longest.
	longest := firstPause
	for range 10 {
		if _, ok := b.allow(now.Add(longest/2 - 1)); ok {
			t.Fatal("let through too early")
		}
		if now = now.Add(longest); !allow() {
			t.Fatalf("nobody is let through after %s", longest)
		}
		if _, ok := b.allow(now); ok {
			t.Fatal("a second probe beside the first")
		}
		// An answer that the PDP gave before it died, and that is read now.
		if !b.done(early, answered, now) || allow() {
			t.Fatal("an answer from before it opened lets everybody through")
		}
		b.done(let, unanswered, now)
		longest = min(2*longest, lastPause)
	}
	// One that gives up leaves it to the next.
	if now = now.Add(longest); !allow() {
		t.Fatal("no probe")
	}
	b.done(let, withdrawn, now)
	if !allow() {
		t.Fatal("no other probe after one that gave up")
	}
	b.done(let, answered, now)
	if open, _ := b.state(); open || !allow() || !allow() {
		t.Fatal("an answer lets everybody through")
	}
	// A connection that is new is reason to look at once, and what failed then begins
	// with the shortest pause.
	fail()
	if allow() {
		t.Fatal("let through at once")
	}
	b.reconnected()
	if !allow() || allow() {
		t.Fatal("one call looks at a new connection")
	}
	b.done(let, answered, now)
	fail()
	if now = now.Add(firstPause); !allow() {
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
