package front_test

import (
	"flag"
	"iter"
	"sync"
	"testing"

	"github.com/microwall/microwall/policy/rego/internal/suite"
)

// To go over many cases takes long, the more so under the race detector. Every
// eighth is tried; all of them are by
//
//	go test ./policy/rego/internal/front -full
var (
	full  = flag.Bool("full", false, "try all cases of the suite, and all that is generated")
	first = flag.Uint("first", 0, "which of every eight cases is tried, where not all are")
)

// part are the numbers below n that are tried.
func part(n int) iter.Seq[int] {
	return func(yield func(int) bool) {
		from, step := int(*first%8), 8
		if *full {
			from, step = 0, 1
		}
		for i := from; i < n && yield(i); i += step {
		}
	}
}

// cases are those of OPA's suite, which take long to be read.
func cases(t testing.TB) []suite.Case {
	t.Helper()
	readCases.Do(func() { allCases = suite.Cases(t) })
	return allCases
}

var (
	readCases sync.Once
	allCases  []suite.Case
)
