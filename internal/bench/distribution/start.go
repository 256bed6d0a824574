package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/internal/bench/domain"
	"github.com/microwall/microwall/internal/bench/figures"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// starts are how many starts of a client are measured.
const starts = 50

// beginnings are how long a client takes from its start to its first decision, and
// how long it takes to compile as much and decide by it, without a client: what
// of a start is not the client's own.
type beginnings struct{ start, compile figures.Samples }

// startFromDisk starts a client n times that has a release of five rules and 16 KB
// of data on disk, one like it for its guardrail, and the beacons of both. The
// broker is gone: its port refuses.
func startFromDisk(ctx context.Context, p figures.Progress, n int) (b beginnings, err error) {
	dir, err := os.MkdirTemp("", "microwall-bench-")
	if err != nil {
		return b, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d, err := domain.Start(ctx, dir)
	if err != nil {
		return b, err
	}
	defer d.Close()
	if err := pushBoth(ctx, d); err != nil {
		return b, err
	}
	config := embedded.Config{NATS: d.URL, TrustFile: d.TrustFile, Namespaces: []policy.Namespace{domain.Cart}, Dir: filepath.Join(dir, "client")}
	client, err := embedded.New(ctx, config)
	if err != nil {
		return b, err
	}
	client.Close()
	d.Close()

	r := policy.Request{
		Namespace: domain.Cart,
		Subject:   policy.Entity{Type: "workload", ID: "spiffe://boutique.example/ns/default/sa/frontend"},
		Action:    policy.Action{Name: "AddItem"},
		Resource:  policy.Entity{Type: "grpc", ID: "hipstershop.CartService"},
	}
	rules, err := fiveRuleBundle(0)
	if err != nil {
		return b, err
	}
	bundle, err := bundles.Read(rules)
	if err != nil {
		return b, err
	}
	for i := range n {
		begin := time.Now()
		client, err := embedded.New(ctx, config)
		if err != nil {
			return b, err
		}
		decision, err := client.Authorize(ctx, r)
		b.start = append(b.start, time.Since(begin))
		connected := client.Status().Connected
		client.Close()
		switch {
		case err != nil:
			return b, fmt.Errorf("start %d: %w", i+1, err)
		case len(decision.Versions) != 2 || connected:
			return b, fmt.Errorf("start %d: decided by %v, connected: %v", i+1, decision.Versions, connected)
		}

		begin = time.Now()
		snapshot, err := live.NewLocal(ctx, map[policy.Namespace]*bundles.Bundle{domain.Guardrail: bundle, domain.Cart: bundle}, []policy.Namespace{domain.Guardrail}, rego.Options{})
		if err != nil {
			return b, err
		}
		path, err := snapshot.Path(domain.Cart)
		if err != nil {
			return b, err
		}
		if _, err := path.Decide(ctx, rego.NewInput(&r, rego.NewStamp(begin))); err != nil {
			return b, err
		}
		b.compile = append(b.compile, time.Since(begin))
		p("start", i+1, n)
	}
	return b, nil
}
