package grpcapi

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// Watch ends with the server: a watch that nobody ends would hold up its
// shutdown.
func (p *policies) Watch(m *microwallv1.WatchRequest, stream grpc.ServerStreamingServer[microwallv1.WatchResponse]) error {
	if p.watch == nil {
		return policy.Errorf(policy.Unavailable, "this server has nothing to be watched; ask for every decision")
	}
	namespaces, err := p.namespaces(m.GetNamespaces())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer context.AfterFunc(p.stopping, func() {
		cancel(policy.Errorf(policy.Unavailable, "the server is stopping; watch another"))
	})()
	return p.watch.Watch(ctx, namespaces, func(s pdp.State) error { return stream.Send(stateProto(s)) })
}

func stateProto(s pdp.State) *microwallv1.WatchResponse {
	m := &microwallv1.WatchResponse{Namespace: string(s.Namespace), Trust: s.Trust}
	if s.Err != nil {
		status := Status(s.Err)
		m.Error = &microwallv1.WatchError{Code: int32(status.Code()), Message: status.Message()} //nolint:gosec // there are 17 codes
	}
	if s.Layout != nil {
		m.Engine, m.Reads = s.Layout.Engine(), wire.ReadsProto(s.Layout.Reads())
	}
	for _, p := range s.Path {
		proof := &microwallv1.Proof{Version: wire.VersionProto(p.Version), DenyWhenStale: p.WhenStale == bundles.Deny}
		if !p.Time.IsZero() {
			proof.Time = timestamppb.New(p.Time)
		}
		if p.MaxStaleness > 0 {
			proof.MaxStaleness = durationpb.New(p.MaxStaleness)
		}
		m.Path = append(m.Path, proof)
	}
	return m
}
