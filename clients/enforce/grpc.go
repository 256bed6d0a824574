package enforce

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/policy"
)

// UnaryServer returns the interceptor that stands before unary calls.
func (e *Enforcer) UnaryServer() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, message any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		ctx, refused := e.admit(ctx, askedByGRPC(ctx, Call{FullMethod: info.FullMethod, Message: message}))
		if refused != nil {
			return nil, e.status(refused)
		}
		return next(ctx, message)
	}
}

// StreamServer returns the interceptor that stands before streams.
func (e *Enforcer) StreamServer() grpc.StreamServerInterceptor {
	return func(server any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, refused := e.admit(s.Context(), askedByGRPC(s.Context(), Call{FullMethod: info.FullMethod}))
		if refused != nil {
			return e.status(refused)
		}
		return next(server, &stream{s, ctx})
	}
}

// stream is one that was let pass, with the context that it goes on with.
type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *stream) Context() context.Context { return s.ctx }

func askedByGRPC(ctx context.Context, c Call) *asked {
	a := &asked{Call: c, claims: metadata.ValueFromIncomingContext(ctx, Header)}
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			a.leaf = verifiedLeaf(&info.State)
		}
	}
	return a
}

// method returns the action and the resource of a gRPC call.
func method(full string) (string, policy.Entity, error) {
	name, ok := strings.CutPrefix(full, "/")
	service, method, _ := strings.Cut(name, "/")
	if !ok || service == "" || method == "" || strings.Contains(method, "/") {
		return "", policy.Entity{}, policy.Errorf(policy.BadRequest, "%.300q is no gRPC method; it is called /package.Service/Method", full)
	}
	return method, policy.Entity{Type: "grpc", ID: service}, nil
}

// status is what a peer is told that was refused.
func (e *Enforcer) status(r *Refused) error {
	code := codes.PermissionDenied
	if r.passing() {
		code = codes.Unavailable
	}
	return status.Error(code, r.told(e.config.Explain))
}

// UnaryClient returns the interceptor that sends the call path with unary calls.
func UnaryClient() grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, message, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		return invoke(outgoing(ctx), method, message, reply, conn, options...)
	}
}

// StreamClient returns the interceptor that sends the call path with streams.
func StreamClient() grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
		return open(outgoing(ctx), desc, conn, method, options...)
	}
}

// outgoing has the call path of ctx in what is sent, and no other.
func outgoing(ctx context.Context) context.Context {
	sent, has := metadata.FromOutgoingContext(ctx) // a copy
	claims := writeClaims(ctx)
	switch {
	case claims != "" && has:
		sent.Set(Header, claims)
	case claims != "":
		sent = metadata.Pairs(Header, claims)
	case len(sent.Get(Header)) > 0:
		sent.Delete(Header)
	default:
		return ctx
	}
	return metadata.NewOutgoingContext(ctx, sent)
}
