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
methods := {"GetQuote", "ShipOrder"}

call(account, method) := {
	"subject": {"type": "workload", "id": spiffe(account)},
	"action": {"name": method},
	"resource": {"type": "grpc", "id": "hipstershop.ShippingService"},
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
		["frontend", "GetQuote"],
		["checkoutservice", "GetQuote"],
		["checkoutservice", "ShipOrder"],
	}
}

# A call that is allowed, changed in one place.
test_odd_request_is_denied[what] if {
	some what, change in {
		"a method that does not exist": {"action": {"name": "DropEverything"}},
		"a method in another case": {"action": {"name": "getQuote"}},
		"another service": {"resource": {"id": "hipstershop.AdService"}},
		"a service in another case": {"resource": {"id": "hipstershop.shippingservice"}},
		"a resource of another type": {"resource": {"type": "route"}},
		"a user of the same name": {"subject": {"type": "user"}},
		"an account of another namespace": {"subject": {"id": "spiffe://boutique.example/ns/other/sa/frontend"}},
		"an account of another trust domain": {"subject": {"id": "spiffe://boutique.example.evil/ns/default/sa/frontend"}},
		"a name that only begins alike": {"subject": {"id": concat("", [spiffe("frontend"), "-evil"])}},
		"a bare account name": {"subject": {"id": "frontend"}},
		"someone else behind an honest call path": {"subject": {"id": spiffe("loadgenerator")}},
	}
	request := object.union(call("frontend", "GetQuote"), change)
	not authz.allow with input as request
}

test_empty_request_is_denied if not authz.allow with input as {}

# 2026-11-23 is a monday.
ship_at(weekday, hour) := object.union(
	call("checkoutservice", "ShipOrder"),
	{"time": {"weekday": weekday, "hour": hour}},
)

test_parcel_leaves_today_without_a_reason if {
	count(authz.reasons) == 0 with input as ship_at("monday", 15)
}

test_parcel_after_the_last_pickup_says_so if {
	authz.reasons == {"the carrier's last pick-up is over: the parcel leaves on the next working day"} with input as ship_at("monday", 16)
}

test_parcel_on_a_day_off_says_so if {
	every hour in {0, 16, 23} {
		authz.reasons == {"the carrier does not drive today: the parcel leaves on the next working day"} with input as ship_at("sunday", hour)
	}
}

test_quote_has_no_reason if {
	request := object.union(call("frontend", "GetQuote"), {"time": {"weekday": "sunday", "hour": 23}})
	count(authz.reasons) == 0 with input as request
}

test_time_changes_no_decision if {
	every weekday in {"monday", "saturday", "sunday"} {
		every hour in numbers.range(0, 23) {
			authz.allow with input as ship_at(weekday, hour)
		}
	}
}
