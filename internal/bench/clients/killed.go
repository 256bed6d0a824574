package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/bench/domain"
	"github.com/microwall/microwall/internal/bench/figures"
	"github.com/microwall/microwall/policy"
)

const (
	callers = 1000
	// deadline of each call, and tolerance is how late one may end that had to be
	// ended: a processor that a thousand want has other things to do.
	deadline  = time.Second
	tolerance = 10 * time.Millisecond
	// pause is for how long a caller does something else between two calls at
	// most.
	pause = 20 * time.Millisecond
	// watched is for how long what becomes of calls is counted after a PDP was
	// killed. Longer would be kinder: they fail right after it, if they do.
	watched = 2 * time.Second
)

// fate is what became of calls.
type fate struct {
	// calls that ended from the kill on, and how many of those were answered.
	calls, answered int64
	// longest is how long such a call took at most, counted or not, and late how long
	// after its deadline the last one ended; 0 if none did so late.
	longest, late time.Duration
	// machine is how late the latest of one timer's ends was meanwhile, which waits
	// for nothing else: that much is not the client's doing.
	machine time.Duration
}

func (f fate) share() float64 { return 100 * float64(f.answered) / float64(f.calls) }

// fates are those of the calls that are remembered when the only PDP is killed, and
// of all when another one lives.
type fates struct{ alone, other fate }

// killed kills a PDP under callers who ask without end: their own request, which is
// remembered if the client has a cache, and in turn one that nobody has asked
// before.
func killed(ctx context.Context, p figures.Progress, callers int, watched time.Duration) (all fates, err error) {
	err = domain.Temporary(ctx, func(d *domain.Domain, _ string) error {
		if err := pushBoth(ctx, d, cheap); err != nil {
			return err
		}
		var nodes [3]*domain.PDP
		for i := range nodes {
			if nodes[i], err = d.StartPDP(ctx, "node-"+strconv.Itoa(i)); err != nil {
				return err
			}
		}
		if all.alone, err = killOne(ctx, true, nodes[:1], callers, watched); err != nil {
			return err
		}
		p("killed", 1, 2)
		all.other, err = killOne(ctx, false, nodes[1:], callers, watched)
		p("killed", 2, 2)
		return err
	})
	return all, err
}

// killOne kills the first PDP of a client. If the client remembers, only what is
// remembered counts; otherwise all does.
func killOne(ctx context.Context, remembers bool, pdps []*domain.PDP, callers int, watched time.Duration) (fate, error) {
	keep := cache.Config{Entries: -1}
	if remembers {
		keep = cache.Config{}
	}
	client, err := startRemote(ctx, keep, pdps...)
	if err != nil {
		return fate{}, err
	}
	defer func() { _ = client.Close() }() // it has nothing to lose
	r, err := caller("first")
	if err != nil {
		return fate{}, err
	}
	if remembers {
		if err := remember(ctx, client, func() cache.Stats { return client.Status().Cache }, r); err != nil {
			return fate{}, err
		}
	}
	c := &crowd{client: client, template: r, remembers: remembers}
	running, stop := context.WithCancel(ctx)
	defer stop()
	var work sync.WaitGroup
	for i := range callers {
		work.Go(func() { c.call(running, i) })
	}
	// Until each has asked, and what it asks again is remembered.
	for end := time.Now().Add(tooLate); c.asked.Load() < int64(10*callers); sleep(ctx, pause) {
		if err := ctx.Err(); err != nil {
			return fate{}, err
		}
		if time.Now().After(end) {
			return fate{}, fmt.Errorf("%d callers got %d answers in %s, although no PDP was killed", callers, c.asked.Load(), tooLate)
		}
	}
	c.counting.Store(true)
	var machine time.Duration
	work.Go(func() { machine = lateness(running) })
	pdps[0].Kill()
	sleep(ctx, watched)
	stop()
	work.Wait()
	if wrong := c.wrong.Load(); wrong != nil {
		return fate{}, *wrong
	}
	longest := time.Duration(c.longest.Load())
	return fate{calls: c.calls.Load(), answered: c.answered.Load(), longest: longest, late: max(0, longest-deadline), machine: machine}, ctx.Err()
}

// crowd is many callers of one client.
type crowd struct {
	client    *remote.Client
	template  policy.Request
	remembers bool // only what is remembered counts

	asked           atomic.Int64 // and answered, before the kill
	counting        atomic.Bool  // from the kill on
	calls, answered atomic.Int64
	longest         atomic.Int64
	wrong           atomic.Pointer[error] // an answer that may not be
}

// call has one caller ask until ctx ends.
func (c *crowd) call(ctx context.Context, i int) {
	r := c.template
	sleep(ctx, rand.N(10*pause)) //nolint:gosec // so that not all begin at once
	known := !c.remembers
	for n := 0; ctx.Err() == nil; n++ {
		if n%2 == 0 {
			r.Subject.ID = subject(strconv.Itoa(i))
			answered := c.one(ctx, r, known)
			known = known || answered
		} else {
			r.Subject.ID = subject(fmt.Sprint(i, "/", n))
			c.one(ctx, r, !c.remembers)
		}
		sleep(ctx, rand.N(pause)) //nolint:gosec // so that not all ask at once
	}
}

// one asks once, and reports whether there was an answer. Whether ctx ends is for the
// next one.
func (c *crowd) one(ctx context.Context, r policy.Request, counts bool) bool {
	begun := time.Now()
	bounded, cancel := context.WithDeadline(context.WithoutCancel(ctx), begun.Add(deadline))
	defer cancel()
	d, err := c.client.Authorize(bounded, r)
	took := int64(time.Since(begun))
	if err == nil && !d.Allowed {
		err = fmt.Errorf("denied: %+v", d)
		c.wrong.Store(&err)
	}
	if !c.counting.Load() {
		if err == nil {
			c.asked.Add(1)
		}
		return err == nil
	}
	for last := c.longest.Load(); took > last && !c.longest.CompareAndSwap(last, took); last = c.longest.Load() {
	}
	if counts {
		c.calls.Add(1)
		if err == nil {
			c.answered.Add(1)
		}
	}
	return err == nil
}

// lateness returns how late the latest of many sleeps ended, one after the other.
func lateness(ctx context.Context) (most time.Duration) {
	const nap = 5 * time.Millisecond
	for begun := time.Now(); ctx.Err() == nil; begun = time.Now() {
		sleep(ctx, nap)
		most = max(most, time.Since(begun)-nap)
	}
	return most
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
