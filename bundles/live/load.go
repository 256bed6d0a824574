package live

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

// load activates the releases that are kept on disk. What is kept of a
// namespace that is not followed here is left alone.
func (l *Live) load(ctx context.Context) error {
	kept, err := l.keep.namespaces()
	if err != nil {
		return err
	}
	if wanted := l.Namespaces(); wanted != nil {
		kept = slices.DeleteFunc(kept, func(n policy.Namespace) bool { return !slices.Contains(wanted, n) })
	}
	var group sync.WaitGroup
	free := make(chan struct{}, runtime.GOMAXPROCS(0))
	for _, n := range kept {
		free <- struct{}{}
		group.Go(func() {
			defer func() { <-free }()
			l.loadOne(ctx, n)
		})
	}
	group.Wait()
	l.mu.Lock()
	l.swap() // once for all
	l.mu.Unlock()
	return ctx.Err()
}

func (l *Live) loadOne(ctx context.Context, n policy.Namespace) {
	c := &Candidate{arrived: l.config.Now(), trust: l.Trust(), fromDisk: true}
	err := func() error {
		sealed, err := l.keep.read(n, l.config.Bundles)
		if err != nil {
			return err
		}
		if c.signed, err = c.trust.Open(sealed.Note); err != nil {
			return err
		}
		if got := c.signed.Release().Namespace; got != n {
			return policy.Errorf(policy.BadRequest, "file of %s holds a release of %s", n, got)
		}
		if err := l.open(ctx, c, func(context.Context) ([]byte, error) { return sealed.Packed, nil }); err != nil {
			return err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.hold(c)
	}()
	if err != nil {
		l.refuse(n, fmt.Errorf("release kept on disk: %w", err))
		return
	}
	l.activated(c)
}

// SetTrust puts another trust file in force: every release that is held is
// opened again with it, and one that it does not open stops deciding. A file of
// a lower version, or another one under the same version, is refused.
func (l *Live) SetTrust(t *bundles.Trust) error {
	l.trusting.Lock()
	defer l.trusting.Unlock()
	dropped, err := l.setTrust(t)
	if err != nil {
		return err
	}
	// It is in force even if it cannot be remembered: a key that was taken out
	// must not go on because a disk is full.
	l.tell(TrustChanged{Version: t.Version(), Dropped: dropped, NotKept: l.keep.trust(t)})
	return nil
}

func (l *Live) setTrust(t *bundles.Trust) (dropped []policy.Namespace, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.Domain() != l.trust.Domain() {
		return nil, policy.Errorf(policy.Denied, "trust file is of domain %s, but %s is decided here", t.Domain(), l.trust.Domain())
	}
	if err := newerTrust(keptOf(l.trust), keptOf(t)); err != nil {
		return nil, err
	}
	l.trust = t
	// What is not followed any more is not kept up to date: should it be a
	// guardrail again, it is loaded anew.
	wanted := l.followed()
	followed := func(n policy.Namespace) bool { return wanted == nil || slices.Contains(wanted, n) }
	for n, h := range l.held {
		if !followed(n) {
			delete(l.held, n)
			l.dropped[n] = h.signed
		}
	}
	// What a key vouched for that was taken out is not proven any more.
	l.reprove(followed)
	for n, h := range l.held {
		signed, err := t.Open(h.signed.Note())
		if err != nil {
			delete(l.held, n)
			l.dropped[n] = h.signed
			l.refused[n] = fmt.Errorf("trust file of version %d does not open its release: %w", t.Version(), err)
			dropped = append(dropped, n)
			continue
		}
		l.held[n] = &held{signed: signed, program: h.program, since: h.since, proof: l.proofOf(signed.Version()), proven: h.proven}
	}
	slices.Sort(dropped)
	l.rememberKept()
	l.swap()
	return dropped, nil
}

// rememberKept makes what is kept on disk, and opens with the trust file in
// force, the mark that nothing older may go below: it may have been dropped
// before this process started. l.mu must be held.
func (l *Live) rememberKept() {
	kept, err := l.keep.namespaces()
	if err != nil {
		return // the directory is gone, and with it what was kept
	}
	for _, n := range kept {
		if l.held[n] != nil || l.dropped[n] != nil {
			continue
		}
		sealed, err := l.keep.read(n, l.config.Bundles)
		if err != nil {
			continue // it was reported when it was loaded
		}
		if signed, err := l.trust.Open(sealed.Note); err == nil && signed.Release().Namespace == n {
			l.dropped[n] = signed
		}
	}
}

// isOld reports whether a release was refused only because a newer one is held,
// as a stale read of a cluster gives: it says nothing about the namespace.
func isOld(err error) bool {
	var old *bundles.OldError
	return errors.As(err, &old)
}
