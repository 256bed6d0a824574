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

# Every method of the service.
methods := {"PlaceOrder"}

call(account, method) := {
	"subject": {"type": "workload", "id": spiffe(account)},
	"action": {"name": method},
	"resource": {"type": "grpc", "id": "hipstershop.CheckoutService"},
	"context": {"call_path": [spiffe(account)]},
}

# Every caller tries every method; these calls and no others are allowed.
test_only_the_call_graph_is_allowed if {
	allowed := {[account, method] |
		some account in accounts
		some method in methods
		authz.allow with input as call(account, method)
	}
	allowed == {
		["frontend", "PlaceOrder"],
	}
}

# A call that is allowed, changed in one place.
test_odd_request_is_denied[what] if {
	some what, change in {
		"a method that does not exist": {"action": {"name": "DropEverything"}},
		"a method in another case": {"action": {"name": "placeOrder"}},
		"another service": {"resource": {"id": "hipstershop.AdService"}},
		"a service in another case": {"resource": {"id": "hipstershop.checkoutservice"}},
		"a resource of another type": {"resource": {"type": "route"}},
		"a user of the same name": {"subject": {"type": "user"}},
		"an account of another namespace": {"subject": {"id": "spiffe://boutique.example/ns/other/sa/frontend"}},
		"an account of another trust domain": {"subject": {"id": "spiffe://boutique.example.evil/ns/default/sa/frontend"}},
		"a name that only begins alike": {"subject": {"id": concat("", [spiffe("frontend"), "-evil"])}},
		"a bare account name": {"subject": {"id": "frontend"}},
		"someone else behind an honest call path": {"subject": {"id": spiffe("loadgenerator")}},
	}
	request := object.union(call("frontend", "PlaceOrder"), change)
	not authz.allow with input as request
}

test_empty_request_is_denied if not authz.allow with input as {}
