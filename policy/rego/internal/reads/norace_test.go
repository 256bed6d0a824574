//go:build !race

package reads_test

const underRace = false
