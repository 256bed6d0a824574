// Package authzen reads and writes the JSON of the OpenID AuthZEN Authorization
// API 1.0: a request of its Access Evaluation API becomes a policy.Request, and
// a policy.Decision its response.
//
// # Request
//
//	{
//	  "namespace": "boutique.cart",
//	  "subject":  {"type": "workload", "id": "spiffe://...", "properties": {}},
//	  "action":   {"name": "AddItem", "properties": {}},
//	  "resource": {"type": "grpc", "id": "hipstershop.CartService", "properties": {}},
//	  "context":  {}
//	}
//
// namespace is Microwall's own, and optional where there is a default. Members
// that AuthZEN does not know are ignored, as it demands, and told of to those who
// ask ([Ignored]). What could be read in two ways is refused, because whoever checked the request before may have read
// the other: a name that is there twice, in ignored members too; a name that
// differs from a known one in case only; invalid UTF-8, unpaired surrogates
// among it; a member of another type than it must have, null included; anything
// after the request; and evaluations, which asks for more decisions than one.
// Nothing is nested deeper than 128 levels, properties and context than 64.
//
// Numbers keep their spelling until package policy gives them its one spelling,
// so that a whole number beyond 2^53-1 stays the number that was sent.
//
// # Response
//
//	{
//	  "decision": true,
//	  "context": {
//	    "reasons": [{"namespace": "boutique.cart", "reason": "on call this week"}],
//	    "obligations": {"mfa": {"max_age": 300}},
//	    "versions": [{"namespace": "boutique.cart", "epoch": 1, "revision": 7, "digest": "sha256:..."}]
//	  }
//	}
//
// Members of context that would be empty are not there, and neither is an empty
// context. The same decision has the same response, byte for byte: there is no
// identifier of the answer in it.
package authzen
