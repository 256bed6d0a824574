package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing/fstest"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/bench/domain"
	"github.com/microwall/microwall/internal/bench/figures"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

const (
	perSecond = 5000
	tenMB     = 10 << 20
	// activations that are decided beside, and for how long nothing is done but
	// deciding, before and after them.
	activations = 10
	quiet       = 3 * time.Second
)

// latencies are of decisions that were due at fixed times, in milliseconds at
// the 99.9th percentile: when nothing else happens, beside activations, and
// beside a loop that does nothing for as long. What that loop does is the
// machine's doing.
type latencies struct{ quiet, activating, spinning float64 }

// activate10m has a state decide 5,000 requests a second, each at its time,
// while it takes bundles of a size for the same namespace.
func activate10m(ctx context.Context, p figures.Progress, size, rounds int, quiet time.Duration) (l latencies, err error) {
	dir, err := os.MkdirTemp("", "microwall-bench-")
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d, err := domain.New(dir)
	if err != nil {
		return l, err
	}
	state, err := live.New(ctx, live.Config{Trust: d.Trust, Dir: filepath.Join(dir, "releases")})
	if err != nil {
		return l, err
	}
	releases, err := signReleases(d, size, rounds+1)
	if err != nil {
		return l, err
	}
	take := func(s bundles.Sealed) error {
		return state.Offer(ctx, s.Note, func(context.Context) ([]byte, error) { return s.Packed, nil })
	}
	if err := take(releases[0]); err != nil {
		return l, err
	}
	during := func(do func() error) float64 {
		stop := make(chan struct{})
		done := make(chan figures.Samples, 1)
		var failed error
		go func() {
			all, err := decideAtRate(ctx, state, stop)
			failed = errors.Join(failed, err)
			done <- all
		}()
		doErr := do()
		close(stop)
		all := <-done
		err = errors.Join(err, failed, doErr)
		return all.Quantile(0.999)
	}
	wait := func() error {
		select {
		case <-time.After(quiet):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	l.quiet = during(wait)
	var took time.Duration
	l.activating = during(func() error {
		defer func(begin time.Time) { took = time.Since(begin) }(time.Now())
		for i, s := range releases[1:] {
			if err := take(s); err != nil {
				return err
			}
			p("activate10m", i+1, rounds)
		}
		return nil
	})
	l.spinning = during(func() error {
		for end := time.Now().Add(took); time.Now().Before(end) && ctx.Err() == nil; {
		}
		return ctx.Err()
	})
	return l, err
}

// signReleases returns releases of a namespace that follow each other, with so much
// data each.
func signReleases(d *domain.Domain, size, n int) (all []bundles.Sealed, err error) {
	var previous policy.Digest
	for i := range n {
		data, err := filledData(fmt.Sprintf("round-%d", i), size)
		if err != nil {
			return nil, err
		}
		b, err := bundles.Read(fstest.MapFS{"authz.rego": {Data: []byte(fiveRules)}, "data.json": {Data: data}})
		if err != nil {
			return nil, err
		}
		note, err := bundles.Sign(bundles.Release{
			Namespace: domain.Guardrail, Epoch: 1, Revision: uint64(i) + 1, Previous: previous,
			Bundle: b.Digest(), Size: int64(len(b.Tar())), Created: time.Now(), Author: "bench",
		}, d.Signer)
		if err != nil {
			return nil, err
		}
		signed, err := d.Trust.Open(note)
		if err != nil {
			return nil, err
		}
		all = append(all, bundles.Sealed{Note: note, Packed: bundles.Pack(b.Tar())})
		previous = signed.Digest()
	}
	return all, nil
}

// decideAtRate decides a request at each time that it is due, or as soon after
// as the ones before allow, and returns how late each decision was made.
func decideAtRate(ctx context.Context, state *live.Live, stop <-chan struct{}) (all figures.Samples, err error) {
	all = make(figures.Samples, 0, 60*perSecond)
	r := policy.Request{
		Namespace: domain.Guardrail,
		Subject:   policy.Entity{Type: "workload", ID: "spiffe://boutique.example/ns/default/sa/frontend"},
		Action:    policy.Action{Name: "ListProducts"},
		Resource:  policy.Entity{Type: "grpc", ID: "hipstershop.CartService"},
	}
	for start, n := time.Now(), 0; ; n++ {
		due := start.Add(time.Duration(n) * time.Second / perSecond)
		sleepUntil(due)
		select {
		case <-stop:
			return all, nil
		default:
		}
		path, err := state.Snapshot().Path(r.Namespace)
		if err != nil {
			return nil, err
		}
		if _, err := path.Decide(ctx, rego.NewInput(&r, rego.NewStamp(due))); err != nil {
			return nil, err
		}
		all = append(all, time.Since(due))
	}
}
