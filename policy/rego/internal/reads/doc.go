// Package reads works out which paths of the input a policy may read, from the
// plan (package v1/ir of OPA) that the policy is evaluated by. The set is the
// key under which decisions are remembered, so it may hold a path too many, but
// never one too few.
//
// # What the set promises
//
// Two inputs agree on a path if walking down it ends alike in both: at the same
// value, numbers spelled alike; or at the same step, on a value of the same type, because there it goes
// no further. So where nothing is found, it matters how far the path led (of
// a.b.c: is there an a, is there an a.b?) and whether it ended at an object, an
// array, a string, a number, a boolean or null. A key of decisions has to tell
// all of these apart.
//
// Two inputs that agree on every path of the set have the same results and the
// same errors, with the same texts, under any evaluation that does what the plan
// says: with and without strict errors of built-ins, early exit or an index.
//
// Three things are taken for granted. There is an input: whether it is there at
// all is not part of the set. It is JSON: no sets, and all keys of objects are
// strings. And the evaluation depends on nothing else that changes: not on the
// clock, and on no limit of steps, bytes or time that one input keeps and the
// other does not.
//
// # What is read
//
// A lookup with a constant key goes one step down a path and reads no more than
// that. What goes anywhere else is read whole, to its last leaf: what is
// iterated, compared, counted or tested for its type, the arguments of built-ins,
// elements of arrays, objects and sets that the policy makes, both a key that is
// not constant and what it is looked up in, and what becomes part of the answer.
//
// Values are followed through variables, through calls of functions and rules
// into their arguments and out of their results, through object.get with a
// constant path, and through "with", which puts its value on top of what it
// replaces a part of.
//
// Keys have types: [0] is an element of an array, ["0"] a member of an object.
//
// # How
//
// The plan is run on abstract values (file value.go): instead of what a local
// holds, it is known from where in the input it may come. Two evaluations on
// inputs that agree on the set go through the same statements in step, and a
// local holds in both the same value, or the value at the same path. Every
// statement either keeps this, or reads the value whole, after which it is the
// same value. Where ways through the plan meet, a local may come from either; a
// loop is run until nothing is added. A function is run once for each
// combination of arguments. Bounds on all of these widen the set when they are
// reached, never narrow it, so that a plan made by an adversary costs no more
// than a few times its length.
package reads
