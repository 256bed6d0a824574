package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/bench/domain"
	"github.com/microwall/microwall/internal/bench/figures"
)

const (
	// keys are how many requests there are that differ in what the policy reads,
	// of which the k-th is asked k^-skew as often as the first.
	keys = 100_000
	skew = 1.01
	// wantHits percent are hits, with a cache of the default size, in the long run.
	wantHits = 95.0

	zipfCallers = 64
)

// size is how much is asked.
type size struct {
	// warm is how many are asked until the cache has what is asked most.
	warm int
	// rounds of phases, with the cache and without, are measured.
	rounds int
	phase  time.Duration
	// off is by how many percent points the hits may be other than wanted.
	off float64
}

var zipfSize = size{warm: 1_200_000, rounds: 5, phase: time.Second, off: 0.5}

// gain is what a client decides in a second, with its cache and without, and how
// many percent of what was asked for with it were hits.
type gain struct{ cached, bare, hits float64 }

// zipf asks two clients of one PDP, of which one keeps nothing. The clients take
// turns, so that both find the machine alike.
func zipf(ctx context.Context, p figures.Progress, z size) (g gain, err error) {
	err = domain.Temporary(ctx, func(d *domain.Domain, _ string) error {
		if err := pushBoth(ctx, d, cheap); err != nil {
			return err
		}
		node, err := d.StartPDP(ctx, "node")
		if err != nil {
			return err
		}
		cached, err := startRemote(ctx, cache.Config{}, node)
		if err != nil {
			return err
		}
		defer func() { _ = cached.Close() }() // it has nothing to lose
		bare, err := startRemote(ctx, cache.Config{Entries: -1}, node)
		if err != nil {
			return err
		}
		defer func() { _ = bare.Close() }() // as well
		r, err := caller("first")
		if err != nil {
			return err
		}
		if err := remember(ctx, cached, func() cache.Stats { return cached.Status().Cache }, r); err != nil {
			return err
		}
		if _, err := skewed(ctx, cached, 0, func(n int) bool { return n < z.warm/zipfCallers }); err != nil {
			return err
		}
		var with, without []float64
		before := cached.Status().Cache
		for i := range z.rounds {
			for _, one := range []struct {
				c    *remote.Client
				into *[]float64
			}{{cached, &with}, {bare, &without}} {
				end := time.Now().Add(z.phase)
				rate, err := skewed(ctx, one.c, uint64(i)+1, func(n int) bool { return n%16 != 0 || time.Now().Before(end) })
				if err != nil {
					return err
				}
				*one.into = append(*one.into, rate)
			}
			p("zipf", i+1, z.rounds)
		}
		after := cached.Status().Cache
		hits, misses := after.Hits-before.Hits, after.Misses-before.Misses
		g = gain{cached: figures.Median(with), bare: figures.Median(without), hits: 100 * float64(hits) / float64(hits+misses)}
		if math.Abs(g.hits-wantHits) > z.off {
			return fmt.Errorf("%.2f %% were hits, and this measures at %g %%: change the skew", g.hits, wantHits)
		}
		return nil
	})
	return g, err
}

// skewed has callers ask as long as each shall, given how often it has, and returns
// how many decisions a second they get together.
func skewed(ctx context.Context, c *remote.Client, seed uint64, on func(n int) bool) (float64, error) {
	template, err := caller("")
	if err != nil {
		return 0, err
	}
	errs, counts := make([]error, zipfCallers), make([]int, zipfCallers)
	var work sync.WaitGroup
	begun := time.Now()
	for i := range zipfCallers {
		work.Go(func() {
			//nolint:gosec // the same requests in each run
			next, r := rand.NewZipf(rand.New(rand.NewPCG(seed, uint64(i))), skew, 1, keys-1), template
			var n int
			var err error
			for ; err == nil && on(n); n++ {
				r.Subject.ID = subject(strconv.FormatUint(next.Uint64(), 10))
				err = ask(ctx, c, r)
			}
			counts[i], errs[i] = n, err
		})
	}
	work.Wait()
	took := time.Since(begun)
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return float64(sum) / took.Seconds(), errors.Join(errors.Join(errs...), ctx.Err())
}
