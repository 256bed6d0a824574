package main

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/internal/bench/domain"
	"github.com/microwall/microwall/internal/bench/figures"
	"github.com/microwall/microwall/policy"
)

const (
	// rounds, in each of which two goroutines share a client for as long as a phase,
	// and have one each for as long.
	rounds = 10
	phase  = 200 * time.Millisecond
)

// parallel are percent of the unshared loop; machine is what that is itself, of one
// goroutine alone.
type parallel struct{ embedded, remote, machine float64 }

// hitParallel has two goroutines ask for one and the same decision, which is
// remembered: of one client, and of a client each. The latter is the unshared loop:
// both processors are as busy, and share nothing that is the client's, so that
// what one client gives less is by what its callers wait for of each other. That
// they ask the same is the worst case: it is one entry in one place of the
// cache.
func hitParallel(ctx context.Context, p figures.Progress, rounds int, phase time.Duration) (result parallel, err error) {
	err = domain.Temporary(ctx, func(d *domain.Domain, dir string) error {
		if err := pushBoth(ctx, d, dear); err != nil {
			return err
		}
		node, err := d.StartPDP(ctx, "node")
		if err != nil {
			return err
		}
		r, err := caller("frontend")
		if err != nil {
			return err
		}
		var own, other [2]policy.Authorizer // embedded, remote
		for i := range 2 {
			e, err := embedded.New(ctx, embedded.Config{
				NATS: d.URL, TrustFile: d.TrustFile, Namespaces: []policy.Namespace{domain.Cart}, Dir: filepath.Join(dir, []string{"one", "two"}[i]),
			})
			if err != nil {
				return err
			}
			defer e.Close()
			c, err := startRemote(ctx, cache.Config{}, node)
			if err != nil {
				return err
			}
			defer func() { _ = c.Close() }() // it has nothing to lose
			if err := errors.Join(
				remember(ctx, e, func() cache.Stats { return e.Status().Cache }, r),
				remember(ctx, c, func() cache.Stats { return c.Status().Cache }, r),
			); err != nil {
				return err
			}
			if i == 0 {
				own = [2]policy.Authorizer{e, c}
			} else {
				other = [2]policy.Authorizer{e, c}
			}
		}
		var shares [2][]float64
		var machine []float64
		for i := range rounds {
			for kind := range own {
				together, apart, err := compare(ctx, own[kind], other[kind], r, phase, i%2 == 0)
				if err != nil {
					return err
				}
				shares[kind] = append(shares[kind], 100*together/apart)
				alone, err := rate(ctx, phase, r, own[kind])
				if err != nil {
					return err
				}
				machine = append(machine, 100*apart/alone)
			}
			p("hitParallel", i+1, rounds)
		}
		result = parallel{embedded: figures.Median(shares[0]), remote: figures.Median(shares[1]), machine: figures.Median(machine)}
		return nil
	})
	return result, err
}

// compare returns how many decisions a second two goroutines get of one client, and of
// two. What comes second may find the machine otherwise: they are measured in
// one order and the other.
func compare(ctx context.Context, one, two policy.Authorizer, r policy.Request, phase time.Duration, first bool) (together, apart float64, err error) {
	if first {
		if together, err = rate(ctx, phase, r, one, one); err != nil {
			return 0, 0, err
		}
	}
	if apart, err = rate(ctx, phase, r, one, two); err != nil {
		return 0, 0, err
	}
	if !first {
		together, err = rate(ctx, phase, r, one, one)
	}
	return together, apart, err
}

// rate has a goroutine for each of all ask one request over and over for so long,
// and returns how many decisions a second they get together.
func rate(ctx context.Context, phase time.Duration, r policy.Request, all ...policy.Authorizer) (float64, error) {
	var stop atomic.Bool
	var work sync.WaitGroup
	errs, counts := make([]error, len(all)), make([]int, len(all))
	begun := time.Now()
	for i, who := range all {
		work.Go(func() {
			// What is written each time is in no line of the processor's cache that
			// another one writes.
			var n int
			var err error
			for ; err == nil && !stop.Load(); n++ {
				err = ask(ctx, who, r)
			}
			counts[i], errs[i] = n, err
		})
	}
	timer := time.AfterFunc(phase, func() { stop.Store(true) })
	defer timer.Stop()
	work.Wait()
	took := time.Since(begun)
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return float64(sum) / took.Seconds(), errors.Join(errors.Join(errs...), ctx.Err()) // a hit asks no context
}
