//go:build !race

package rego_test

const race = false
