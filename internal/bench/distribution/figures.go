package main

import (
	"context"
	"fmt"

	"github.com/microwall/microwall/internal/bench/figures"
)

// all returns all figures there are.
func all(p figures.Progress) []figures.Figure {
	push := figures.Share(func(ctx context.Context) (figures.Samples, error) { return push16k(ctx, p, pushes) })
	quantile := func(q float64) func(figures.Samples) float64 {
		return func(s figures.Samples) float64 { return s.Quantile(q) }
	}
	beside := figures.Share(func(ctx context.Context) (latencies, error) { return activate10m(ctx, p, tenMB, activations, quiet) })
	begin := figures.Share(func(ctx context.Context) (beginnings, error) { return startFromDisk(ctx, p, starts) })
	return []figures.Figure{
		{Name: "push16k", Unit: "ms", Bar: figures.AtMost(25), What: fmt.Sprintf("median of %d pushes of 1 KB of Rego and 16 KB of data, from the call of Push to the first decision by the release in an embedded client", pushes),
			Measure: push.Value(quantile(0.5))},
		{Name: "push16k_p99", Unit: "ms", Bar: figures.AtMost(100), What: "99th percentile of the same pushes",
			Measure: push.Value(quantile(0.99))},
		{Name: "clients1000", Unit: "ms", Bar: figures.AtMost(3000), What: fmt.Sprintf("1,000 embedded clients in %d processes, each compiling 5 rules and 16 KB of data for itself: from the call of Push to the last one that decides by it, the slowest of %d", processes, rounds),
			Measure: func(ctx context.Context) (float64, error) { return clients1000(ctx, p, 1000) }},
		{Name: "subscribers5000", Unit: "ms", Bar: figures.AtMost(500), What: fmt.Sprintf("5,000 connections that subscribe to the pushes of a namespace: from the call of Push to the last one that is told, the slowest of %d", rounds),
			Measure: func(ctx context.Context) (float64, error) { return subscribers5000(ctx, p, 5000) }},
		{Name: "idle", Unit: "KB", Bar: figures.AtMost(30), What: "memory of the server for each of 1,000 idle embedded clients, connections included: heap and stacks after garbage collection, no TLS",
			Measure: func(ctx context.Context) (float64, error) { return idle(ctx, crew{}, 1000) }},
		{Name: "idle_named", Unit: "KB", Bar: figures.AtMost(30), What: "the same with credentials for one namespace and its guardrail, as behind `microwall nats-config`",
			Measure: func(ctx context.Context) (float64, error) { return idle(ctx, crew{Credentials: "own"}, 1000) }},
		{Name: "idle_bare", Unit: "KB", What: "the same of 1,000 connections that may do everything, and never ask nor subscribe: what nats-server takes by itself",
			Measure: func(ctx context.Context) (float64, error) { return idleBare(ctx, 1000) }},
		{Name: "restart", Unit: "ms", Bar: figures.AtMost(6000), What: fmt.Sprintf("1,000 embedded clients, the broker is restarted, and a release pushed: from the restart on to the last one that decides by it, the slowest of %d", rounds),
			Measure: func(ctx context.Context) (float64, error) { return restart(ctx, p, 1000) }},
		{Name: "start", Unit: "ms", Bar: figures.AtMost(50), What: fmt.Sprintf("a client with releases of 5 rules and 16 KB of data on disk, and no broker: from its start to its first decision, the slowest of %d", starts),
			Measure: begin.Value(func(b beginnings) float64 { return b.start.Quantile(1) })},
		{Name: "start_compile", Unit: "ms", What: "the same releases compiled, and decided by, without a client, the slowest of as many: what of that is not its own",
			Measure: begin.Value(func(b beginnings) float64 { return b.compile.Quantile(1) })},
		{Name: "activate10m", Unit: "x", Bar: figures.AtMost(2), What: "decisions that are due at fixed times, 5,000 a second: their latency at the 99.9th percentile while bundles of 10 MB are activated, as a multiple of that when nothing else happens",
			Measure: beside.Value(func(l latencies) float64 { return l.activating / l.quiet })},
		{Name: "activate10m_spin", Unit: "x", What: "the same while a loop does nothing: what the machine adds by itself",
			Measure: beside.Value(func(l latencies) float64 { return l.spinning / l.quiet })},
	}
}
