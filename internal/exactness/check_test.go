package exactness_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// check holds what a call was answered against what is promised. over is the error of its context when it returned.
func (s *subject) check(ctx context.Context, c *call, all []asking, results []policy.Result, over error) {
	s.ops.Add(int64(len(all)))
	var decided []int
	for i := range all {
		c.along = append(c.along, pathOf(all[i].Namespace, 2)...)
	}
	for i := range results {
		d, err := &results[i].Decision, results[i].Err
		if err != nil {
			if d.Allowed || d.Versions != nil || d.Reasons != nil || d.Obligations.Len() > 0 {
				s.wrong(c, &all[i], d, "an error (%v) comes with a decision", err)
			}
			s.checkError(ctx, c, &all[i], d, err, over)
			continue
		}
		if s.checkVersions(c, &all[i], d) {
			s.checkStale(c, &all[i], d)
			decided = append(decided, i)
		}
	}
	s.checkSnapshot(c, all, results, decided)
	s.checkSaying(c, all, results, decided)
}

// wrong reports an answer that breaks a promise.
func (s *subject) wrong(c *call, a *asking, d *policy.Decision, format string, args ...any) {
	s.fail("%s, whose clock is %s off: %s\n%s asks %s, %d ms after its start\nfloor    %v\nheads    %v\nanswered %+v", s.name, time.Duration(s.own.Load()), fmt.Sprintf(format, args...),
		a.Namespace, a.text, time.Since(c.begin).Milliseconds(), c.floor, c.heads, *d)
}

