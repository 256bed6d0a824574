// Package cache keeps decisions that were made, so that the same question by
// the same policies is not evaluated twice.
//
// A cached decision is the decision. Its key is everything that the decision
// depends on: the releases along its path, and what their policies read of the
// request and of the time (package internal/decisionkey). A new release makes
// new keys, so that nothing is invalidated, nothing expires, and no stale entry
// can be hit. Equality of keys is decided by comparing them whole.
//
// Errors are never cached. Whether a decision is stale is no part of it and is
// worked out by whoever hands it out.
//
// Namespaces share the room, and the one that has most makes way first: one that
// is asked very many different questions cannot push the others out.
//
// A [Flight] has those wait together who miss the same decision at the same
// time.
package cache
