# Only checkout knows that an order was placed, so only checkout may have a
# confirmation sent. Nobody else writes to customers in the shop's name.
package authz

default allow := false

allow if {
	input.subject.type == "workload"
	input.subject.id == "spiffe://boutique.example/ns/default/sa/checkoutservice"
	input.action.name == "SendOrderConfirmation"
	input.resource.type == "grpc"
	input.resource.id == "hipstershop.EmailService"
}
