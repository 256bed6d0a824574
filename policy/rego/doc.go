// Package rego compiles the Rego of one bundle into an immutable [Program], and
// is the only door to OPA: no other package names it.
//
// # What a policy is
//
// A bundle's package authz holds up to four rules. `allow` is a complete
// boolean rule; `deny` and `reasons` are sets of strings; `obligations` is an
// object. Undefined means no, or none. Any other shape is a [Problem] where it
// can be seen at compile time, and an error of the evaluation otherwise. A
// bundle with neither `allow` nor `deny` does not compile, so that a typo is
// never a guardrail that does not exist; nor does data under `authz` or under
// the path of a rule, which could answer in a rule's place.
//
// # The language
//
// Rego v1 (and `import rego.v2`) with the built-ins that language.txt lists:
// OPA's, less those that it marks nondeterministic and those that read clock,
// host or network without being marked. Built-ins that the host process has
// registered with OPA are not part of it. What depends on the host by its
// arguments (time zones, zone abbreviations) must have arguments that can be
// judged at compile time. So an evaluation depends on nothing but the request,
// its [Stamp] and the bundle: it can be cached without expiry, and replayed.
//
// # Errors
//
// A built-in that fails while one of the asked rules is computed makes the
// evaluation an error of kind policy.Failed; so do two values for one complete
// rule or key. What counts does not depend on the order of rules, on an index or
// on early exit: it is every call that the plan makes when it is run to its end. A
// rule is skipped, or a loop left, only where nothing that can fail is left out.
//
// # Evaluation
//
// OPA parses, compiles and plans; the plan is compiled into closures here, and
// run on values that are read where they are: the request's properties in place,
// the bundle's data from one packed block. Rules that compare the request with
// constants before their first call that can fail are found by an index. What a
// policy may read of the input is known ([Report.Reads]).
//
// An evaluation is bounded by steps, bytes and time ([Options]), compilation by
// the size of what it would make and by ten seconds.
package rego
