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
methods := {"Charge"}

call(account, method) := {
	"subject": {"type": "workload", "id": spiffe(account)},
	"action": {"name": method},
	"resource": {"type": "grpc", "id": "hipstershop.PaymentService"},
	"context": {"call_path": [spiffe(account)], "amount": {"currency_code": "USD", "value": 42.5}},
}

# Every caller tries every method; these calls and no others are allowed.
test_only_the_call_graph_is_allowed if {
	allowed := {[account, method] |
		some account in accounts
		some method in methods
		authz.allow with input as call(account, method)
	}
	allowed == {
		["checkoutservice", "Charge"],
	}
}

# A call that is allowed, changed in one place.
test_odd_request_is_denied[what] if {
	some what, change in {
		"a method that does not exist": {"action": {"name": "DropEverything"}},
		"a method in another case": {"action": {"name": "charge"}},
		"another service": {"resource": {"id": "hipstershop.AdService"}},
		"a service in another case": {"resource": {"id": "hipstershop.paymentservice"}},
		"a resource of another type": {"resource": {"type": "route"}},
		"a user of the same name": {"subject": {"type": "user"}},
		"an account of another namespace": {"subject": {"id": "spiffe://boutique.example/ns/other/sa/checkoutservice"}},
		"an account of another trust domain": {"subject": {"id": "spiffe://boutique.example.evil/ns/default/sa/checkoutservice"}},
		"a name that only begins alike": {"subject": {"id": concat("", [spiffe("checkoutservice"), "-evil"])}},
		"a bare account name": {"subject": {"id": "checkoutservice"}},
		"someone else behind an honest call path": {"subject": {"id": spiffe("loadgenerator")}},
	}
	request := object.union(call("checkoutservice", "Charge"), change)
	not authz.allow with input as request
}

test_empty_request_is_denied if not authz.allow with input as {}

charge(amount) := object.union(call("checkoutservice", "Charge"), {"context": {"amount": amount}})

test_small_charge_has_no_obligation[what] if {
	some what, amount in {
		"small": {"currency_code": "USD", "value": 42.5},
		"nothing": {"currency_code": "EUR", "value": 0},
		"exactly the limit": {"currency_code": "EUR", "value": 500},
		"many yen": {"currency_code": "JPY", "value": 80000},
	}
	authz.obligations == {} with input as charge(amount)
}

test_any_other_charge_needs_mfa[what] if {
	some what, amount in {
		"above the limit": {"currency_code": "EUR", "value": 500.01},
		"a currency without a limit": {"currency_code": "CHF", "value": 1},
		"no currency": {"currency_code": null, "value": 1},
		"text": {"currency_code": "EUR", "value": "1"},
		"null": {"currency_code": "EUR", "value": null},
		"a list": {"currency_code": "EUR", "value": [1]},
	}
	authz.obligations == {"mfa": {"max_age": 300}} with input as charge(amount)
}

test_charge_without_an_amount_needs_mfa if {
	request := object.remove(call("checkoutservice", "Charge"), ["context"])
	authz.obligations == {"mfa": {"max_age": 300}} with input as request
}
