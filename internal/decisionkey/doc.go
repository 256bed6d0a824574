// Package decisionkey says under which key a decision is remembered: everything
// that it depends on, and nothing else.
//
// A decision depends on the engine that evaluates, on the releases along its
// path, and on what their policies read of the input. A [Layout] knows these for
// one path and builds the key of a request from them. Two requests have one key
// only if no policy on the path can tell them apart, so that the decision of the
// one is the decision of the other:
//
//   - The releases stand in the key with their namespaces and digests, each with
//     its length, in the order of the path.
//   - Of each path that is read stands how the walk down it ends: at a value, which
//     is written whole with its types, lengths before texts, and the members of
//     objects in the order of their names; or where it goes no further, at which
//     step and on a value of which type.
//   - The time stands there only with those of its parts that are read.
//   - Which paths are read stands there by their SHA-256 sum: values are not told
//     by which path they are at, so keys of other paths must be others.
//
// What is not read is not in the key: requests that differ only in an identifier
// for tracing have one key. Keys are compared whole; no sum stands for a value.
//
// The engine's side of this is the read set of a program: package
// policy/rego/internal/reads says what it promises.
package decisionkey
