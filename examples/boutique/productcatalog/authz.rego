# Who may read the catalogue is data: data.json names the callers of each method.
#
# A method that is not named there has no callers. SearchProducts exists, but
# nothing in the shop calls it yet, so it is denied to everybody.
package authz

default allow := false

allow if {
	input.subject.type == "workload"
	input.subject.id in data.callers[input.action.name]
	input.resource.type == "grpc"
	input.resource.id == "hipstershop.ProductCatalogService"
}
