//go:build !race

package front_test

const underRace = false
