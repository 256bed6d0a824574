package enforce_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/microwall/microwall/clients/enforce"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/policy"
)

func Example() {
	wall, err := remote.New(context.Background(), remote.Config{}) // or embedded.New
	if err != nil {
		log.Fatal(err)
	}
	defer wall.Close()
	wired, err := enforce.New(enforce.Config{
		Authorizer: wall,
		Namespace:  "boutique.cart",
		Obligations: map[string]enforce.Obligation{ // what a policy may demand; what is not here is refused
			"mfa": func(ctx context.Context, _ enforce.Call, value policy.Value) (context.Context, error) {
				return ctx, fmt.Errorf("nobody checks that it is at most %s seconds old", value.Get("max_age").Number())
			},
		},
		Events: func(e enforce.Event) { log.Printf("%+v", e) },
	})
	if err != nil {
		log.Fatal(err)
	}

	authorities, err := os.ReadFile("ca.pem")
	if err != nil {
		log.Fatal(err)
	}
	certificate, err := tls.LoadX509KeyPair("cart.pem", "cart.key")
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authorities)
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate},
			ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, // who calls is who the certificate says
		})),
		grpc.UnaryInterceptor(wired.UnaryServer()),
		grpc.StreamInterceptor(wired.StreamServer()),
	)
	listener, err := net.Listen("tcp", "127.0.0.1:9000")
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(server.Serve(listener)) // with your services registered before
}
