# The frontend asks what shipping would cost; only checkout, which has an order,
# may have a parcel shipped. data.json names the callers of each method.
#
# reasons tell whoever reads an allowed decision why it is as it is. They change
# nothing: the same calls are allowed at every hour.
package authz

default allow := false

allow if {
	input.subject.type == "workload"
	input.subject.id in data.callers[input.action.name]
	input.resource.type == "grpc"
	input.resource.id == "hipstershop.ShippingService"
}

# input.time is UTC, and is stamped by whoever decides; no caller can set it.
reasons contains "the carrier does not drive today: the parcel leaves on the next working day" if {
	input.action.name == "ShipOrder"
	day_off
}

reasons contains "the carrier's last pick-up is over: the parcel leaves on the next working day" if {
	input.action.name == "ShipOrder"
	not day_off
	input.time.hour >= data.carrier.last_pickup_hour
}

day_off if input.time.weekday in data.carrier.days_off
