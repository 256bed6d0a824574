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
// evaluation an error of kind policy.Failed. What counts does not depend on the
// order of rules, on a rule index or on early exit: OPA's evaluator runs with
// strict built-in errors, without rule index and without early exit, so that
// every call that the policy makes is made. OPA stops early in two places all
// the same: `every` ends with the first element that does not hold, and the
// look-up of one member of a partial rule computes that member alone.
package rego
