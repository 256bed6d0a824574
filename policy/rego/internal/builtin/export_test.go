package builtin

import (
	"maps"
	"slices"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// Bridge is for tests: OPA's own implementation of a built-in, also where there
// is a native one, free of charge.
func Bridge(name string) (*Builtin, bool) {
	return bridgeFor(name, func(*Call, []value.Value) error { return nil })
}

// Native is for tests: the names of the native built-ins.
func Native() []string { return slices.Sorted(maps.Keys(native)) }
