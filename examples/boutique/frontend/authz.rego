# The frontend is the edge of the shop and speaks HTTP. The action is the HTTP
# method, the resource is the route as the router knows it ("/product/{id}"), and
# resource.properties.path is what was asked for ("/product/OLJCESPC7Z").
#
# data.json names the callers of each route and method. A route that is not named
# there has no callers, although it exists: /assistant, which the load generator
# does not visit, and /_healthz, which the kubelet asks past the wall.
package authz

default allow := false

allow if {
	input.subject.type == "workload"
	input.subject.id in data.callers[input.resource.id][input.action.name]
	input.resource.type == "route"
}
