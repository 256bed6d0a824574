//go:build race

package rego_test

// race is set if the race detector is in, which takes memory and time of its own.
const race = true

// childMemory bounds a process that is to suffer: the detector remembers accesses
// in several times the memory that is accessed.
const childMemory = 6 << 30
