package authz_test

import data.authz

# Every service account of the shop.
accounts := {
	"adservice",
	"cartservice",
	"checkoutservice",
	"currencyservice",
	"emailservice",
	"frontend",
	"loadgenerator",
	"paymentservice",
	"productcatalogservice",
	"recommendationservice",
	"shippingservice",
}

spiffe(account) := concat("/", ["spiffe://boutique.example/ns/default/sa", account])

# Every route of the frontend, with its method.
routes := {
	["GET", "/"],
	["GET", "/product/{id}"],
	["GET", "/cart"],
	["POST", "/cart"],
	["POST", "/cart/empty"],
	["POST", "/setCurrency"],
	["GET", "/logout"],
	["POST", "/cart/checkout"],
	["GET", "/assistant"],
	["GET", "/_healthz"],
}

visit(account, method, route) := {
	"subject": {"type": "workload", "id": spiffe(account)},
	"action": {"name": method},
	"resource": {
		"type": "route",
		"id": route,
		"properties": {"path": replace(route, "{id}", "OLJCESPC7Z")},
	},
	"context": {"call_path": [spiffe(account)]},
}

# Every caller tries every route; these visits and no others are allowed.
test_only_the_call_graph_is_allowed if {
	allowed := {[account, method, route] |
		some account in accounts
		some [method, route] in routes
		authz.allow with input as visit(account, method, route)
	}
	allowed == {
		["loadgenerator", "GET", "/"],
		["loadgenerator", "GET", "/product/{id}"],
		["loadgenerator", "GET", "/cart"],
		["loadgenerator", "POST", "/cart"],
		["loadgenerator", "POST", "/cart/empty"],
		["loadgenerator", "POST", "/setCurrency"],
		["loadgenerator", "GET", "/logout"],
		["loadgenerator", "POST", "/cart/checkout"],
	}
}

# A visit that is allowed, changed in one place.
test_odd_request_is_denied[what] if {
	some what, change in {
		"a method that the route does not have": {"action": {"name": "DELETE"}},
		"a method in another case": {"action": {"name": "post"}},
		"a route that does not exist": {"resource": {"id": "/admin"}},
		"a route in another case": {"resource": {"id": "/Cart"}},
		"a route with a slash behind it": {"resource": {"id": "/cart/"}},
		"a resource of another type": {"resource": {"type": "grpc"}},
		"a user of the same name": {"subject": {"type": "user"}},
		"an account of another namespace": {"subject": {"id": "spiffe://boutique.example/ns/other/sa/loadgenerator"}},
		"an account of another trust domain": {"subject": {"id": "spiffe://boutique.example.evil/ns/default/sa/loadgenerator"}},
		"a bare account name": {"subject": {"id": "loadgenerator"}},
		"someone else behind an honest call path": {"subject": {"id": spiffe("adservice")}},
	}
	request := object.union(visit("loadgenerator", "POST", "/cart"), change)
	not authz.allow with input as request
}

test_empty_request_is_denied if not authz.allow with input as {}
