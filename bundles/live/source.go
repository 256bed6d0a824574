package live

import (
	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy/rego"
)

// SourceOf returns what of a bundle is compiled and tested.
func SourceOf(b *bundles.Bundle) rego.Source {
	return rego.Source{Modules: modules(b.Modules()), Tests: modules(b.Tests()), Data: b.Data()}
}

func modules(from []bundles.Module) []rego.Module {
	to := make([]rego.Module, len(from))
	for i, m := range from {
		to[i] = rego.Module(m)
	}
	return to
}
