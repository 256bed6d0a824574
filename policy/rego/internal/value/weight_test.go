package value_test

import (
	"strings"
	"testing"

	"github.com/microwall/microwall/policy/rego/internal/value"
	"github.com/microwall/microwall/policy/rego/internal/value/valuetest"
)

// weights are bounds of [value.Value.Weight]: a number can be held as a text, or
// not.
func weights(v value.Value) (low, high int64) {
	switch v.Kind() {
	case value.Number:
		return 1, 1 + int64(len(v.Numeral())/16)
	case value.String:
		n := 1 + int64(len(v.Text())/64)
		return n, n
	}
	low, high = 1, 1
	add := func(v value.Value) {
		l, h := weights(v)
		low, high = low+l, high+h
	}
	for key, val := range v.All() {
		if add(val); v.Kind() == value.Object {
			add(key)
		}
	}
	return low, high
}

func TestWeightCountsEveryFormAlike(t *testing.T) {
	for seed := range uint64(2000) {
		v := valuetest.New(seed).Value(4)
		low, high := weights(v)
		if got := v.Weight(1 << 30); got < low || got > high {
			t.Fatalf("%s weighs %d, want %d to %d", v, got, low, high)
		}
	}
	long := value.NewArray(value.Text(strings.Repeat("a", 6400)), value.NumberText(strings.Repeat("7", 1600)))
	if got := long.Weight(1 << 30); got != 203 {
		t.Errorf("long texts weigh %d, want 203", got)
	}
}

func TestWeightStopsAtItsLimit(t *testing.T) {
	v := value.Int(1)
	for range 60 { // 2^60 ones
		v = value.NewArray(v, v)
	}
	if got := v.Weight(1000); got < 1000 || got > 1100 {
		t.Errorf("stopped at %d, want a little over 1000", got)
	}
}
