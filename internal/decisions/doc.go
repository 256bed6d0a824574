// Package decisions reads a policy's decisions.yaml, the requests that its team
// has written down with the decisions that it wants, and runs them.
//
// # The file
//
//	decisions:
//	  - name: a parcel on a sunday             # required, each name once
//	    namespace: boutique.shipping           # if another one than the policy's
//	    time: 2026-11-29T16:00:00Z             # input.time; a Monday noon if left away
//	    request:                               # AuthZEN's, in YAML
//	      subject: {type: workload, id: "spiffe://boutique.example/ns/default/sa/checkoutservice"}
//	      action: {name: ShipOrder}
//	      resource: {type: grpc, id: hipstershop.ShippingService, properties: {}}
//	      context: {}
//	    want:
//	      allowed: true                        # this, or error
//	      reasons:                             # all of them; not compared if left away
//	        - "boutique.shipping: the carrier does not drive today"
//	      obligations: {}                      # all of them; not compared if left away
//
//	  - name: a caller without an id
//	    request: {subject: {type: workload}, action: {name: Get}, resource: {type: grpc, id: x}}
//	    want:
//	      error: subject.id is missing         # part of the text of the error
//
// It is one YAML document of at most 16 MiB. A number means what its spelling
// means in JSON, and one that JSON does not have (0x1F, 1_000, .inf) is refused.
// So are unknown and repeated names, dates in a request that are not in quotes,
// and what YAML has beyond plain values: anchors, aliases, tags, merging.
//
// # The run
//
// A case goes the whole way of a request: policy.Limits, the snapshot's path of
// guardrails and namespace, the decision. An error is no denial: a case that
// wants a denial fails if it gets an error instead, and the other way round. A
// namespace whose policy has no allow rule, as guardrails do, denies.
package decisions
