//go:build mutants

package mutant

import (
	"os"
	"testing"
)

// See off.go.
var (
	PathLeftOut        bool
	UntypedKey         bool
	KeyAfterEvaluation bool
	ErrorCached        bool
	CancellationShared bool
	OldHeadApplied     bool
	FiledByOwnClock    bool
	OldPathsFiled      bool
)

func init() {
	if !testing.Testing() {
		panic("this program was built with -tags mutants, which is for tests alone: build it without")
	}
	all := map[string]*bool{
		"":                   new(bool),
		"PathLeftOut":        &PathLeftOut,
		"UntypedKey":         &UntypedKey,
		"KeyAfterEvaluation": &KeyAfterEvaluation,
		"ErrorCached":        &ErrorCached,
		"CancellationShared": &CancellationShared,
		"OldHeadApplied":     &OldHeadApplied,
		"FiledByOwnClock":    &FiledByOwnClock,
		"OldPathsFiled":      &OldPathsFiled,
	}
	name := os.Getenv("MICROWALL_MUTANT")
	if all[name] == nil {
		panic("MICROWALL_MUTANT names " + name + ", which is none")
	}
	*all[name] = true
}
