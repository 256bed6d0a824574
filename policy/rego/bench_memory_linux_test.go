package rego_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BenchmarkMemory activates 50 MB of role bindings while a program with as many
// decides 5,000 questions a second. One op is one activation: from bytes to a
// program that is ready, without the first decision. It reports
//
//	live-x       the heap that one program keeps, its data included
//	peak-x       the highest heap during an activation: the old program, the
//	             new one, the bytes that it is made from, and all garbage that
//	             is not yet collected
//	peak-live-x  the same without garbage, as far as the collector's cycles saw
//	             it
//	quiet-us     how long after a question was due its answer was there: p99.9
//	             while nothing is activated
//	busy-us      the same during activations
//	busy/quiet   the one by the other
//	floor-us     the same as quiet-us for a question that costs nothing: how late
//	             this machine is by itself
//	spin-us      the same as floor-us beside a loop that does nothing: how late
//	             this machine is with a processor less
//
// where x is the size of the JSON. It says the more about busy-us the more
// activations there are: run it with -benchtime 10x.
func BenchmarkMemory(b *testing.B) {
	const questionsPerSecond = 5000
	before := heap().objects
	s := bindingsShape(50 << 20)
	for _, e := range engines {
		if e.name != "microwall" && e.name != "opa-input" {
			continue
		}
		b.Run(e.name, func(b *testing.B) {
			running := e.prepare(b, s)
			checkAnswers(b, s, running)
			live := heap().objects - before - float64(len(s.text))
			quietly := func() { <-time.After(2 * time.Second) }
			floor, _ := observe(b, s, free{s}, questionsPerSecond, quietly)
			spin, _ := observe(b, s, free{s}, questionsPerSecond, func() {
				for start := time.Now(); time.Since(start) < 4*time.Second; {
				}
			})
			var quiet, busy []time.Duration
			var peak usage
			for b.Loop() {
				b.StopTimer()
				heap() // the one before the last is no garbage of this activation
				calm, _ := observe(b, s, running, questionsPerSecond, quietly)
				b.StartTimer()
				var next asked
				latencies, most := observe(b, s, running, questionsPerSecond, func() { next = e.prepare(b, s) })
				quiet, busy, peak, running = append(quiet, calm...), append(busy, latencies...), peak.max(most), next
			}
			size := float64(len(s.text))
			b.ReportMetric(live/size, "live-x")
			b.ReportMetric((peak.objects-before)/size, "peak-x")
			b.ReportMetric((peak.live-before)/size, "peak-live-x")
			b.ReportMetric(tail(quiet), "quiet-us")
			b.ReportMetric(tail(busy), "busy-us")
			b.ReportMetric(tail(busy)/tail(quiet), "busy/quiet")
			b.ReportMetric(tail(floor), "floor-us")
			b.ReportMetric(tail(spin), "spin-us")
		})
	}
}

// bindingsShape has at least that many bytes of role bindings: who has which
// roles everywhere, and who has which one for a single resource.
func bindingsShape(size int) *shape {
	const rolesPerUser, grantsPerUser, resources, roles = 4, 3, 50_000, 40
	verbs := []string{"get", "list", "watch", "create", "update", "delete"}
	random := rand.New(rand.NewPCG(3, 3))
	user := func(i int) string { return fmt.Sprintf("user-%06d", i) }
	resource := func(i int) string { return fmt.Sprintf("dataset-%05d", i) }
	role := func(i int) string { return fmt.Sprintf("role-%02d", i) }
	verbsOf := func(role int) []string { return verbs[:1+role%len(verbs)] }

	var roleText, everywhere, single strings.Builder
	for i := range roles {
		fmt.Fprintf(&roleText, `,"%s":["%s"]`, role(i), strings.Join(verbsOf(i), `","`))
	}
	type grant struct{ role, resource int }
	var granted []grant // the last one of each user
	for roleText.Len()+everywhere.Len()+single.Len() < size {
		u := user(len(granted))
		for i := range rolesPerUser {
			// Nobody has the roles everywhere that may delete.
			fmt.Fprintf(&everywhere, `%s"%s"`, []string{`,"` + u + `":[`, ",", ",", ","}[i], role(random.IntN(roles)/len(verbs)*len(verbs)))
		}
		everywhere.WriteByte(']')
		var last grant
		for i := range grantsPerUser {
			last = grant{random.IntN(roles), random.IntN(resources)}
			fmt.Fprintf(&single, `%s{"role":"%s","resource":"%s"}`, []string{`,"` + u + `":[`, ",", ","}[i], role(last.role), resource(last.resource))
		}
		single.WriteByte(']')
		granted = append(granted, last)
	}
	s := &shape{
		name: "bindings",
		module: `package authz

default allow := false

allow if {
	some role in data.everywhere[input.subject.id]
	input.action.name in data.roles[role]
}

allow if {
	some grant in data.grants[input.subject.id]
	grant.resource == input.resource.id
	input.action.name in data.roles[grant.role]
}
`,
		text: []byte(`{"roles":{` + roleText.String()[1:] + `},"everywhere":{` + everywhere.String()[1:] + `},"grants":{` + single.String()[1:] + `}}`),
	}
	for range 64 {
		u, verb := random.IntN(len(granted)), random.IntN(len(verbs))
		s.questions = append(s.questions, question{
			name: fmt.Sprintf("%s, %s", user(u), verbs[verb]), subject: entity{"user", user(u), nil}, action: verbs[verb],
			resource: entity{"dataset", resource(granted[u].resource), nil},
			allow:    verb == 0 || slices.Contains(verbsOf(granted[u].role), verbs[verb]),
		})
	}
	return s
}

