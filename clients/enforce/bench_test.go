package enforce_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/microwall/microwall/clients/enforce"
)

// verified is the context of a call by a peer whose certificate crypto/tls has
// verified, as gRPC hands it to an interceptor.
func verified(ctx context.Context, id string, header ...string) context.Context {
	ctx = peer.NewContext(ctx, &peer.Peer{AuthInfo: credentials.TLSInfo{State: connection(id)}})
	return metadata.NewIncomingContext(ctx, metadata.MD{"user-agent": {"grpc-go"}, enforce.Header: header})
}

// connection is one by a peer whose certificate crypto/tls has verified.
func connection(id string) tls.ConnectionState {
	u, err := url.Parse(id)
	if err != nil {
		panic(err)
	}
	leaf := &x509.Certificate{URIs: []*url.URL{u}}
	return tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf}}}
}

// nothing is a variable, so that it is called and not left out.
var nothing grpc.UnaryHandler = func(context.Context, any) (any, error) { return nil, nil }

// BenchmarkInterceptor is what an interceptor adds to a call: over a handler that
// does nothing, without a network, where the decision is in the embedded client's
// cache. "ratio" is to the handler alone.
func BenchmarkInterceptor(b *testing.B) {
	// Dear enough for the embedded client to look decisions up, whatever it measures.
	w := newWorldOf(b, `allow if { some i in numbers.range(1, 2000); i == 1500; input.subject.id == "`+frontend+`" }`)
	e, err := enforce.New(enforce.Config{Authorizer: w.wall, Namespace: "shop.cart"})
	if err != nil {
		b.Fatal(err)
	}
	info := &grpc.UnaryServerInfo{FullMethod: "/grpc.health.v1.Health/Check"}
	message := &healthpb.HealthCheckRequest{}
	const bare = 1 << 20
	ctx := b.Context()
	begun := time.Now()
	for range bare {
		_, _ = nothing(ctx, message)
	}
	alone := float64(time.Since(begun).Nanoseconds()) / bare
	for name, ctx := range map[string]context.Context{"edge": verified(b.Context(), frontend), "path": verified(b.Context(), frontend, path(edge, edge, edge))} {
		b.Run(name, func(b *testing.B) {
			interceptor := e.UnaryServer()
			for range 1000 { // until the decision is remembered
				if _, err := interceptor(ctx, message, info, nothing); err != nil {
					b.Fatal(err)
				}
			}
			before := w.wall.Status().Cache
			b.ReportAllocs()
			for b.Loop() {
				if _, err := interceptor(ctx, message, info, nothing); err != nil {
					b.Fatal(err)
				}
			}
			after := w.wall.Status().Cache
			b.ReportMetric(100*float64(after.Hits-before.Hits)/float64(b.N), "%hits")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/alone, "ratio")
		})
	}
}
