# The frontend shows prices in the customer's currency, and checkout charges in
# it: data.json names the callers of each method.
package authz

default allow := false

allow if {
	input.subject.type == "workload"
	input.subject.id in data.callers[input.action.name]
	input.resource.type == "grpc"
	input.resource.id == "hipstershop.CurrencyService"
}
