# Placing an order takes the customer's money: only the frontend, where the
# customer pressed the button, may do it.
package authz

default allow := false

allow if {
	input.subject.type == "workload"
	input.subject.id == "spiffe://boutique.example/ns/default/sa/frontend"
	input.action.name == "PlaceOrder"
	input.resource.type == "grpc"
	input.resource.id == "hipstershop.CheckoutService"
}
