package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing/fstest"
	"time"

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
func withFleet(ctx context.Context, c crew, use func(*domain, *fleet) error) (err error) {
	dir, err := os.MkdirTemp("", "microwall-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d, err := startDomain(ctx, dir)
	if err != nil {
		return err
	}
	defer d.close()
	first, err := fiveRuleBundle(0)
	if err != nil {
		return err
	}
	for _, n := range []policy.Namespace{guardrail, cart} {
		if err := d.push(ctx, n, first); err != nil {
			return err
		}
	}
	c.NATS, c.Trust, c.Namespace = d.natsURL, d.trustFile, cart
	f, err := startFleet(ctx, c, processes)
	if err != nil {
		return err
	}
	defer f.close()
	return use(d, f)
}

// fiveRuleBundle is five rules, and 16 KB of data that no other round has.
func fiveRuleBundle(round int) (fstest.MapFS, error) {
	data, err := filledData(fmt.Sprintf("round-%d", round), maxData)
	return fstest.MapFS{"authz.rego": {Data: []byte(fiveRules)}, "data.json": {Data: data}}, err
}

// release pushes another release of the cart, and returns when that began and
// when the last client of the fleet had got to it, which calls it by the number
// counted.
func (d *domain) release(ctx context.Context, f *fleet, round int, counted uint64) (took time.Duration, err error) {
	folder, err := fiveRuleBundle(round)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := d.push(ctx, cart, folder); err != nil {
		return 0, err
	}
	last, err := f.wait(ctx, counted)
	return last.Sub(begin), err
}

// releases pushes some releases to a fleet, and returns the slowest: from the
// call of Push to the last client.
func releases(ctx context.Context, name string, p progress, c crew, first uint64) (slowest float64, err error) {
	err = withFleet(ctx, c, func(d *domain, f *fleet) error {
		for i := range rounds {
			took, err := d.release(ctx, f, i+1, first+uint64(i))
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

func clients1000(ctx context.Context, p progress, n int) (float64, error) {
	// The fleet starts at revision 1.
	return releases(ctx, "clients1000", p, crew{Size: n}, 2)
}

func subscribers5000(ctx context.Context, p progress, n int) (float64, error) {
	return releases(ctx, "subscribers5000", p, crew{Size: n, Subscribers: true}, 1)
}

// idle is how much memory n embedded clients that do nothing take in the server.
// The PDP is in the same process and knows nothing of them.
func idle(ctx context.Context, n int) (kb float64, err error) {
	var one float64
	err = withFleet(ctx, crew{Size: processes}, func(*domain, *fleet) error {
		one = memory()
		return nil
	})
	if err != nil {
		return 0, err
	}
	err = withFleet(ctx, crew{Size: n + processes}, func(*domain, *fleet) error {
		kb = (memory() - one) / float64(n) / 1000
		return nil
	})
	return kb, err
}

// memory is the heap and the stacks of this process, in bytes, once what is not
// in use is gone.
func memory() float64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}

// restart ends the NATS server, starts it again, releases as soon as the PDP
// can, and returns the time from the start of the server to the last client.
func restart(ctx context.Context, p progress, n int) (slowest float64, err error) {
	err = withFleet(ctx, crew{Size: n}, func(d *domain, f *fleet) error {
		for i := range rounds {
			begin := time.Now()
			if err := d.restartNATS(ctx); err != nil {
				return err
			}
			if _, err := d.release(ctx, f, i+1, uint64(i)+2); err != nil {
				return err
			}
			slowest = max(slowest, time.Since(begin).Seconds()*1000)
			p("restart", i+1, rounds)
		}
		return nil
	})
	return slowest, err
}
