package builtin_test

import (
	"flag"
	"iter"
)

// The race detector makes everything take many times as long. With it, tests that
// make many calls make every eighth; all of them are made without it, and by
//
//	go test -race ./policy/rego/internal/builtin -full
var (
	full  = flag.Bool("full", !raceDetector, "make all calls that are made up")
	first = flag.Uint("first", 0, "which of every eight calls is made, where not all are")
)

// part are the numbers below n that are tried.
func part(n int) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		from, step := int(*first%8), 8
		if *full {
			from, step = 0, 1
		}
		for i := from; i < n && yield(uint64(i)); i += step {
		}
	}
}
