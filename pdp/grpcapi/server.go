package grpcapi

import (
	"context"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// Config of a server. Decide is required.
type Config struct {
	// Decide answers AuthorizationService.
	Decide policy.Authorizer
	// Releases answers PolicyService; nil where folders decide, which take no
	// releases.
	Releases *pdp.Releases
	// Limits on requests.
	Limits policy.Limits
	// Bundles limits what is pushed.
	Bundles bundles.Limits
	// Credentials of the connections; nil is plaintext.
	Credentials credentials.TransportCredentials
	// ClientCertificates makes PolicyService answer only peers with a verified
	// client certificate.
	ClientCertificates bool
	// Events is told of every call that failed; nil tells nobody.
	Events func(CallFailed)
}

// CallFailed is a call that ended with an error. Err has what the caller is not
// told.
type CallFailed struct {
	Method string
	Peer   string
	Err    error
}

// Server is the gRPC server of a PDP.
type Server struct {
	*grpc.Server
	health *health.Server
}

// New returns a server that is ready to [grpc.Server.Serve]. Its health is
// SERVING from the start.
func New(config Config) *Server {
	if config.Events == nil {
		config.Events = func(CallFailed) {}
	}
	g := &guard{config}
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(wire.MaxMessage(config.Limits)),
		grpc.MaxConcurrentStreams(4096),
		grpc.UnaryInterceptor(g.unary),
		grpc.StreamInterceptor(g.stream),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.WaitForHandlers(true),
	}
	if config.Credentials != nil {
		options = append(options, grpc.Creds(config.Credentials))
	}
	s := &Server{Server: grpc.NewServer(options...), health: health.NewServer()}
	microwallv1.RegisterAuthorizationServiceServer(s.Server, &authorization{decide: config.Decide, limits: config.Limits})
	microwallv1.RegisterPolicyServiceServer(s.Server, &policies{releases: config.Releases, limits: config.Bundles})
	healthv1.RegisterHealthServer(s.Server, s.health)
	reflection.Register(s.Server)
	for _, service := range []string{microwallv1.AuthorizationService_ServiceDesc.ServiceName, microwallv1.PolicyService_ServiceDesc.ServiceName} {
		s.health.SetServingStatus(service, healthv1.HealthCheckResponse_SERVING)
	}
	return s
}

// Shutdown says NOT_SERVING to whoever asks for health, finishes the calls that
// were taken, and returns. If ctx ends first, what is left is cut off.
func (s *Server) Shutdown(ctx context.Context) {
	s.health.Shutdown()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.GracefulStop()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.Stop()
		<-done
	}
}

// guard stands before every call: it lets in who may come in, catches panics
// and turns errors into status codes.
type guard struct{ config Config }

var policyMethods = "/" + microwallv1.PolicyService_ServiceDesc.ServiceName + "/"

func (g *guard) enter(ctx context.Context, method string) error {
	if !g.config.ClientCertificates || !strings.HasPrefix(method, policyMethods) {
		return nil
	}
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.VerifiedChains) > 0 {
			return nil
		}
	}
	return policy.Errorf(policy.Denied, "PolicyService needs a client certificate that the server's --client-ca has signed; pass --cert and --cert-key")
}

func (g *guard) leave(ctx context.Context, method string, recovered any, err error) error {
	if recovered != nil {
		err = policy.Errorf(policy.Internal, "panic: %v\n%s", recovered, debug.Stack())
	}
	if err == nil {
		return nil
	}
	failed := CallFailed{Method: method, Err: err}
	if p, ok := peer.FromContext(ctx); ok {
		failed.Peer = p.Addr.String()
	}
	g.config.Events(failed)
	return Status(err).Err()
}

func (g *guard) unary(ctx context.Context, m any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (answer any, err error) {
	defer func() {
		if err = g.leave(ctx, info.FullMethod, recover(), err); err != nil {
			answer = nil
		}
	}()
	if err := g.enter(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handle(ctx, m)
}

func (g *guard) stream(server any, s grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	defer func() { err = g.leave(s.Context(), info.FullMethod, recover(), err) }()
	if err := g.enter(s.Context(), info.FullMethod); err != nil {
		return err
	}
	return handle(server, s)
}
