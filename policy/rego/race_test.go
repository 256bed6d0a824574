//go:build race

package rego_test

// race is set if the race detector is in, which takes memory and time of its own.
const race = true
