package remote_test

import (
	"context"
	"fmt"
	"log"

	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/policy"
)

func Example() {
	ctx := context.Background()
	pdp, err := remote.New(ctx, remote.Config{Servers: []string{"127.0.0.1:7070"}})
	if err != nil {
		log.Fatal(err)
	}
	defer pdp.Close()

	d, err := pdp.Authorize(ctx, policy.Request{
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
		fmt.Println("allowed")
	}
}
