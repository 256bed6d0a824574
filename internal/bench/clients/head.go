package main

import (
	"context"
	"fmt"
	"time"

	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/bench/domain"
	"github.com/microwall/microwall/internal/bench/figures"
	"github.com/microwall/microwall/policy"
)

const (
	// pushes that are measured, and those before them, by which connections are
	// made and code is paged in.
	pushes = 200
	warmUp = 5
	// look is how often the client is asked meanwhile.
	look = time.Millisecond
	// tooLate ends a push that never reaches the client.
	tooLate = 30 * time.Second
)

// head pushes n releases, one after the other, and measures each from the call of
// Push (which reads the head, signs and sends) to the first answer by it that a
// remote client gives. The client asks one PDP, and another one is pushed to: the
// release reaches the former over NATS, the latter tells the client, and what was
// remembered is of no use any more.
func head(ctx context.Context, p figures.Progress, n int) (all figures.Samples, err error) {
	err = domain.Temporary(ctx, func(d *domain.Domain, _ string) error {
		if err := pushBoth(ctx, d, cheap); err != nil {
			return err
		}
		node, err := d.StartPDP(ctx, "node")
		if err != nil {
			return err
		}
		client, err := startRemote(ctx, cache.Config{}, node)
		if err != nil {
			return err
		}
		defer func() { _ = client.Close() }() // it has nothing to lose
		r, err := caller("frontend")
		if err != nil {
			return err
		}
		if err := remember(ctx, client, func() cache.Stats { return client.Status().Cache }, r); err != nil {
			return err
		}
		for i := range warmUp + n {
			took, err := pushOnce(ctx, d, client, r, i+1)
			if err != nil {
				return fmt.Errorf("push %d: %w", i+1, err)
			}
			if i >= warmUp {
				all = append(all, took)
			}
			p("head", i+1, warmUp+n)
		}
		return nil
	})
	return all, err
}

// pushOnce pushes a release, and has the client asked until the answer is by it.
// That must be the answer of its policy.
func pushOnce(ctx context.Context, d *domain.Domain, client *remote.Client, r policy.Request, release int) (time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, tooLate, fmt.Errorf("no answer by the release within %s", tooLate))
	defer cancel()
	draft, err := d.Draft(domain.Cart, cartBundle(cheap, release))
	if err != nil {
		return 0, err
	}
	last, err := client.Authorize(ctx, r)
	if err != nil {
		return 0, err
	}
	got, released, took, err := d.ReleaseUntil(ctx, draft, func(ctx context.Context) (policy.Decision, error) {
		ticks := time.NewTicker(look)
		defer ticks.Stop()
		for {
			d, err := client.Authorize(ctx, r)
			if err != nil || own(d) != own(last) {
				return d, err
			}
			select {
			case <-ticks.C:
			case <-ctx.Done():
				return policy.Decision{}, context.Cause(ctx)
			}
		}
	})
	switch {
	case err != nil:
		return 0, err
	case own(got) != released || !got.Allowed || len(got.Reasons) != 1 || got.Reasons[0].Text != fmt.Sprint(release):
		return 0, fmt.Errorf("%v was pushed, and the client answered %+v", released, got)
	}
	return took, nil
}

// own is the version of the namespace that decided.
func own(d policy.Decision) policy.Version { return d.Versions[len(d.Versions)-1] }
