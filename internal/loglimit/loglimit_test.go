package loglimit_test

import (
	"testing"
	"time"

	"github.com/microwall/microwall/internal/loglimit"
)

func TestLinesWithoutEndAreCountedInsteadOfSaid(t *testing.T) {
	var l loglimit.Limiter
	now := time.Now()
	for span := range 3 {
		for i := range 10 * loglimit.Most {
			ok, unsaid := l.Allow(now)
			if want := i < loglimit.Most; ok != want {
				t.Fatalf("span %d, line %d: %t", span, i, ok)
			}
			if want := 9 * loglimit.Most; i == 0 && span > 0 && unsaid != want || i > 0 && unsaid != 0 {
				t.Fatalf("span %d, line %d: %d were not said", span, i, unsaid)
			}
		}
		now = now.Add(loglimit.Span)
	}
	if ok, _ := l.Allow(now.Add(-time.Hour)); !ok {
		t.Error("a clock that was set back ends the log")
	}
}
