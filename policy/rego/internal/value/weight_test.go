package value_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/microwall/microwall/policy/rego/internal/value"
	"github.com/microwall/microwall/policy/rego/internal/value/valuetest"
)

// plainSize is [value.Value.Size] in the plainest words, but for the spelling of
// numbers, which may be held as a text or not.
func plainSize(v value.Value) value.Size {
	size := value.Size{Values: 1}
	if !v.IsComposite() {
		size.Text = int64(len(v.Text()))
		return size
	}
	size.Depth = 1
	add := func(v value.Value) {
		s := plainSize(v)
		size.Values += s.Values
		size.Text += s.Text
		size.Depth = max(size.Depth, s.Depth+1)
	}
	for key, val := range v.All() {
		if add(val); v.Kind() == value.Object {
			add(key)
		}
	}
	return size
}

// measured returns v's size, and holds what was charged for it against that.
func measured(t *testing.T, v value.Value) value.Size {
	t.Helper()
	var charged int64
	size, err := v.Measure(func(weight int64) error { charged += weight; return nil })
	if least := size.Values; err != nil || charged < least || charged > size.Weight() {
		t.Fatalf("charged %d for %+v (%v)", charged, size, err)
	}
	return size
}

func TestSizeCountsEveryFormAlike(t *testing.T) {
	for seed := range uint64(2000) {
		v := valuetest.New(seed).Value(4)
		got, want := measured(t, v), plainSize(v)
		if got.Values != want.Values || got.Depth != want.Depth || got.Text < want.Text || got.Text > want.Text+160*want.Values {
			t.Fatalf("%s is %+v, want %+v", v, got, want)
		}
		if w := v.Weight(1 << 30); w != got.Weight() && v.IsComposite() {
			t.Fatalf("%s weighs %d, want %d", v, w, got.Weight())
		}
	}
	long := value.NewArray(value.Text(strings.Repeat("a", 6400)), value.NumberText(strings.Repeat("7", 1600)))
	if got, want := measured(t, long), (value.Size{Values: 3, Text: 12800, Depth: 1}); got != want {
		t.Errorf("long texts are %+v, want %+v", got, want)
	}
}

func TestWhatIsWithoutEndIsNotWeighedToTheEnd(t *testing.T) {
	v := value.Int(1)
	for range 60 { // 2^60 ones
		v = value.NewArray(v, v)
	}
	if got := v.Weight(1000); got < 1000 || got > 1100 {
		t.Errorf("stopped at %d, want a little over 1000", got)
	}
	enough := errors.New("enough")
	left := int64(1_000_000)
	_, err := v.Measure(func(weight int64) error {
		if left -= weight; left < 0 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || left < -10_000 {
		t.Errorf("stopped with %v when %d were left, want to stop soon after none were", err, left)
	}
}

func TestADeepValueIsMeasuredOnce(t *testing.T) {
	v := value.Int(1)
	for range 200_000 {
		v = value.NewArray(v)
	}
	if got, want := measured(t, v), (value.Size{Values: 200_001, Depth: 200_000}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
