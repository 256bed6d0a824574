package grpcapi

import (
	"context"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that codec wraps
	"google.golang.org/grpc/mem"

	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// An encoded list of `true` is 4 bytes for each element, and up to 90 in memory.
// What a request costs is therefore decided while it is still bytes: one that
// is too large, or for which there is no room now, is never read.

// intake is the room for requests that are read, wait or are decided.
type intake struct {
	most int

	mu   sync.Mutex
	held int // bytes, as they came over the wire
}

// largeRequest is the size from which on requests share half of the room, so
// that a few large ones cannot shut out all the small ones.
const largeRequest = 64 << 10

// take makes room for n bytes, or says at once that there is none.
func (i *intake) take(n int) error {
	most := i.most
	if n > largeRequest {
		most /= 2
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.held+n > most {
		return policy.Errorf(policy.Exhausted, "requests of %d bytes are under way, which leaves no room for one of %d; ask again later, ask another PDP, or send less", i.held, n)
	}
	i.held += n
	return nil
}

// give returns the room for n bytes.
func (i *intake) give(n int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.held -= n
}

// arriving is a request that comes in, and stays the bytes that it is.
type arriving struct {
	in      *intake
	most    func(bytes int) error // refuses what is too large by itself
	bytes   string
	held    int
	refused error
}

func (a *arriving) admit(size int) error {
	if err := a.most(size); err != nil {
		return err
	}
	if err := a.in.take(size); err != nil {
		return err
	}
	a.held += size // a call that sends a second message, which gRPC refuses, has taken room for both
	return nil
}

// codec is protobuf's, but leaves a request encoded, asks before it copies it,
// and takes an answer that is encoded.
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
		var b strings.Builder
		b.Grow(data.Len())
		for _, part := range data {
			b.Write(part.ReadOnlyData())
		}
		a.bytes = b.String()
	}
	return nil
}

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if e, ok := v.(encoded); ok {
		return mem.BufferSlice{mem.SliceBuffer(e)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// method describes a method of AuthorizationService, whose requests wait behind
// the intake and are handed over as bytes. Room is kept until the answer is
// there.
func (i *intake) method(name string, g *guard, most func(bytes int) error, answer func(ctx context.Context, request string) (any, error)) grpc.MethodDesc {
	info := &grpc.UnaryServerInfo{FullMethod: "/" + microwallv1.AuthorizationService_ServiceDesc.ServiceName + "/" + name}
	handle := func(ctx context.Context, request any) (any, error) { return answer(ctx, request.(*arriving).bytes) }
	return grpc.MethodDesc{MethodName: name, Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		a := &arriving{in: i, most: most}
		defer func() { i.give(a.held) }()
		if err := decode(a); err != nil {
			return nil, err
		}
		if a.refused != nil {
			return nil, g.leave(ctx, info.FullMethod, nil, a.refused)
		}
		return g.unary(ctx, a, info, handle)
	}}
}
