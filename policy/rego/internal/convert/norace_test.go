//go:build !race

package convert_test

const underRace = false
