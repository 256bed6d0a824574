package grpcapi

import (
	"context"

	"google.golang.org/grpc"

	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// authorization answers AuthorizationService. It reads requests itself, from the
// bytes that came: see [wire.DecodeRequest].
type authorization struct {
	decide policy.Authorizer
	limits policy.Limits
}

// service describes AuthorizationService to gRPC.
func (a *authorization) service(in *intake, g *guard) *grpc.ServiceDesc {
	desc := microwallv1.AuthorizationService_ServiceDesc
	desc.HandlerType = (*any)(nil)
	desc.Methods = []grpc.MethodDesc{
		in.method("Authorize", g, func(bytes int) error { return wire.CheckSize(bytes, a.limits) }, a.Authorize),
		// A batch as a whole has the limit of a message.
		in.method("AuthorizeBatch", g, func(int) error { return nil }, a.AuthorizeBatch),
	}
	return &desc
}

// Authorize answers an encoded AuthorizeRequest.
func (a *authorization) Authorize(ctx context.Context, request string) (any, error) {
	r, err := wire.DecodeRequest(request)
	if err != nil {
		return nil, err
	}
	d, err := a.decide.Authorize(ctx, r)
	if err != nil {
		return nil, err
	}
	decision, err := wire.DecisionProto(&d)
	if err != nil {
		return nil, err
	}
	return &microwallv1.AuthorizeResponse{Decision: decision, Versions: wire.VersionsProto(d.Versions), Evaluation: wire.EvaluationProto(d.Evaluation)}, nil
}

// AuthorizeBatch answers an encoded AuthorizeBatchRequest.
func (a *authorization) AuthorizeBatch(ctx context.Context, request string) (any, error) {
	rs, faults, err := wire.DecodeBatch(request, a.limits)
	if err != nil {
		return nil, err
	}
	// An item that cannot be read has its error; the others are asked.
	asked := rs
	if faults != nil {
		asked = nil
		for i := range rs {
			if faults[i] == nil {
				asked = append(asked, rs[i])
			}
		}
	}
	var results []policy.Result
	if len(asked) > 0 {
		if results, err = a.decide.AuthorizeBatch(ctx, asked); err != nil {
			return nil, err
		}
	}
	answer := newBatchAnswer(len(rs), results)
	for i := range rs {
		switch {
		case faults != nil && faults[i] != nil:
			err = answer.add(&policy.Result{Err: faults[i]})
		default:
			err = answer.add(&results[0])
			results = results[1:]
		}
		if err != nil {
			return nil, err
		}
	}
	return answer.encoded()
}
