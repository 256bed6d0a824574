package grpcapi

import (
	"cmp"
	"context"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// Config of a server. Decide is required; every other field may be zero.
type Config struct {
	// Decide answers AuthorizationService.
	Decide policy.Authorizer
	// Releases answers PolicyService; nil where folders decide, which take no
	// releases.
	Releases *pdp.Releases
	// Watch answers PolicyService.Watch; nil answers it for nobody.
	Watch *pdp.Service
	// Confirm answers PolicyService.Confirm: it returns a verified beacon of the
	// namespace whose tick was committed after it was called. It is called by many
	// at once. Nil answers it for nobody.
	Confirm func(context.Context, policy.Namespace) (*bundles.SignedBeacon, error)
	// Limits on requests.
	Limits policy.Limits
	// Bundles limits what is pushed.
	Bundles bundles.Limits
	// Credentials of the connections; nil is plaintext.
	Credentials credentials.TransportCredentials
	// ClientCertificates makes PolicyService answer only peers with a verified
	// client certificate.
	ClientCertificates bool
	// IntakeBytes is how many bytes of requests are held at once, as they came
	// over the wire; what has no room is refused at once, before it is decoded.
	// Requests over 64 KiB get half of it. Decoded, a request can be fifty times
	// as large. Zero is 32 MiB, or four of the largest batches if that is more.
	IntakeBytes int
	// HandOuts is how many bundles and lists of statuses are handed out at once;
	// more are refused at once. Zero is 16.
	HandOuts int
	// HandOutTimeout is how long a bundle is handed out at most, however slowly
	// the peer reads. Zero is two minutes.
	HandOutTimeout time.Duration
	// Connections says how long a connection lives. A zero field of it is:
	// MaxConnectionIdle 15 minutes; MaxConnectionAge one hour, so that a client
	// whose authority is trusted no more does not stay; MaxConnectionAgeGrace
	// five minutes; Time 30 seconds; Timeout ten seconds.
	Connections keepalive.ServerParameters
	// Events is told of every call that failed; nil tells nobody.
	Events func(CallFailed)
}

func (c Config) withDefaults() Config {
	if c.Events == nil {
		c.Events = func(CallFailed) {}
	}
	c.IntakeBytes = cmp.Or(c.IntakeBytes, max(32<<20, 4*wire.MaxMessage(c.Limits)))
	c.HandOuts = cmp.Or(c.HandOuts, 16)
	c.HandOutTimeout = cmp.Or(c.HandOutTimeout, 2*time.Minute)
	k := &c.Connections
	k.MaxConnectionIdle = cmp.Or(k.MaxConnectionIdle, 15*time.Minute)
	k.MaxConnectionAge = cmp.Or(k.MaxConnectionAge, time.Hour)
	k.MaxConnectionAgeGrace = cmp.Or(k.MaxConnectionAgeGrace, 5*time.Minute)
	k.Time = cmp.Or(k.Time, 30*time.Second)
	k.Timeout = cmp.Or(k.Timeout, 10*time.Second)
	return c
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
	// stop ends calls that would go on for ever.
	stop context.CancelFunc
}

// New returns a server that is ready to [grpc.Server.Serve]. Its health is
// SERVING from the start.
func New(config Config) *Server {
	config = config.withDefaults()
	g := &guard{config}
	in := &intake{most: config.IntakeBytes}
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(wire.MaxMessage(config.Limits)),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxConcurrentStreams(1000),
		grpc.UnaryInterceptor(g.unary),
		grpc.StreamInterceptor(g.stream),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(config.Connections),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.WaitForHandlers(true),
	}
	if config.Credentials != nil {
		options = append(options, grpc.Creds(config.Credentials))
	}
	stopping, stop := context.WithCancel(context.Background())
	s := &Server{Server: grpc.NewServer(options...), health: health.NewServer(), stop: stop}
	answers := &authorization{decide: config.Decide, limits: config.Limits}
	s.RegisterService(answers.service(in, g), answers)
	microwallv1.RegisterPolicyServiceServer(s.Server, &policies{
		releases: config.Releases, limits: config.Bundles, requests: config.Limits,
		watch: config.Watch, confirm: config.Confirm, stopping: stopping,
		handOuts: make(chan struct{}, config.HandOuts), timeout: config.HandOutTimeout,
	})
	healthv1.RegisterHealthServer(s.Server, s.health)
	reflection.Register(s.Server)
	for _, service := range []string{microwallv1.AuthorizationService_ServiceDesc.ServiceName, microwallv1.PolicyService_ServiceDesc.ServiceName} {
		s.health.SetServingStatus(service, healthv1.HealthCheckResponse_SERVING)
	}
	return s
}

// Shutdown says NOT_SERVING to whoever asks for health, ends watches, finishes
// the other calls that were taken, and returns. If ctx ends first, what is left is cut off.
func (s *Server) Shutdown(ctx context.Context) {
	s.health.Shutdown()
	s.stop()
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

// open reports whether everybody may call a method who may ask for decisions.
// Those of PolicyService that are open tell versions, as decisions do.
func open(method string) bool {
	switch method {
	case microwallv1.PolicyService_Watch_FullMethodName, microwallv1.PolicyService_Confirm_FullMethodName:
		return true
	}
	return !strings.HasPrefix(method, policyMethods)
}

func (g *guard) enter(ctx context.Context, method string) error {
	if !g.config.ClientCertificates || open(method) {
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
	// It fails only outside of a call.
	_ = grpc.SetTrailer(ctx, metadata.Pairs(append(wire.ByProto(err), wire.Answered, "1")...))
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
