// Package lint keeps promises about the source that no compiler keeps: which
// package may import which ([ImportMap]), that go.mod installs for everyone
// ([Directives], [Version]), and that no test passes by waiting ([Sleeps]).
//
// Its tests hold this repository against them. Everything is read in-process,
// through files that the test opens, so that the test cache knows what the
// result depends on. Each check takes a file system and can be held against a
// tree that breaks the promise.
package lint
