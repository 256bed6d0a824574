package lint

import (
	"fmt"

	"golang.org/x/mod/modfile"
)

// Directives returns what in a go.mod keeps `go install MODULE@VERSION` from
// working, or from meaning the same as in a checkout, a sentence each.
func Directives(name string, text []byte) ([]string, error) {
	mod, err := modfile.Parse(name, text, nil)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, r := range mod.Replace {
		found = append(found, fmt.Sprintf("%s:%d: replaces %s: go install refuses that; require a version that does what is needed", name, r.Syntax.Start.Line, r.Old.Path))
	}
	for _, e := range mod.Exclude {
		found = append(found, fmt.Sprintf("%s:%d: excludes %s: go install refuses that; require a later version", name, e.Syntax.Start.Line, e.Mod))
	}
	return found, nil
}

// Version returns the version of a module that a go.mod requires.
func Version(name string, text []byte, module string) (string, error) {
	mod, err := modfile.Parse(name, text, nil)
	if err != nil {
		return "", err
	}
	for _, r := range mod.Require {
		if r.Mod.Path == module {
			return r.Mod.Version, nil
		}
	}
	return "", fmt.Errorf("%s does not require %s", name, module)
}
