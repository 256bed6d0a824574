package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/microwall/microwall/clients/enforce"
	"github.com/microwall/microwall/policy"
)

// config of one service.
type config struct {
	role       string
	listen     string
	next, cart string
	fraud      string
	ca         string
	cert, key  string
	authorizer policy.Authorizer
	reportOnly bool
	events     func(enforce.Event)
}

// running is a service that serves.
type running struct {
	addr     string
	enforcer *enforce.Enforcer
	stop     func(context.Context) error
}

// start starts the service that has a role.
func start(c config) (*running, error) {
	identity, err := loadTLS(c)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", c.listen)
	if err != nil {
		return nil, err
	}
	var s *running
	switch c.role {
	case "frontend":
		s, err = startFrontend(c, identity, listener)
	case "checkout":
		s, err = startCheckout(c, identity, listener)
	case "payment":
		s, err = startPayment(c, identity, listener)
	case "cart":
		s, err = startCart(c, identity, listener)
	default:
		err = fmt.Errorf("%q is no role; say frontend, checkout, payment or cart", c.role)
	}
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s.addr = listener.Addr().String()
	return s, nil
}

// loadTLS returns how this service shows who it is, as a server and as a client.
// That ClientAuth asks for verified certificates is what makes subjects of them.
func loadTLS(c config) (*tls.Config, error) {
	pem, err := os.ReadFile(c.ca)
	if err != nil {
		return nil, err
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate", c.ca)
	}
	cert, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, RootCAs: authorities,
		ClientCAs: authorities, ClientAuth: tls.RequireAndVerifyClientCert,
	}, nil
}

// serveHTTP serves what is behind an enforcer.
func serveHTTP(e *enforce.Enforcer, identity *tls.Config, listener net.Listener, mux *http.ServeMux) *running {
	server := &http.Server{Handler: e.HTTP(mux), TLSConfig: identity, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.ServeTLS(listener, "", "") }() // ends with Shutdown
	return &running{enforcer: e, stop: func(ctx context.Context) error {
		err := server.Shutdown(ctx)
		if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}}
}

// serveGRPC serves one service, and its health, behind an enforcer.
func serveGRPC(e *enforce.Enforcer, identity *tls.Config, listener net.Listener, service *grpc.ServiceDesc) *running {
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(identity)),
		grpc.UnaryInterceptor(e.UnaryServer()),
		grpc.StreamInterceptor(e.StreamServer()),
	)
	server.RegisterService(service, nil)
	healthpb.RegisterHealthServer(server, health.NewServer())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }() // ends with GracefulStop
	return &running{enforcer: e, stop: func(ctx context.Context) error {
		forced := context.AfterFunc(ctx, server.Stop)
		defer forced()
		server.GracefulStop()
		return <-ended
	}}
}

// dial connects to another service, and tells it who called this one.
func dial(addr string, identity *tls.Config) (*grpc.ClientConn, error) {
	return grpc.NewClient(addr,
		grpc.WithTransportCredentials(credentials.NewTLS(identity)),
		grpc.WithUnaryInterceptor(enforce.UnaryClient()),
		grpc.WithStreamInterceptor(enforce.StreamClient()),
	)
}
