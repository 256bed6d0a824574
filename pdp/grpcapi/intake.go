package grpcapi

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that codec wraps
	"google.golang.org/grpc/mem"

	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// An encoded list of `true` is 4 bytes for each element, and some 90 in memory.
// What a request costs is therefore decided while it is still bytes: one that
// is too large, or for which there is no room now, is never decoded.

// intake is the room for requests that are decoded, wait or are decided.
type intake struct {
	most int

	mu   sync.Mutex
	held int // bytes, as they came over the wire
}

// largeRequest is the size from which on requests share half of the room, so
// that a few large ones cannot shut out all the small ones.
const largeRequest = 64 << 10

// take makes room for n bytes, or says at once that there is none.
func (i *intake) take(n int) (release func(), err error) {
	most := i.most
	if n > largeRequest {
		most /= 2
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.held+n > most {
		return nil, policy.Errorf(policy.Exhausted, "requests of %d bytes are under way, which leaves no room for one of %d; ask again later, ask another PDP, or send less", i.held, n)
	}
	i.held += n
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.held -= n
	}, nil
}

// arriving is a request that is still bytes.
type arriving struct {
	message any
	admit   func(bytes int) error
	refused error
}

// codec is protobuf's, which asks before it decodes a request.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// Unmarshal leaves it to the handler to return the refusal: of an error here
// gRPC makes INTERNAL.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	a, ok := v.(*arriving)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	if a.refused = a.admit(data.Len()); a.refused == nil {
		return c.CodecV2.Unmarshal(data, a.message)
	}
	return nil
}

// service describes AuthorizationService with each method behind the intake.
// Room is kept until the answer is there.
func (i *intake) service(g *guard, limits policy.Limits) *grpc.ServiceDesc {
	desc := microwallv1.AuthorizationService_ServiceDesc
	desc.Methods = slices.Clone(desc.Methods)
	for at := range desc.Methods {
		name, handle := "/"+desc.ServiceName+"/"+desc.Methods[at].MethodName, desc.Methods[at].Handler
		desc.Methods[at].Handler = func(server any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			a := &arriving{}
			release := func() {}
			defer func() { release() }()
			a.admit = func(bytes int) (err error) {
				if _, one := a.message.(*microwallv1.AuthorizeRequest); one {
					if err := wire.CheckSize(bytes, limits); err != nil {
						return err
					}
				}
				taken, err := i.take(bytes)
				if err == nil {
					release = taken
				}
				return err
			}
			answer, err := handle(server, ctx, func(m any) error {
				a.message = m
				if err := decode(a); err != nil {
					return err
				}
				return a.refused
			}, intercept)
			if a.refused != nil {
				return nil, g.leave(ctx, name, nil, a.refused)
			}
			return answer, err
		}
	}
	return &desc
}
