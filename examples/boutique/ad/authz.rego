# Ads are shown on the pages of the shop, and only the frontend makes those.
#
# This is the smallest policy of the boutique: one rule, every part of the
# request compared with the one value that it may have.
package authz

default allow := false

allow if {
	input.subject.type == "workload"
	input.subject.id == "spiffe://boutique.example/ns/default/sa/frontend"
	input.action.name == "GetAds"
	input.resource.type == "grpc"
	input.resource.id == "hipstershop.AdService"
}
