package embedded_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/policy"
)

func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel() // of the start, and here of the call, too
	wall, err := embedded.New(ctx, embedded.Config{
		NATS:       "nats://127.0.0.1:4222",
		TrustFile:  ".microwall/trust.yaml",
		Namespaces: []policy.Namespace{"boutique.cart"},
		Dir:        "releases", // kept here for a start without NATS
		// Credentials: "keys/cart-1.nkey", // where NATS asks for them: "Who may use NATS"
		OnNATS: func(e jetstream.Event) { // tells what keeps news away, and what to do
			if e, ok := e.(jetstream.BrokerError); ok {
				log.Println(e.Err)
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer wall.Close()

	d, err := wall.Authorize(ctx, policy.Request{
		Namespace: "boutique.cart",
		Subject:   policy.Entity{Type: "workload", ID: "spiffe://boutique.example/ns/default/sa/frontend"},
		Action:    policy.Action{Name: "AddItem"},
		Resource:  policy.Entity{Type: "grpc", ID: "hipstershop.CartService"},
	})
	switch {
	case err != nil: // nothing was decided, so nothing is allowed
		fmt.Println("no decision:", err)
	case !d.Allowed:
		fmt.Println("denied:", d.Reasons)
	case d.Obligations.Len() > 0: // what must be done first, and is not known here
		fmt.Println("denied: cannot meet", d.Obligations)
	default:
		fmt.Println("allowed by", d.Versions[0].Namespace, "revision", d.Versions[0].Revision)
	}
}
