package authz_test

import data.authz

spiffe(account) := concat("/", ["spiffe://boutique.example/ns/default/sa", account])

outside := "the subject is not a workload of the trust domain boutique.example"

path_outside := "the call path has a member that is not a workload of the trust domain boutique.example"

path_end := "the call path does not end with the subject"

past_checkout := "a payment must come through checkout: its call path must end in checkoutservice"

no_amount := "a payment must state its amount: a number, not negative, in a currency that has a limit"

above_limit := "the payment is above the limit of its currency"

# A call that the guardrails have nothing against.
add_item := {
	"subject": {"type": "workload", "id": spiffe("frontend")},
	"action": {"name": "AddItem"},
	"resource": {"type": "grpc", "id": "hipstershop.CartService"},
	"context": {"call_path": [spiffe("loadgenerator"), spiffe("frontend")]},
}

# The same for a payment.
payment := {
	"subject": {"type": "workload", "id": spiffe("checkoutservice")},
	"action": {"name": "Charge"},
	"resource": {"type": "grpc", "id": "hipstershop.PaymentService"},
	"context": {
		"call_path": [spiffe("loadgenerator"), spiffe("frontend"), spiffe("checkoutservice")],
		"amount": {"currency_code": "EUR", "value": 42.5},
	},
}

with_context(request, context) := object.union(object.remove(request, ["context"]), {"context": context})

charge(amount) := object.union(object.remove(payment, ["context"]), {"context": {
	"call_path": payment.context.call_path,
	"amount": amount,
}})

# Nothing is opened here, so that a guardrail cannot become somebody's allow.
test_guardrail_allows_nothing[what] if {
	some what, request in {"a call": add_item, "a payment": payment, "nothing": {}}
	not authz.allow with input as request
}

test_honest_call_is_not_denied[what] if {
	some what, request in {
		"a call": add_item,
		"a call at the edge": with_context(add_item, {"call_path": [spiffe("frontend")]}),
		"a call without a call path": with_context(add_item, {}),
		"a call of another Kubernetes namespace": {
			"subject": {"type": "workload", "id": "spiffe://boutique.example/ns/batch/sa/reports"},
			"action": {"name": "GetAds"},
			"resource": {"type": "grpc", "id": "hipstershop.AdService"},
			"context": {},
		},
		"a payment": payment,
	}
	authz.deny == set() with input as request
}

test_empty_request_is_denied if {
	authz.deny == {outside} with input as {}
}

# 1. Callers.

test_subject_from_outside_is_denied[what] if {
	some what, subject in {
		"another trust domain": {"id": "spiffe://evil.example/ns/default/sa/frontend"},
		"a trust domain that begins alike": {"id": "spiffe://boutique.example.evil/ns/default/sa/frontend"},
		"a trust domain that ends alike": {"id": "spiffe://evil-boutique.example/ns/default/sa/frontend"},
		"a domain below": {"id": "spiffe://eu.boutique.example/ns/default/sa/frontend"},
		"our name as a user": {"id": "spiffe://boutique.example@evil.example/ns/default/sa/frontend"},
		"our name with a port": {"id": "spiffe://boutique.example:443/ns/default/sa/frontend"},
		"our name in the path": {"id": "spiffe://evil.example/spiffe://boutique.example/ns/default/sa/frontend"},
		"our name in another case": {"id": "spiffe://Boutique.Example/ns/default/sa/frontend"},
		"another scheme": {"id": "https://boutique.example/ns/default/sa/frontend"},
		"a space in front": {"id": " spiffe://boutique.example/ns/default/sa/frontend"},
		"the trust domain itself": {"id": "spiffe://boutique.example"},
		"the trust domain with a slash": {"id": "spiffe://boutique.example/"},
		"a bare name": {"id": "frontend"},
		"a user": {"type": "user"},
		"a type in another case": {"type": "Workload"},
		"a number": {"id": 7},
		"null": {"id": null},
		"a list": {"id": [spiffe("frontend")]},
	}
	outside in authz.deny with input as object.union(add_item, {"subject": subject})
}

# 2. Call paths.

test_call_path_from_outside_is_denied[what] if {
	some what, path in {
		"begins outside": ["spiffe://boutique.example.evil/ns/default/sa/x", spiffe("frontend")],
		"goes through the outside": [spiffe("loadgenerator"), "spiffe://evil.example/ns/default/sa/x", spiffe("frontend")],
		"has a number": [7, spiffe("frontend")],
		"has a null": [null, spiffe("frontend")],
		"has a list": [[spiffe("loadgenerator")], spiffe("frontend")],
		"is one string": spiffe("frontend"),
		"is an object": {"0": spiffe("frontend")},
		"is null": null,
		"is false": false,
	}
	path_outside in authz.deny with input as with_context(add_item, {"call_path": path})
}

test_call_path_that_does_not_end_with_the_subject_is_denied[what] if {
	some what, path in {
		"empty": [],
		"ends with another": [spiffe("frontend"), spiffe("cartservice")],
		"ends with nobody": [spiffe("frontend"), null],
		"is one string": spiffe("frontend"),
		"is an object": {"0": spiffe("frontend")},
		"is null": null,
		"is false": false,
	}
	path_end in authz.deny with input as with_context(add_item, {"call_path": path})
}

