// Package value holds the values that policies calculate with: JSON's, with
// numbers that keep their spelling, objects whose keys may be any value, and
// sets.
//
// A [Value] is four words and is passed by value. It is held in the form that it
// came in: a request's properties are read where they stand, a bundle's data
// from one packed block without pointers, and only what a policy makes itself is
// built. Values are immutable once they can be seen by two goroutines: what an
// evaluation builds belongs to it alone until [Freeze] has been called.
//
// Equality, order and the text of a value are OPA's.
package value
