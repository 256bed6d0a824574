package main

import (
	"context"
	"fmt"
	"slices"
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

// latencies are how long answers to one question took, in turn.
type latencies []time.Duration

// authorize asks so many times, and returns the last answer.
func (l *latencies) authorize(ctx context.Context, ask policy.Authorizer, r policy.Request, times int) (d policy.Decision, err error) {
	for range times {
		begun := time.Now()
		if d, err = ask.Authorize(ctx, r); err != nil {
			return d, err
		}
		*l = append(*l, time.Since(begun))
	}
	return d, nil
}

// String says how long the first answer took, and the others.
func (l latencies) String() string {
	others := slices.Sorted(slices.Values(l[1:]))
	return fmt.Sprintf("the first answer took %s, the %d others %s (median; %s at most)", l[0], len(others), others[len(others)/2], others[len(others)-1])
}
