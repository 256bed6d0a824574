package main

import (
	"context"
	"fmt"
	"strconv"
	"testing/fstest"

	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/bench/domain"
	"github.com/microwall/microwall/policy"
)

// rules read of a request what policies often read.
const rules = `package authz

default allow := false

allow if {
	startswith(input.subject.id, "spiffe://boutique.example/")
	input.subject.properties.department in {"sales", "support"}
	input.action.name == "AddItem"
	input.resource.type == "grpc"
	input.time.hour >= 0
	dear
}

reasons contains data.release
`

const (
	cheap = "\ndear := true\n"
	// dear takes several times as long as a look-up, so that the embedded client
	// remembers what it decides.
	dear = "\ndear if { some i in numbers.range(1, 100); i == 75 }\n"

	limits = `package authz

deny contains "never" if input.action.name == "Forbidden"
`
)

// cartBundle is a bundle of the rules, which names itself in its reason.
func cartBundle(more string, release int) fstest.MapFS {
	return fstest.MapFS{
		"authz.rego": {Data: []byte(rules + more)},
		"data.json":  {Data: []byte(`{"release": "` + strconv.Itoa(release) + `"}`)},
	}
}

// pushBoth releases the guardrail and the cart.
func pushBoth(ctx context.Context, d *domain.Domain, more string) error {
	if _, err := d.Push(ctx, domain.Guardrail, fstest.MapFS{"authz.rego": {Data: []byte(limits)}}); err != nil {
		return err
	}
	_, err := d.Push(ctx, domain.Cart, cartBundle(more, 0))
	return err
}

// caller returns the request of a caller, with a context that no policy reads.
func caller(name string) (policy.Request, error) {
	properties, err := policy.NewProperties(map[string]any{"department": "sales", "region": "eu-west", "on_call": true, "roles": []string{"cashier", "auditor"}})
	if err != nil {
		return policy.Request{}, err
	}
	unread, err := policy.NewProperties(map[string]any{"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "user_agent": "grpc-go/1.75.0"})
	return policy.Request{
		Namespace: domain.Cart,
		Subject:   policy.Entity{Type: "workload", ID: subject(name), Properties: properties},
		Action:    policy.Action{Name: "AddItem"},
		Resource:  policy.Entity{Type: "grpc", ID: "hipstershop.CartService"},
		Context:   unread,
	}, err
}

func subject(name string) string { return "spiffe://boutique.example/ns/default/sa/" + name }

// startRemote starts a client of PDPs.
func startRemote(ctx context.Context, keep cache.Config, pdps ...*domain.PDP) (*remote.Client, error) {
	config := remote.Config{Namespaces: []policy.Namespace{domain.Cart}, Cache: keep}
	for _, p := range pdps {
		config.Servers = append(config.Servers, p.Address)
	}
	return remote.New(ctx, config)
}

// remember asks the same in rows until all of a row are hits: a client must be told
// first what decides, or find out what pays.
func remember(ctx context.Context, who policy.Authorizer, stats func() cache.Stats, r policy.Request) error {
	const row = 500
	for hits := uint64(0); hits < row; {
		before := stats().Hits
		for range row {
			if err := ask(ctx, who, r); err != nil {
				return err
			}
		}
		hits = stats().Hits - before
	}
	return nil
}

// ask asks what is allowed.
func ask(ctx context.Context, who policy.Authorizer, r policy.Request) error {
	d, err := who.Authorize(ctx, r)
	if err == nil && !d.Allowed {
		err = fmt.Errorf("denied: %+v", d)
	}
	return err
}
