package pap

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/microwall/microwall/internal/report"
	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// Status is what an instance says of itself and one namespace. It is its word.
type Status struct {
	Namespace           policy.Namespace
	Principal, Instance string
	// Received is when it said so, by the broker's clock.
	Received time.Time
	report.Report
}

// Statuses returns what those who decide say of a namespace, or for "" of all,
// sorted by namespace, principal and instance. What cannot be read is left out.
// With an error it is what came before that: incomplete.
func (c *Client) Statuses(ctx context.Context, n policy.Namespace) (all []Status, err error) {
	stream, err := c.policies.ListStatuses(ctx, &microwallv1.ListStatusesRequest{Namespace: string(n)})
	if err != nil {
		return nil, wire.Error(c.server, err)
	}
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return all, wire.Error(c.server, err)
		}
		for _, s := range m.GetStatuses() {
			said, err := report.Parse(s.GetReport())
			if err != nil || !areNames(s.GetNamespace(), s.GetPrincipal(), s.GetInstance()) {
				continue
			}
			all = append(all, Status{
				Namespace: policy.Namespace(s.GetNamespace()), Principal: s.GetPrincipal(), Instance: s.GetInstance(), Received: s.GetReceived().AsTime(), Report: said,
			})
		}
	}
}

// areNames reports whether these are what they should be: the server's word, too,
// is not believed, and may reach a terminal.
func areNames(all ...string) bool {
	for _, name := range all {
		if _, err := policy.ParseNamespace(name); err != nil {
			return false
		}
	}
	return true
}
