package pap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

// Finding is something that changes when a trust file takes the place of another.
type Finding struct {
	// Namespace that it is about, "" for all.
	Namespace policy.Namespace `json:"namespace,omitempty"`
	// Problem is true if something stops deciding, or is guarded less than
	// before, or if the file would not be taken at all.
	Problem bool `json:"problem"`
	// Text says what.
	Text string `json:"text"`
}

type findings []Finding

func (f *findings) add(n policy.Namespace, problem bool, format string, args ...any) {
	*f = append(*f, Finding{Namespace: n, Problem: problem, Text: fmt.Sprintf(format, args...)})
}

// CompareTrust says what changes when the trust file before is followed by after,
// as far as the two files tell.
func CompareTrust(before, after *bundles.Trust) []Finding {
	var all findings
	if before.Domain() != after.Domain() {
		all.add("", true, "the domain is %s, and was %s: no process takes the file", after.Domain(), before.Domain())
		return all
	}
	switch {
	case after.Version() <= before.Version():
		all.add("", true, "the version is %d, and was %d: no process takes the file; raise it to %d", after.Version(), before.Version(), before.Version()+1)
	case after.Epoch() < before.Epoch():
		all.add("", true, "the epoch is %d, and was %d: no process takes the file; an epoch is only ever raised", after.Epoch(), before.Epoch())
	case after.Epoch() > before.Epoch():
		all.add("", false, "the epoch is raised to %d: every namespace is pushed again, and until then decides by what it has", after.Epoch())
	}
	all.addTravel(before, after)
	if len(before.Beacons()) > 0 && len(after.Beacons()) == 0 {
		all.add("", true, "no key signs beacons any more: nobody can tell how far behind a process is, and max-staleness is not enforced")
	}
	listed := slices.Concat(before.Namespaces(), after.Namespaces())
	slices.Sort(listed)
	for _, n := range slices.Compact(listed) {
		if before.IsGuardrail(n) && !after.IsGuardrail(n) {
			all.add(n, true, "it is no guardrail any more: what it denies is not denied below it")
		}
		if !before.IsGuardrail(n) && after.IsGuardrail(n) {
			all.add(n, false, "it becomes a guardrail: what it denies is denied in everything below it, and without a release of it nothing there is decided")
		}
		all.addSigners(n, before, after)
	}
	return all
}

// addTravel says who must sign the file so that it can be pushed.
func (f *findings) addTravel(before, after *bundles.Trust) {
	old, most := before.Roots()
	own, least := after.Roots()
	switch {
	case len(old) == 0 || len(own) == 0:
		f.add("", false, "it cannot be pushed, as both files must list roots; put it into place by hand")
	case after.Version() != before.Version()+1:
		f.add("", false, "it cannot be pushed, as its version is not %d; put it into place by hand", before.Version()+1)
	default:
		f.add("", false, "to be pushed it must be signed by %d of the roots that are (%s), and by %d of its own (%s)", most, strings.Join(old, ", "), least, strings.Join(own, ", "))
	}
}

// addSigners says who may sign what they could not sign before, and the reverse.
// Keys are compared by their names; that another key is behind a name is noticed
// where releases do not open.
func (f *findings) addSigners(n policy.Namespace, before, after *bundles.Trust) {
	old, most := before.Signers(n)
	now, least := after.Signers(n)
	only := func(a, b []string) []string {
		return slices.DeleteFunc(slices.Clone(a), func(name string) bool { return slices.Contains(b, name) })
	}
	if gone := only(old, now); len(gone) > 0 {
		f.add(n, false, "may not sign it any more: %s", strings.Join(gone, ", "))
	}
	if come := only(now, old); len(come) > 0 {
		f.add(n, false, "may sign it now: %s", strings.Join(come, ", "))
	}
	if most != least {
		f.add(n, false, "%d different keys must sign it, and %d had to", least, most)
	}
}

// CheckTrust says what of what is released stops opening when the client's trust
// file is followed by after. The server is asked what there is, and may keep
// quiet about it.
func (c *Client) CheckTrust(ctx context.Context, after *bundles.Trust) ([]Finding, error) {
	all, err := c.Namespaces(ctx)
	if err != nil {
		return nil, err
	}
	all = append(all, after.Namespaces()...)
	slices.Sort(all)
	var found findings
	for _, n := range slices.Compact(all) {
		if err := c.checkNamespace(ctx, n, after, &found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (c *Client) checkNamespace(ctx context.Context, n policy.Namespace, after *bundles.Trust, found *findings) error {
	entries, err := c.History(ctx, n)
	if policy.KindOf(err) == policy.NotFound {
		entries, err = nil, nil
	}
	if err != nil {
		return err
	}
	guards := false
	var lost []string
	for i, e := range entries {
		head := i == 0
		if e.Signed == nil {
			if head {
				found.add(n, false, "its head does not open with the trust file that is in force either")
			}
			continue
		}
		r := e.Signed.Release()
		_, err := after.Open(e.Signed.Note())
		switch {
		case err == nil:
			guards = guards || head && !r.Retired()
		case head:
			reason := err.Error()
			if unverified, ok := errors.AsType[*bundles.UnverifiedError](err); ok {
				reason = unverified.Reason
			}
			names, _ := after.Signers(n)
			found.add(n, true, "nothing in it is decided any more: its head, release %d, is signed by %s, and does not open (%s); let %s sign it before: push signs what is unchanged anew, by another key",
				r.Revision, strings.Join(e.Signed.Signers(), ", "), reason, strings.Join(names, ", "))
		default:
			lost = append(lost, fmt.Sprint(r.Revision))
		}
	}
	if len(lost) > 0 {
		found.add(n, false, "there is no rolling back any more to release %s: push the commits that they were made from instead", strings.Join(lost, ", "))
	}
	if after.IsGuardrail(n) && !guards {
		found.add(n, true, "it is a guardrail without a release that opens: nothing below it is decided; push it before")
	}
	return nil
}
