# The limits that no team of the boutique can loosen. They bind every namespace
# below boutique, whatever its own policy allows.
#
# There is no allow here: opening doors is the teams' work. There is deny, and
# every deny is written as "not <the good case>". Whatever is missing, has another
# type or was not thought of is not the good case, and is denied. Two habits keep
# that true:
#
#   - After "not" stands the name of one rule, or one function of a variable, and
#     nothing else. In "not last(path) == x" Rego computes last(path) before the
#     "not": if that is undefined, so is the whole rule, and nothing is denied.
#   - Types are tested before anything is computed. A built-in that fails would
#     turn a plain denial into an error.
package authz

# 1. Callers come from the trust domain.

deny contains "the subject is not a workload of the trust domain boutique.example" if not subject_inside

subject_inside if {
	input.subject.type == "workload"
	inside(input.subject.id)
}

# The slash after the name ends it: boutique.example.evil is somebody else.
inside(id) if {
	is_string(id)
	startswith(id, "spiffe://boutique.example/ns/")
}

# 2. A call path, if there is one, holds only such callers, and ends with the one
#    who calls. ":=" also takes a path that is null or false.

deny contains "the call path has a member that is not a workload of the trust domain boutique.example" if {
	path := input.context.call_path
	not all_inside(path)
}

all_inside(path) if {
	is_array(path)
	every id in path {
		inside(id)
	}
}

deny contains "the call path does not end with the subject" if {
	path := input.context.call_path
	not ends_with_subject(path)
}

ends_with_subject(path) if {
	is_array(path)
	path[count(path) - 1] == input.subject.id
}

# 3. Payments come through checkout, and have an amount within limits. What counts
#    as a payment is drawn wide: everything that is asked of PaymentService, and
#    everything that is called Charge.

payment if input.resource.id == "hipstershop.PaymentService"

payment if input.action.name == "Charge"

deny contains "a payment must come through checkout: its call path must end in checkoutservice" if {
	payment
	not through_checkout
}

through_checkout if {
	path := input.context.call_path
	is_array(path)
	path[count(path) - 1] == "spiffe://boutique.example/ns/default/sa/checkoutservice"
}

# The amount is context.amount, for example {"currency_code": "EUR", "value": 42.5}.
deny contains "a payment must state its amount: a number, not negative, in a currency that has a limit" if {
	payment
	not stated
}

deny contains "the payment is above the limit of its currency" if {
	payment
	stated
	not within_limit
}

within_limit if amount.value <= limit.most

stated if {
	is_number(amount.value)
	amount.value >= 0

	# Every number is less than every string: a limit in quotes would be none.
	is_number(limit.most)
}

amount := input.context.amount

limit := data.limits[amount.currency_code]

# 4. The fraud team hears of large payments. An obligation of a guardrail joins
#    those of the namespace when the decision is allowed.

obligations["notify"] := {"team": "fraud"} if {
	payment
	not unremarkable
}

unremarkable if {
	is_number(limit.notify_above)
	amount.value <= limit.notify_above
}
