package grpcapi

import (
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// statusesAtOnce is how many statuses go into a message: a status may have
// 16 KB, and a message 4 MiB.
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
	all, err := releases.Statuses(stream.Context(), n)
	if err != nil {
		return err
	}
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
	return nil
}
