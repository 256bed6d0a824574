// The command service is four services of the Online Boutique behind Microwall,
// to copy from: how a service wires in clients/enforce, over mTLS with SPIFFE
// certificates. Each process is one of them, and asks a PDP that has the policies
// of examples/boutique:
//
//	microwall serve --dir examples/boutique
//
//	loadgenerator --HTTP--> frontend --gRPC--> checkout --gRPC--> payment --HTTP--> the fraud team
//	                        frontend --stream--> cart
//
// frontend has middleware before its ServeMux. checkout, payment and cart have
// interceptors; cart's is before a stream. Whoever calls on sends the call path, so that payment knows that a
// customer came by the frontend. payment meets two obligations: mfa, that the
// customer has proved who they are a moment ago, and notify, by which the fraud
// team hears of large payments.
//
// With --report-only a service refuses nobody, and says whom it would have.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/microwall/microwall/clients/enforce"
	"github.com/microwall/microwall/clients/remote"
)

const usage = `service is one service of the Online Boutique behind Microwall.

Usage: service ROLE [flags]

ROLE is frontend, checkout, payment or cart. For instance:

  service payment --listen 127.0.0.1:9002 --ca ca.pem --cert payment.pem --key payment.key
  service checkout --listen 127.0.0.1:9001 --next 127.0.0.1:9002 --ca ca.pem --cert checkout.pem --key checkout.key
  service cart --listen 127.0.0.1:9003 --ca ca.pem --cert cart.pem --key cart.key
  service frontend --listen 127.0.0.1:9000 --next 127.0.0.1:9001 --cart 127.0.0.1:9003 --ca ca.pem --cert frontend.pem --key frontend.key

Flags:`

func main() {
	var c config
	f := flag.NewFlagSet("service", flag.ExitOnError)
	f.StringVar(&c.listen, "listen", "127.0.0.1:0", "HOST:PORT to serve on")
	f.StringVar(&c.next, "next", "", "HOST:PORT of the service that this one has place orders and charge cards: of checkout for frontend, of payment for checkout")
	f.StringVar(&c.cart, "cart", "", "HOST:PORT of cart, for frontend")
	f.StringVar(&c.fraud, "fraud", "", "URL that payment tells of large payments")
	f.StringVar(&c.ca, "ca", "", "PEM file with the authorities of the trust domain")
	f.StringVar(&c.cert, "cert", "", "PEM file with this service's certificate, whose URI is its SPIFFE ID")
	f.StringVar(&c.key, "key", "", "PEM file with the certificate's key")
	pdp := f.String("pdp", "127.0.0.1:7070", "HOST:PORT of the PDP")
	f.BoolVar(&c.reportOnly, "report-only", false, "let every call pass, and say what would have been refused")
	f.Usage = func() {
		fmt.Fprintln(f.Output(), usage)
		f.PrintDefaults()
	}
	if len(os.Args) < 2 || os.Args[1] == "-h" || os.Args[1] == "--help" {
		f.Usage()
		os.Exit(2)
	}
	c.role = os.Args[1]
	_ = f.Parse(os.Args[2:]) // exits on errors
	if err := serve(c, *pdp); err != nil {
		log.Fatal(err)
	}
}

func serve(c config, pdp string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	wall, err := remote.New(ctx, remote.Config{Servers: []string{pdp}})
	if err != nil {
		return err
	}
	defer wall.Close()
	c.authorizer = wall
	c.events = func(e enforce.Event) {
		if r, ok := e.(enforce.Refused); ok {
			log.Printf("refused (passed all the same: %t): %s %s %s: %v %v", r.Passed, r.Request.Subject.ID, r.Request.Action.Name, r.Request.Resource.ID, r.Decision.Reasons, r.Err)
		}
	}
	s, err := start(c)
	if err != nil {
		return err
	}
	log.Printf("%s serves on %s", c.role, s.addr)
	<-ctx.Done()
	end, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return s.stop(end)
}
