// Package exec runs OPA's plans (package ir): it turns a plan into nested
// closures once, and runs these on package value's values.
//
// What a statement means is what OPA's planner and its WebAssembly compiler say.
// A statement that is undefined leaves the block that it stands in. A rule that
// depends on input and data alone is computed once an evaluation in each world, a
// world being an input and a data document: `with` makes new ones.
package exec
