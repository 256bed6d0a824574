package builtin_test

import "flag"

// What is made up to be compared with OPA takes long, the more so under the race
// detector. Of that, every eighth call is made; all of them are by
//
//	go test ./policy/rego/internal/builtin -full
var (
	full  = flag.Bool("full", false, "make all calls that are made up")
	first = flag.Uint64("first", 0, "which of every eight calls is made, where not all are")
)

// skipped reports whether the call of a seed is not made.
func skipped(seed uint64) bool { return !*full && seed%8 != *first%8 }
