package rego

import (
	"runtime/debug"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/version"

	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego/internal/reads"
)

// module is this one, as programs that use it list it.
const module = "github.com/microwall/microwall"

// Engine names what evaluates: this module and OPA, each with its version. Two
// processes of which one could answer differently have different names; a
// decision that was made by one engine is not taken for one of another.
func Engine() string { return engine() }

var engine = sync.OnceValue(func() string {
	own := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Path == module {
			own = info.Main.Version
		}
		for _, d := range info.Deps {
			if d.Path == module {
				own = d.Version
			}
		}
	}
	return "microwall/" + strings.Trim(own, "()") + " opa/" + version.Version
})

// Reads returns the paths of the input that the policy may read, sorted, none
// below another. Inputs that agree on them (package decisionkey says what that
// means) have the same outcome, or the same error. The caller may change the
// slice but not the paths.
func (p *Program) Reads() []policy.ReadPath {
	paths := p.reads.Paths()
	all := make([]policy.ReadPath, len(paths))
	for i, path := range paths {
		all[i] = readPath(path)
	}
	return all
}

// readPath translates a path. A step that JSON has nothing for leads nowhere:
// where the walk ends is then known from what is read above.
func readPath(path reads.Path) policy.ReadPath {
	p := make(policy.ReadPath, 0, len(path))
	for _, k := range path {
		index, isIndex := k.Index()
		switch {
		case k.Kind == reads.String:
			p = append(p, policy.Step{Name: k.Text})
		case isIndex:
			p = append(p, policy.Step{Element: true, Index: index})
		default:
			return p
		}
	}
	return p
}
