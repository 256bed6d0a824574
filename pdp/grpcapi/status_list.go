package grpcapi

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// statusesAtOnce is how many statuses go into a message: a status may have
// 2 KB, and a message 4 MiB.
const statusesAtOnce = 200

func (p *policies) ListStatuses(m *microwallv1.ListStatusesRequest, stream grpc.ServerStreamingServer[microwallv1.ListStatusesResponse]) error {
	releases, err := p.store()
	if err != nil {
		return err
	}
	n := policy.Namespace(m.GetNamespace())
	if n != "" {
		if n, err = policy.ParseNamespace(m.GetNamespace()); err != nil {
			return err
		}
	}
	// They may be as much as a large bundle, and a peer that reads slowly has
	// them held.
	select {
	case p.handOuts <- struct{}{}:
		defer func() { <-p.handOuts }()
	default:
		return policy.Errorf(policy.Exhausted, "%d bundles or lists are handed out already; ask again later, or ask another PDP", cap(p.handOuts))
	}
	ctx, cancel := context.WithTimeout(stream.Context(), p.timeout)
	defer cancel()
	all, incomplete := releases.Statuses(ctx, n)
	if incomplete != nil && len(all) == 0 {
		return p.handOutEnded(ctx, stream.Context(), incomplete)
	}
	send := func() error {
		for some := range slices.Chunk(all, statusesAtOnce) {
			answer := &microwallv1.ListStatusesResponse{}
			for _, s := range some {
				answer.Statuses = append(answer.Statuses, &microwallv1.InstanceStatus{
					Namespace: string(s.Namespace), Principal: s.Principal, Instance: s.Instance, Received: timestamppb.New(s.Received), Report: s.Body,
				})
			}
			if err := stream.Send(answer); err != nil {
				return err
			}
		}
		return incomplete
	}
	// As in GetBundle, only the end of the call interrupts a send.
	done := make(chan error, 1)
	go func() { done <- send() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return p.handOutEnded(ctx, stream.Context(), ctx.Err())
	}
}