// checkVersions asks who has decided: releases that were signed, no older than what
// was known, and what was asked for.
func (s *subject) checkVersions(c *call, a *asking, d *policy.Decision) bool {
	path := make([]policy.Namespace, len(d.Versions))
	for i, v := range d.Versions {
		path[i] = v.Namespace
		switch {
		case !v.Reaches(c.floor[v.Namespace]) && c.floor[v.Namespace] != (policy.Version{}):
			s.wrong(c, a, d, "it went back in %s, from %v", v.Namespace, c.floor[v.Namespace])
			return false
		case c.want.IsHead() && !v.Reaches(c.heads[v.Namespace]):
			s.wrong(c, a, d, "the head was asked for, and it is not in %s, whose head was %v", v.Namespace, c.heads[v.Namespace])
			return false
		}
	}
	if s.judge.of(d.Versions) == nil || !slices.Equal(path, pathOf(a.Namespace, d.Evaluation.Trust)) {
		s.wrong(c, a, d, "nobody has released that, or it does not decide there by that trust file")
		return false
	}
	behind := slices.ContainsFunc(d.Versions, func(v policy.Version) bool { return !v.Reaches(c.heads[v.Namespace]) })
	for _, token := range c.want.tokens {
		i := slices.Index(path, token.Namespace)
		if i < 0 && slices.Contains(c.along, token.Namespace) {
			continue // it is of another request of the batch
		}
		// What does not decide there, or did not when that was asked, counts as the head.
		elsewhere := i < 0 || a.Namespace == deep && token.Namespace == cart
		if (i < 0 || !d.Versions[i].Reaches(token)) && (!elsewhere || behind) {
			s.wrong(c, a, d, "it was asked for %v, or newer", token)
			return false
		}
	}
	if !c.want.IsZero() {
		s.note("answer as new as was asked for")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range d.Versions {
		if v.Compare(s.floor[v.Namespace]) > 0 {
			s.floor[v.Namespace] = v
		}
	}
	return true
}

// checkStale holds what an answer says of staleness against the clocks.
func (s *subject) checkStale(c *call, a *asking, d *policy.Decision) {
	denies := slices.ContainsFunc(d.Stale, func(n policy.Namespace) bool { return believed[n].deny })
	last := -1
	for _, n := range d.Stale {
		i := slices.IndexFunc(d.Versions, func(v policy.Version) bool { return v.Namespace == n })
		if i <= last {
			s.wrong(c, a, d, "%s is stale, and has not decided there", n)
			return
		}
		last = i
	}
	switch {
	case denies != d.StaleDenied, denies && d.Allowed:
		s.wrong(c, a, d, "what is stale denies: %v", denies)
	case s.near && len(d.Stale) > 0 && s.isCalm(c) && c.begin.Sub(s.unsettled()) > settling:
		s.wrong(c, a, d, "it is called stale, while proofs arrive and clocks agree")
	case s.isEmbedded() && !s.near:
		for i, v := range d.Versions {
			// Clocks do not move while this is asked, or the answer is from either.
			if own := time.Duration(s.own.Load()); own > believed[v.Namespace].most+time.Minute && !slices.Contains(d.Stale, v.Namespace) && s.isSteady(c) {
				s.wrong(c, a, d, "no proof is newer than %s by its clock, and %s (%d of its path) is not called stale", own, v.Namespace, i)
			}
		}
	}
	switch {
	case d.StaleDenied:
		s.note("denial because of staleness")
	case len(d.Stale) > 0:
		s.note("answer that says it is stale")
	}
	if s.near {
		s.checkReplaced(c, a, d)
	}
}

// checkReplaced asks whether what has decided was replaced longer ago than it is
// believed without proof, and does not say so.
func (s *subject) checkReplaced(c *call, a *asking, d *policy.Decision) {
	s.model.mu.Lock()
	defer s.model.mu.Unlock()
	for _, v := range d.Versions {
		when, ok := s.replaced[v.Digest]
		if ok && !slices.Contains(d.Stale, v.Namespace) && s.worldAt(c.begin).Sub(when) > believed[v.Namespace].most+time.Minute {
			s.model.mu.Unlock()
			s.wrong(c, a, d, "%v was replaced at %s, and it does not say that it is stale", v, when)
			s.model.mu.Lock()
		}
	}
}

// checkSnapshot asks whether one snapshot has answered a batch.
func (s *subject) checkSnapshot(c *call, all []asking, results []policy.Result, decided []int) {
	seen := map[policy.Namespace]policy.Version{}
	for _, i := range decided {
		for _, v := range results[i].Decision.Versions {
			if last, ok := seen[v.Namespace]; ok && last != v {
				s.wrong(c, &all[i], &results[i].Decision, "a batch was answered by two versions of %s, also by %v", v.Namespace, last)
			}
			seen[v.Namespace] = v
		}
	}
}

// checkSaying asks whether answers say what their versions say: at the time that they
// name, and at the time of the question.
func (s *subject) checkSaying(c *call, all []asking, results []policy.Result, decided []int) {
	var settled []int
	paths := make([][]*release, len(all))
	for _, i := range decided {
		d := &results[i].Decision
		paths[i] = s.judge.of(d.Versions)
		if d.Evaluation.Engine != rego.Engine() {
			s.wrong(c, &all[i], d, "engine %q has made it", d.Evaluation.Engine)
		}
		want := s.judge.says(&all[i], paths[i], d.Evaluation.Time)
		if d.StaleDenied {
			s.checkDenied(c, &all[i], d, want)
			continue
		}
		s.note(fmt.Sprint("allowed: ", d.Allowed))
		if got := saying(d); got != want {
			s.wrong(c, &all[i], d, "at %d, OPA says\n         %s, it says\n         %s, by\n%s", d.Evaluation.Time, want, got, sources(paths[i]))
			return
		}
		settled = append(settled, i)
	}
	if len(settled) == 0 {
		return
	}
	at := s.clock.between(c.begin, c.end)
	if slices.ContainsFunc(at, func(t int64) bool {
		for _, i := range settled {
			if s.judge.says(&all[i], paths[i], t) != saying(&results[i].Decision) {
				return false
			}
		}
		return true
	}) {
		return
	}
	// Nobody remembered that: a PDP has said so, by its own clock.
	for _, i := range settled {
		d := &results[i].Decision
		if s.isEmbedded() || !s.wasAsked(c, d.Evaluation.Time) || d.Evaluation.Time != results[settled[0]].Decision.Evaluation.Time {
			s.wrong(c, &all[i], d, "between %d and %d by its clock, OPA says\n         %s, by\n%s", at[0], at[len(at)-1], s.judge.says(&all[i], paths[i], at[0]), sources(paths[i]))
			return
		}
	}
	s.note("answer by a PDP's clock alone")
}

// checkDenied asks whether the reasons of a denial because of staleness are, beside
// that, those of the policies if they deny as well.
func (s *subject) checkDenied(c *call, a *asking, d *policy.Decision, want said) {
	rest := slices.DeleteFunc(slices.Clone(d.Reasons), func(r policy.Reason) bool { return strings.HasPrefix(r.Text, "stale") })
	if d.Allowed || d.Obligations.Len() > 0 || len(rest) == len(d.Reasons) ||
		len(rest) > 0 && spelled(false, rest, policy.Properties{}) != want || len(rest) == 0 && strings.HasPrefix(string(want), "false {} ") {
		s.wrong(c, a, d, "it is denied because of staleness, and OPA says %s", want)
	}
}

// checkError asks what explains an error.
func (s *subject) checkError(ctx context.Context, c *call, a *asking, d *policy.Decision, err, over error) {
	kind := policy.KindOf(err)
	switch {
	case over != nil:
		s.note("call that was given up")
	case kind == policy.Failed && c.want.madeUp:
		s.note("made up token that is refused")
	case kind == policy.Failed:
		if !s.fails(c, a) {
			s.wrong(c, a, d, "OPA does not fail there: %v", err)
		}
		s.note("policy that fails")
	case (kind == policy.Unavailable || errors.Is(err, context.DeadlineExceeded)) && (!c.plain || !s.isCalm(c)):
		s.note("call without answer")
		select {
		case <-time.After(10 * time.Millisecond): // nobody asks a dead one all the time
		case <-ctx.Done():
		}
	case policy.Ended(err):
		s.wrong(c, a, d, "somebody else's call has ended: %v", err)
	default:
		s.wrong(c, a, d, "nothing explains the error: %v", err)
	}
}

// fails reports whether policies that may have decided fail.
func (s *subject) fails(c *call, a *asking) bool {
	at := s.clock.between(c.begin, c.end)
	if !s.isEmbedded() {
		at = append(at, s.model.clock.between(c.begin.Add(-2*time.Second), c.end)...)
	}
	return slices.ContainsFunc([]uint64{1, 2}, func(trust uint64) bool {
		return s.failsFrom(c, a, at, pathOf(a.Namespace, trust), nil)
	})
}

// failsFrom is fails, with the first releases of a path.
func (s *subject) failsFrom(c *call, a *asking, at []int64, left []policy.Namespace, path []*release) bool {
	if len(left) == 0 {
		return slices.ContainsFunc(at, func(t int64) bool { return s.judge.says(a, path, t) == "" })
	}
	return slices.ContainsFunc(s.judge.from(c.floor[left[0]], left[0]), func(r *release) bool {
		return s.failsFrom(c, a, at, left[1:], append(slices.Clip(path), r))
	})
}

func sources(path []*release) string {
	var b strings.Builder
	for _, r := range path {
		fmt.Fprintf(&b, "# %s, revision %d\n%s", r.Namespace, r.Revision, r.text)
	}
	return b.String()
}

func isOneOf(t int64, all []int64) bool { return slices.Contains(all, t) }
