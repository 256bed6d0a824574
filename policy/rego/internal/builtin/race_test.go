//go:build race

package builtin_test

// raceDetector makes everything take many times as long, and as much.
const raceDetector = true
