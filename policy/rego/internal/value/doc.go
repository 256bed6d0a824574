// Package value holds the values that policies calculate with: JSON's, with
// numbers that keep their spelling, objects whose keys may be any value, and
// sets.
//
// A [Value] is four words and is passed by value. It is held in the form that it
// came in: a request's properties are read where they stand, a bundle's data
// from one packed block without pointers ([ParseData]), and only what a policy
// makes itself is built. Values are immutable once they can be seen by two
// goroutines: what an evaluation builds belongs to it alone until [Freeze] has
// been called.
//
// Equality, order, text and JSON of a value are OPA's. So is what stays of two
// equal members in different spellings: of a set the first one; of an object the
// first one's key, with the last one's value. In three places, in which OPA
// contradicts itself, values do not follow: numbers are always compared exactly,
// an equal number is found in a set or an object also beyond the range of
// doubles, and an object loses no member when another one is replaced.
package value
