// Package policy is the vocabulary of Microwall: what is asked ([Request]),
// what is answered ([Decision], by which [Version]s), who answers
// ([Authorizer]) and how it fails ([Error], [Kind]). It depends on the standard
// library only, so that a service can name these things without linking
// anything else.
//
// A wrong allow is the one thing that must never happen. So the zero Decision
// denies, an error comes with the zero Decision, and values that would not mean
// the same at every way in are refused before anything is decided: see
// [NewProperties] and [Limits.Check].
package policy