# 3. Payments.

test_payment_past_checkout_is_denied[what] if {
	some what, change in {
		"no call path": {},
		"null": {"call_path": null},
		"empty": {"call_path": []},
		"one string": {"call_path": spiffe("checkoutservice")},
		"an object": {"call_path": {"0": spiffe("checkoutservice")}},
		"checkout in the middle": {"call_path": [spiffe("checkoutservice"), spiffe("frontend")]},
		"a longer name": {"call_path": [concat("", [spiffe("checkoutservice"), "-evil"])]},
		"another namespace": {"call_path": ["spiffe://boutique.example/ns/evil/sa/checkoutservice"]},
		"another domain": {"call_path": ["spiffe://boutique.example.evil/ns/default/sa/checkoutservice"]},
	}
	context := object.union({"amount": {"currency_code": "EUR", "value": 42.5}}, change)
	past_checkout in authz.deny with input as with_context(payment, context)
}

test_payment_without_any_context_is_denied if {
	authz.deny == {past_checkout, no_amount} with input as object.remove(payment, ["context"])
}

# The call path is checkout's, but somebody else shows it.
test_payment_with_a_borrowed_call_path_is_denied if {
	request := object.union(payment, {"subject": {"id": spiffe("frontend")}})
	authz.deny == {path_end} with input as request
}

test_payment_by_another_name_is_still_a_payment[what] if {
	some what, change in {
		"another method": {"action": {"name": "ChargeLater"}},
		"another service": {"resource": {"id": "hipstershop.WalletService"}},
		"another type": {"resource": {"type": "route"}},
	}
	request := with_context(object.union(payment, change), {})
	authz.deny == {past_checkout, no_amount} with input as request
}

test_payment_without_a_usable_amount_is_denied[what] if {
	some what, amount in {
		"null": null,
		"a bare number": 42.5,
		"text": "42.5",
		"a list": [42.5],
		"empty": {},
		"no value": {"currency_code": "EUR"},
		"value in quotes": {"currency_code": "EUR", "value": "42.5"},
		"value of null": {"currency_code": "EUR", "value": null},
		"value of true": {"currency_code": "EUR", "value": true},
		"value in a list": {"currency_code": "EUR", "value": [42.5]},
		"value in an object": {"currency_code": "EUR", "value": {"units": 42}},
		"negative": {"currency_code": "EUR", "value": -0.01},
		"no currency": {"value": 42.5},
		"a currency without a limit": {"currency_code": "CHF", "value": 1},
		"a currency in another case": {"currency_code": "eur", "value": 1},
		"a currency of null": {"currency_code": null, "value": 1},
		"a currency in a list": {"currency_code": ["EUR"], "value": 1},
	}
	authz.deny == {no_amount} with input as charge(amount)
}

test_payment_without_an_amount_is_denied if {
	request := with_context(payment, {"call_path": payment.context.call_path})
	authz.deny == {no_amount} with input as request
}

test_payment_within_the_limit_is_not_denied[what] if {
	some what, amount in {
		"nothing": {"currency_code": "USD", "value": 0},
		"exactly the limit": {"currency_code": "USD", "value": 10000},
		"many yen": {"currency_code": "JPY", "value": 1500000},
	}
	authz.deny == set() with input as charge(amount)
}

test_payment_above_the_limit_is_denied[what] if {
	some what, amount in {
		"a cent above": {"currency_code": "USD", "value": 10000.01},
		"far above": {"currency_code": "USD", "value": 1e300},
		"the limit of yen in pounds": {"currency_code": "GBP", "value": 1500000},
	}
	authz.deny == {above_limit} with input as charge(amount)
}

# A mistake in data.json closes the door; it does not take the limit away.
test_limit_that_is_no_number_denies[what] if {
	some what, broken in {
		"in quotes": {"EUR": {"most": "10000"}},
		"missing": {"EUR": {}},
		"null": {"EUR": {"most": null}},
		"a bare number": {"EUR": 10000},
		"no limits at all": {},
	}
	authz.deny == {no_amount} with input as payment with data.limits as broken
}

# 4. Obligations.

test_large_payment_is_reported[what] if {
	some what, amount in {
		"above": {"currency_code": "USD", "value": 2500.01},
		"at the limit": {"currency_code": "USD", "value": 10000},
	}
	authz.obligations == {"notify": {"team": "fraud"}} with input as charge(amount)
}

test_unremarkable_call_is_not_reported[what] if {
	some what, request in {
		"no payment": add_item,
		"a payment": payment,
		"exactly the limit": charge({"currency_code": "USD", "value": 2500}),
	}
	authz.obligations == {} with input as request
}

test_payment_is_reported_when_its_limit_is_no_number if {
	authz.obligations == {"notify": {"team": "fraud"}} with input as payment
		with data.limits as {"EUR": {"most": 10000, "notify_above": "2500"}}
}
