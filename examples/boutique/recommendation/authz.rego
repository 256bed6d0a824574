# Recommendations depend on what lies in a customer's cart, so that nobody but
# the frontend, which shows them to this customer, may ask for them.
package authz

default allow := false

allow if {
	input.subject.type == "workload"
	input.subject.id == "spiffe://boutique.example/ns/default/sa/frontend"
	input.action.name == "ListRecommendations"
	input.resource.type == "grpc"
	input.resource.id == "hipstershop.RecommendationService"
}
