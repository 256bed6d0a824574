package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/examples/boutique"
	"github.com/microwall/microwall/internal/bench/domain"
	"github.com/microwall/microwall/internal/bench/figures"
	"github.com/microwall/microwall/policy"
)

const (
	// pushes that are measured, and those before them, by which connections
	// are made and code is paged in.
	pushes = 100
	warmUp = 5

	maxRego = 1 << 10
	maxData = 16 << 10

	// tooLate ends a push that never reaches the client.
	tooLate = 30 * time.Second
)

// push16k pushes n releases of the boutique's cart, below its guardrail, one
// after the other, and measures each from the call of Push (which reads the
// head, signs and sends) to the first decision by it in an embedded client.
func push16k(ctx context.Context, p figures.Progress, n int) (all figures.Samples, err error) {
	dir, err := os.MkdirTemp("", "microwall-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d, err := domain.Start(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	folder := filepath.Join(dir, "cart")
	if err := writeCart(folder); err != nil {
		return nil, err
	}
	limits, err := fs.Sub(boutique.FS, "guardrails")
	if err != nil {
		return nil, err
	}
	if _, err := d.Push(ctx, domain.Guardrail, limits); err != nil {
		return nil, err
	}
	// The callback must not block, and what is in the channel already says the
	// same.
	activated := make(chan struct{}, 1)
	client, err := embedded.New(ctx, embedded.Config{
		NATS: d.URL, TrustFile: d.TrustFile, Namespaces: []policy.Namespace{domain.Cart}, Dir: filepath.Join(dir, "client"),
		OnRelease: func(e live.Event) {
			if _, ok := e.(live.Activated); ok {
				select {
				case activated <- struct{}{}:
				default:
				}
			}
		},
	})
	if err != nil {
		return nil, err
	}
	defer client.Close()

	for i := range warmUp + n {
		took, err := pushOnce(ctx, d, client, activated, folder, i)
		if err != nil {
			return nil, fmt.Errorf("push %d: %w", i+1, err)
		}
		if i >= warmUp {
			all = append(all, took)
		}
		p("push16k", i+1, warmUp+n)
	}
	return all, nil
}

// pushOnce pushes a release that lets a caller in whom none before it did, and
// has the client asked for that one whenever it activates something. The
// decision must be by the version that was pushed.
func pushOnce(ctx context.Context, d *domain.Domain, client *embedded.Client, activated <-chan struct{}, folder string, i int) (time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, tooLate, fmt.Errorf("no decision by the release within %s", tooLate))
	defer cancel()
	caller := fmt.Sprintf("spiffe://boutique.example/ns/default/sa/release-%d", i)
	if err := writeData(folder, caller); err != nil {
		return 0, err
	}
	draft, err := d.Draft(domain.Cart, os.DirFS(folder))
	if err != nil {
		return 0, err
	}
	r := policy.Request{
		Namespace: domain.Cart,
		Subject:   policy.Entity{Type: "workload", ID: caller},
		Action:    policy.Action{Name: "AddItem"},
		Resource:  policy.Entity{Type: "grpc", ID: "hipstershop.CartService"},
	}
	switch before, err := client.Authorize(ctx, r); {
	case before.Allowed:
		return 0, fmt.Errorf("allowed before the push: %+v", before)
	case err != nil && policy.KindOf(err) != policy.NotFound:
		return 0, err
	}

	got, released, took, err := d.ReleaseUntil(ctx, draft, func(ctx context.Context) (policy.Decision, error) {
		for {
			select {
			case <-activated:
			case <-ctx.Done():
				return policy.Decision{}, context.Cause(ctx)
			}
			if decision, err := client.Authorize(ctx, r); err == nil && decision.Allowed {
				return decision, nil
			}
		}
	})
	switch {
	case err != nil:
		return 0, err
	case got.Versions[len(got.Versions)-1] != released:
		return 0, fmt.Errorf("%v was pushed, and the client decided by %v", released, got.Versions)
	}
	return took, nil
}

// cartTest is what a team would not push without: it runs in the PDP at every
// push.
const cartTest = `package authz_test

import data.authz

call(account) := {
	"subject": {"type": "workload", "id": concat("/", ["spiffe://boutique.example/ns/default/sa", account])},
	"action": {"name": "AddItem"},
	"resource": {"type": "grpc", "id": "hipstershop.CartService"},
}

test_the_frontend_may if authz.allow with input as call("frontend")

test_others_may_not if not authz.allow with input as call("adservice")
`

// writeCart makes a folder with the policy of the boutique's cart.
func writeCart(folder string) error {
	source, err := fs.ReadFile(boutique.FS, "cart/authz.rego")
	if err != nil {
		return err
	}
	if n := len(source) + len(cartTest); n > maxRego {
		return fmt.Errorf("the Rego is %d bytes, more than the %d that this measures", n, maxRego)
	}
	return errors.Join(
		os.Mkdir(folder, 0o700),
		os.WriteFile(filepath.Join(folder, "authz.rego"), source, 0o600),
		os.WriteFile(filepath.Join(folder, "authz_test.rego"), []byte(cartTest), 0o600),
	)
}

// writeData fills the data up to its size: the caller, the frontend, and many
// others that no release before had.
func writeData(folder, caller string) error {
	data, err := filledData(caller, maxData)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "data.json"), data, 0o600)
}

// filledData is the data of a cart that a caller may add to, as large as it may
// be: with as many others, of whom no two calls return one.
func filledData(caller string, size int) ([]byte, error) {
	const account = "spiffe://boutique.example/ns/default/sa/"
	callers := []string{account + "frontend", caller}
	one, err := json.Marshal(account + rand.Text())
	if err != nil {
		return nil, err
	}
	data, err := addItem(callers)
	if err != nil {
		return nil, err
	}
	for range (size - len(data)) / (len(one) + len(",")) {
		callers = append(callers, account+rand.Text())
	}
	return addItem(callers)
}

func addItem(callers []string) ([]byte, error) {
	return json.Marshal(map[string]any{"callers": map[string]any{"AddItem": callers}})
}