// observe runs f while an engine is asked at a fixed rate and the heap is
// looked at every millisecond. It returns how long after it was due each
// question was answered, and the most that the heap had.
func observe(b *testing.B, s *shape, e asked, perSecond int, f func()) (latencies []time.Duration, most usage) {
	b.Helper()
	stop := make(chan struct{})
	var both sync.WaitGroup
	var failed error
	both.Go(func() { latencies, failed = askAtRate(b.Context(), s, e, perSecond, stop) })
	both.Go(func() { most = watchHeap(stop) })
	f()
	close(stop)
	both.Wait()
	if failed != nil {
		b.Fatal(failed)
	}
	return latencies, most
}

// askAtRate asks a shape's questions in turn, each at the time that it is due,
// or as soon after as the ones before allow: what they are late counts for
// those that wait, as it does for callers who do not know of one another.
func askAtRate(ctx context.Context, s *shape, e asked, perSecond int, stop <-chan struct{}) ([]time.Duration, error) {
	latencies := make([]time.Duration, 0, 60*perSecond)
	for start, n := time.Now(), 0; ; n++ {
		due := start.Add(time.Duration(n) * time.Second / time.Duration(perSecond))
		sleepUntil(due)
		select {
		case <-stop:
			return latencies, nil
		default:
		}
		q := n % len(s.questions)
		if allowed, err := e.allows(ctx, q); err != nil || allowed != s.questions[q].allow {
			return nil, fmt.Errorf("%s: %t, %w", s.questions[q].name, allowed, err)
		}
		latencies = append(latencies, time.Since(due))
	}
}

// sleepUntil asks the kernel directly: Go's own timers are a millisecond late
// on an idle processor, which would hide what is measured.
func sleepUntil(t time.Time) {
	for wait := time.Until(t); wait > 0; wait = time.Until(t) {
		ts := syscall.NsecToTimespec(wait.Nanoseconds())
		if err := syscall.Nanosleep(&ts, nil); err != nil && err != syscall.EINTR {
			return
		}
	}
}

// usage is what is on the heap, in bytes.
type usage struct {
	objects float64 // whatever has not been swept: garbage counts
	live    float64 // what the last cycle of the collector found alive
}

func (u usage) max(other usage) usage {
	return usage{max(u.objects, other.objects), max(u.live, other.live)}
}

// heap returns the usage after a full collection.
func heap() usage {
	runtime.GC()
	runtime.GC() // what the first one found dead is swept now
	return readHeap()
}

func readHeap() usage {
	samples := [...]metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(samples[:])
	return usage{float64(samples[0].Value.Uint64()), float64(samples[1].Value.Uint64())}
}

func watchHeap(stop <-chan struct{}) (most usage) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		most = most.max(readHeap())
		select {
		case <-stop:
			return most.max(readHeap())
		case <-tick.C:
		}
	}
}

// tail returns the 99.9th percentile in microseconds.
func tail(latencies []time.Duration) float64 {
	slices.Sort(latencies)
	return float64(latencies[len(latencies)*999/1000].Nanoseconds()) / 1e3
}

// free answers without being asked.
type free struct{ shape *shape }

func (e free) allows(_ context.Context, question int) (bool, error) {
	return e.shape.questions[question].allow, nil
}

func (e free) answer(_ context.Context, question int) (answer, error) {
	return e.shape.questions[question].want(), nil
}
