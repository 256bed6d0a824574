// Package mutant names the ways in which the clients can be broken on purpose, so
// that it can be shown that their tests would notice (package internal/exactness).
//
// In every build but those tests' own, each is a constant, false, and the
// compiler leaves out what would be done. With the build tag "mutants", which a
// program that is no test does not start with, the environment variable
// MICROWALL_MUTANT names the one that is true.
package mutant
