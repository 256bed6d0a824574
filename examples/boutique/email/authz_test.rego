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
methods := {"SendOrderConfirmation"}

call(account, method) := {
	"subject": {"type": "workload", "id": spiffe(account)},
	"action": {"name": method},
	"resource": {"type": "grpc", "id": "hipstershop.EmailService"},
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
		["checkoutservice", "SendOrderConfirmation"],
	}
}

# A call that is allowed, changed in one place.
test_odd_request_is_denied[what] if {
	some what, change in {
		"a method that does not exist": {"action": {"name": "DropEverything"}},
		"a method in another case": {"action": {"name": "sendOrderConfirmation"}},
		"another service": {"resource": {"id": "hipstershop.AdService"}},
		"a service in another case": {"resource": {"id": "hipstershop.emailservice"}},
		"a resource of another type": {"resource": {"type": "route"}},
		"a user of the same name": {"subject": {"type": "user"}},
		"an account of another namespace": {"subject": {"id": "spiffe://boutique.example/ns/other/sa/checkoutservice"}},
		"an account of another trust domain": {"subject": {"id": "spiffe://boutique.example.evil/ns/default/sa/checkoutservice"}},
		"a name that only begins alike": {"subject": {"id": concat("", [spiffe("checkoutservice"), "-evil"])}},
		"a bare account name": {"subject": {"id": "checkoutservice"}},
		"someone else behind an honest call path": {"subject": {"id": spiffe("loadgenerator")}},
	}
	request := object.union(call("checkoutservice", "SendOrderConfirmation"), change)
	not authz.allow with input as request
}

test_empty_request_is_denied if not authz.allow with input as {}
