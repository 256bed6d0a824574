package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"testing/fstest"
	"time"

	"github.com/microwall/microwall/internal/bench/domain"
	"github.com/microwall/microwall/internal/bench/figures"
	"github.com/microwall/microwall/internal/natsserver"
	"github.com/microwall/microwall/policy"
)

const (
	// processes that the clients of a fleet are spread over.
	processes = 4
	// rounds of pushes to a fleet, of which the worst counts.
	rounds = 5
)

// fiveRules is a policy of five rules.
const fiveRules = `package authz

default allow := false

allow if {
	input.subject.type == "workload"
	input.subject.id in data.callers[input.action.name]
}

allow if input.subject.properties.department == input.resource.properties.department

deny contains "not at night" if input.time.hour < 5

reasons contains "a colleague" if input.subject.properties.department == input.resource.properties.department
`

// withFleet starts a domain with a release of the cart, below its guardrail,
// and a fleet that has it.
func withFleet(ctx context.Context, c crew, use func(*domain.Domain, *fleet) error) error {
	return domain.Temporary(ctx, func(d *domain.Domain, _ string) error {
		if err := pushBoth(ctx, d); err != nil {
			return err
		}
		c.NATS, c.Trust, c.Namespace = d.URL, d.TrustFile, domain.Cart
		if c.Credentials != "" {
			c.Credentials = d.Credentials
		}
		f, err := startFleet(ctx, c, processes)
		if err != nil {
			return err
		}
		defer f.close()
		return use(d, f)
	})
}

// pushBoth releases five rules for the cart, and for its guardrail.
func pushBoth(ctx context.Context, d *domain.Domain) error {
	first, err := fiveRuleBundle(0)
	if err != nil {
		return err
	}
	for _, n := range []policy.Namespace{domain.Guardrail, domain.Cart} {
		if _, err := d.Push(ctx, n, first); err != nil {
			return err
		}
	}
	return nil
}

// fiveRuleBundle is five rules, and 16 KB of data that no other round has.
func fiveRuleBundle(round int) (fstest.MapFS, error) {
	data, err := filledData(fmt.Sprintf("round-%d", round), maxData)
	return fstest.MapFS{"authz.rego": {Data: []byte(fiveRules)}, "data.json": {Data: data}}, err
}

// release pushes another release of the cart, and returns when that began and
// when the last client of the fleet had got to it, which calls it by the number
// counted.
func release(ctx context.Context, d *domain.Domain, f *fleet, round int, counted uint64) (took time.Duration, err error) {
	folder, err := fiveRuleBundle(round)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if _, err := d.Push(ctx, domain.Cart, folder); err != nil {
		return 0, err
	}
	last, err := f.wait(ctx, counted)
	return last.Sub(begin), err
}

// releases pushes some releases to a fleet, and returns the slowest: from the
// call of Push to the last client.
func releases(ctx context.Context, name string, p figures.Progress, c crew, first uint64) (slowest float64, err error) {
	err = withFleet(ctx, c, func(d *domain.Domain, f *fleet) error {
		for i := range rounds {
			took, err := release(ctx, d, f, i+1, first+uint64(i))
			if err != nil {
				return err
			}
			slowest = max(slowest, took.Seconds()*1000)
			p(name, i+1, rounds)
		}
		return nil
	})
	return slowest, err
}

func clients1000(ctx context.Context, p figures.Progress, n int) (float64, error) {
	// The fleet starts at revision 1.
	return releases(ctx, "clients1000", p, crew{Size: n}, 2)
}

func subscribers5000(ctx context.Context, p figures.Progress, n int) (float64, error) {
	return releases(ctx, "subscribers5000", p, crew{Size: n, Subscribers: true}, 1)
}

// idle is how much memory n embedded clients that do nothing take in the server,
// in KB each. The PDP is in the same process and knows nothing of them.
func idle(ctx context.Context, c crew, n int) (kb float64, err error) {
	return each(n, func(size int, measure func()) error {
		c.Size = size
		return withFleet(ctx, c, func(*domain.Domain, *fleet) error {
			measure()
			return nil
		})
	})
}

// idleBare is how much n connections take in a server without accounts, where
// each may do everything, and does nothing.
func idleBare(ctx context.Context, n int) (kb float64, err error) {
	return each(n, func(size int, measure func()) (err error) {
		dir, err := os.MkdirTemp("", "microwall-bench-")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		server, err := natsserver.Start(ctx, natsserver.Config{Port: natsserver.AnyPort, StoreDir: dir, MaxBytes: domain.MaxStore})
		if err != nil {
			return err
		}
		defer server.Shutdown()
		f, err := startFleet(ctx, crew{Size: size, Bare: true, NATS: server.URL(), Namespace: domain.Cart}, processes)
		if err != nil {
			return err
		}
		defer f.close()
		measure()
		return nil
	})
}

// each is how much memory each of n takes, in KB: what there is with n more of them
// than with a few.
func each(n int, with func(size int, measure func()) error) (kb float64, err error) {
	var few, many float64
	if err := with(processes, func() { few = memory() }); err != nil {
		return 0, err
	}
	err = with(processes+n, func() { many = memory() })
	return (many - few) / float64(n) / 1000, err
}

// memory is the heap and the stacks of this process, in bytes, once what is not
// in use is gone: the least that is seen in ten seconds. A collection of garbage
// halves a stack that is not used, and clients that have just begun ask once more.
func memory() float64 {
	const readings = 10
	least := math.Inf(1)
	for range readings {
		time.Sleep(time.Second)
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		least = min(least, float64(m.HeapAlloc+m.StackInuse))
	}
	return least
}

// restart ends the NATS server, starts it again, releases as soon as the PDP
// can, and returns the time from the start of the server to the last client.
func restart(ctx context.Context, p figures.Progress, n int) (slowest float64, err error) {
	err = withFleet(ctx, crew{Size: n}, func(d *domain.Domain, f *fleet) error {
		for i := range rounds {
			begin := time.Now()
			if err := d.RestartNATS(ctx); err != nil {
				return err
			}
			if _, err := release(ctx, d, f, i+1, uint64(i)+2); err != nil {
				return err
			}
			slowest = max(slowest, time.Since(begin).Seconds()*1000)
			p("restart", i+1, rounds)
		}
		return nil
	})
	return slowest, err
}
