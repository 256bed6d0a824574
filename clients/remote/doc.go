// Package remote decides by asking a PDP over gRPC. It links neither OPA nor
// NATS: a service that uses it trusts the PDP with the decision.
//
// What an answer does not say is not allowed. An answer must hold a decision,
// and name the version of the policy of the very namespace that was asked; an
// answer to a batch must hold one result for each request. Anything else is an
// error, which comes with the zero Decision. Whether a decision is stale is what
// the PDP says of it.
package remote
