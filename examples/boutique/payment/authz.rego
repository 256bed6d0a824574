# Only checkout charges cards.
#
# How much may be charged at all, and by which call path, is the guardrails'
# business. This team adds what its card processor asks for: above a small
# amount the customer must have proved who they are a moment ago.
#
# PaymentService's caller states the amount in context.amount, for example
# {"currency_code": "EUR", "value": 42.5}.
package authz

default allow := false

allow if {
	input.subject.type == "workload"
	input.subject.id in data.callers[input.action.name]
	input.resource.type == "grpc"
	input.resource.id == "hipstershop.PaymentService"
}

# "not small" instead of "large": an amount that is missing, is no number, or is
# in a currency that data.json does not know is not small either.
obligations["mfa"] := {"max_age": 300} if not small

# Both sides must be numbers: Rego compares values of any types, and every number
# is less than every string.
small if {
	amount := input.context.amount
	limit := data.mfa_above[amount.currency_code]
	is_number(amount.value)
	is_number(limit)
	amount.value <= limit
}
