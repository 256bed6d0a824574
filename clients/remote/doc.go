// Package remote decides by asking PDPs over gRPC, and remembers what they
// decided. It links neither OPA nor NATS: a service that uses it trusts its PDPs
// with the decision.
//
// What an answer does not say is not allowed. An answer must hold a decision,
// and name the version of the policy of the very namespace that was asked; an
// answer to a batch must hold one result for each request. Anything else is an
// error, which comes with the zero Decision.
//
// # What is remembered
//
// A remembered decision is the decision: what PDPs would decide now by the
// versions that it names. A [Client] has one PDP tell, as long as it runs, what
// decides in its namespaces: the versions, what their policies read of a request,
// and the beacons' times. A request is looked up under the key that follows from
// that (package internal/decisionkey) and from the clock here. An answer is filed
// under the key that follows from the versions, the time and the engine that the
// answer itself names; if what was told, now or before that, does not fit these,
// or if staleness made it a denial, it is not filed. Nothing expires: a new
// release has other keys. A PDP that tells nothing for five seconds is asked whether
// it is still there; if it hangs, another one tells.
//
// How old what decides may be without proof, its authors and the trust file say.
// That is worked out when a decision is handed out, by the beacons' times. What is
// too old is asked for, and so is everything once no PDP has told anything for five
// seconds; if none answers, it is handed out as its authors want it: as it is while it is
// not too old, and after that named as stale, or denied.
//
// Those who ask the same at the same time are answered by one call. It has a
// deadline of its own, so that nobody who gives up takes an answer from others, and
// nobody takes one that was made by policies which tell the two apart.
//
// # Several PDPs
//
// No version goes back: what a PDP tells or answers by an older version than was
// seen of its namespace, from any, is passed over, and counted. A version is seen in
// decisions, in what is told, and in the error of a policy that fails or of a namespace
// that was retired. The same holds for the version of the trust file, which says
// whose releases decide and which guardrails bind.
//
// A call goes to those in turn that answer, and to the next one if one does not: if
// it cannot be reached, does not answer in its part of the time that there is, or
// says that it cannot say (policy.Unavailable). Any other error is the answer. A
// PDP that does not answer several times, nor anybody else meanwhile, is left alone for
// a while, after which one call finds out. If all are, calls end at once. Being asked again is bounded to a
// tenth of the calls, but for those that a PDP which is left alone leaves behind.
package remote
