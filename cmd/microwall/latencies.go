package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/microwall/microwall/policy"
)

// freshness is what the flags ask for.
func (f *authorizeFlags) freshness() policy.Freshness {
	var all policy.Freshness
	for _, t := range f.atLeast {
		all = all.And(policy.AtLeast(policy.Token(t)))
	}
	if f.head {
		all = all.And(policy.Head)
	}
	return all
}

// asker is somebody who decides, as authorize asks.
type asker struct {
	policy.Authorizer
	// status returns how many decisions were found in the cache, and whether any
	// are looked up by now; nil if there is no cache.
	status func() (hits uint64, ready bool)
	done   func()
}

// latencies are how long the answers to one question took.
type latencies struct {
	first          time.Duration
	cached, others []time.Duration // after the first
}

// warm bounds how long it is waited until decisions are remembered.
const warm = 3 * time.Second

// authorize asks so many times, and returns the last answer.
func (l *latencies) authorize(ctx context.Context, a asker, r policy.Request, times int) (d policy.Decision, err error) {
	status := a.status
	if status == nil {
		status = func() (uint64, bool) { return 0, true }
	}
	for i := range times {
		before, _ := status()
		begun := time.Now()
		if d, err = a.Authorize(ctx, r); err != nil {
			return d, err
		}
		took := time.Since(begun)
		switch after, _ := status(); {
		case i == 0:
			if l.first = took; times > 1 {
				waitFor(ctx, warm, func() bool { _, ready := status(); return ready })
			}
		case after > before:
			l.cached = append(l.cached, took)
		default:
			l.others = append(l.others, took)
		}
	}
	slices.Sort(l.cached)
	slices.Sort(l.others)
	return d, nil
}

// waitFor waits until something is so, but not for longer than that.
func waitFor(ctx context.Context, most time.Duration, is func() bool) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for !is() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// String says how long the first answer took, those from the cache, and the others.
func (l latencies) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the first answer took %s", l.first)
	for _, some := range []struct {
		what  string
		times []time.Duration
	}{{"from the cache", l.cached}, {"decided anew", l.others}} {
		if n := len(some.times); n > 0 {
			fmt.Fprintf(&b, ", %d %s %s (median; %s at most)", n, some.what, some.times[n/2], some.times[n-1])
		}
	}
	return b.String()
}

// MarshalJSON says the same in nanoseconds.
func (l latencies) MarshalJSON() ([]byte, error) {
	type some struct {
		Count  int           `json:"count"`
		Median time.Duration `json:"median"`
		Max    time.Duration `json:"max"`
	}
	of := func(times []time.Duration) (s some) {
		if n := len(times); n > 0 {
			s = some{n, times[n/2], times[n-1]}
		}
		return s
	}
	return json.Marshal(struct {
		First  time.Duration `json:"first"`
		Cached some          `json:"cached"`
		Others some          `json:"others"`
	}{l.first, of(l.cached), of(l.others)})
}
