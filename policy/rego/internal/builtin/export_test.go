package builtin

import (
	"maps"
	"slices"
)

// Bridge is for tests: OPA's own implementation of a built-in, also where there
// is a native one.
var Bridge = bridge

// Native is for tests: the names of the native built-ins.
func Native() []string { return slices.Sorted(maps.Keys(native)) }
