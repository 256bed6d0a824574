//go:build !race

package rego_test

const race = false

// childMemory bounds a process that is to suffer.
const childMemory = 3 << 30
