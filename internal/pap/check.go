package pap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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
// as far as the two files tell. Whatever guards less than before is a problem. Who
// may sign is none, as keys change in peace: it is told, and has to be looked at.
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
	all.addKeys(before, after)
	all.addTravel(before, after)
	all.addRoots(before, after)
	all.addBeacons(before, after)
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
		all.addStaleness(n, before, after)
	}
	return all
}

// addKeys says which names have another key behind them.
func (f *findings) addKeys(before, after *bundles.Trust) {
	for _, name := range before.Keys() {
		if was, is := before.Key(name), after.Key(name); is != "" && is != was {
			f.add("", false, "another key is called %s now: it signs in the place of the one before", name)
		}
	}
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

// addRoots says who signs later trust files, if that changes.
func (f *findings) addRoots(before, after *bundles.Trust) {
	old, most := before.Roots()
	now, least := after.Roots()
	if len(old) > 0 && len(now) == 0 {
		f.add("", true, "it lists no roots any more: nobody has to sign the next trust file, and none can be pushed; whoever may write the files on disk says whom to believe")
		return
	}
	f.addChange("", "sign the next trust file", keysOf(before, old), keysOf(after, now))
	if least < most {
		f.add("", true, "%s must sign the next trust file, and %d had to", someKeys(least), most)
	}
	if least > most && most > 0 {
		f.add("", false, "%s must sign the next trust file, and %d had to", someKeys(least), most)
	}
}

// addBeacons says who proves what is the newest, if that changes.
func (f *findings) addBeacons(before, after *bundles.Trust) {
	old, now := before.Beacons(), after.Beacons()
	if len(old) > 0 && len(now) == 0 {
		f.add("", true, "no key signs beacons any more: nobody can tell how far behind a process is, and max-staleness is not enforced")
		return
	}
	f.addChange("", "sign beacons", keysOf(before, old), keysOf(after, now))
	if len(old) == 0 && len(now) > 0 {
		f.add("", false, "max-staleness is enforced from now on: see that a PDP issues beacons (microwall serve --beacon-key)")
	} else if len(old) > 0 && len(only(keysOf(before, old), keysOf(after, now))) == len(old) {
		f.add("", true, "no beacon key stays: until a PDP issues beacons by the new one nothing is proven, and what is `when-stale: deny` denies; list the new key beside the old one first")
	}
}

// addSigners says who may sign what they could not sign before, and the reverse.
func (f *findings) addSigners(n policy.Namespace, before, after *bundles.Trust) {
	old, most := before.Signers(n)
	now, least := after.Signers(n)
	if len(now) == 0 {
		f.add(n, true, "nobody may sign it any more, as neither it nor a namespace above it is listed: nothing in it is decided")
		return
	}
	f.addChange(n, "sign it", keysOf(before, old), keysOf(after, now))
	if least != most && most > 0 {
		f.add(n, least < most, "%s must sign it, and %d had to", someKeys(least), most)
	}
}

// key is one that a trust file names. The same name may mean another key in
// another file.
type key struct{ name, public string }

func keysOf(t *bundles.Trust, names []string) []key {
	all := make([]key, len(names))
	for i, name := range names {
		all[i] = key{name, t.Key(name)}
	}
	return all
}

// addChange says who may do what they could not do before, and the reverse.
func (f *findings) addChange(n policy.Namespace, what string, before, after []key) {
	if gone := only(before, after); len(gone) > 0 {
		f.add(n, false, "may not %s any more: %s", what, strings.Join(gone, ", "))
	}
	if come := only(after, before); len(come) > 0 {
		f.add(n, false, "may %s now: %s", what, strings.Join(come, ", "))
	}
}

// only returns the names of those of a that are not in b.
func only(a, b []key) (names []string) {
	for _, k := range a {
		if !slices.Contains(b, k) {
			names = append(names, k.name)
		}
	}
	return names
}

// someKeys says how many keys, in words.
func someKeys(n int) string {
	if n == 1 {
		return "1 key"
	}
	return fmt.Sprintf("%d different keys", n)
}

// addStaleness says what the file tightens less than before, or more, where it is
// not only that the namespace above does.
func (f *findings) addStaleness(n policy.Namespace, before, after *bundles.Trust) {
	old, was := bound(before, n)
	now, is := bound(after, n)
	oldAbove, wasAbove := bound(before, n.Parent())
	nowAbove, isAbove := bound(after, n.Parent())
	switch {
	case now == old || now == nowAbove && old == oldAbove:
	case now == bundles.MaxMaxStaleness:
		f.add(n, true, "it has no max-staleness any more: without proof it is believed for as long as its author asks, and was for %v at most", old)
	case now > old:
		f.add(n, true, "without proof it is believed for %v, and was for %v at most (max-staleness)", now, old)
	default:
		f.add(n, false, "without proof it is believed for %v at most (max-staleness)", now)
	}
	switch {
	case is == was || is == isAbove && was == wasAbove:
	case is < was:
		f.add(n, true, "it is not `when-stale: %v` any more: what nobody proves to be the newest decides on, unless its author asks otherwise", was)
	default:
		f.add(n, false, "it is `when-stale: %v` now: what nobody proves to be the newest denies", is)
	}
}

// bound is how the file tightens the loosest release of a namespace.
func bound(t *bundles.Trust, n policy.Namespace) (time.Duration, bundles.WhenStale) {
	return t.Staleness(bundles.Release{Namespace: n, MaxStaleness: bundles.MaxMaxStaleness, WhenStale: bundles.Serve})
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
	switch theirs, before := c.TrustInForce(ctx), c.trust.Version(); {
	case theirs > after.Version():
		found.add("", true, "version %d is in force on %s, as it says, and this is version %d: no process takes the file; begin with the one that is in force", theirs, c.server, after.Version())
	case theirs > before && theirs < after.Version():
		found.add("", false, "version %d is in force on %s, as it says, and this was compared with version %d; compare it with the one that is in force", theirs, c.server, before)
	}
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
