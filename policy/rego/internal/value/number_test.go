package value_test

import (
	"cmp"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/microwall/microwall/policy/rego/internal/value"
	"github.com/microwall/microwall/policy/rego/internal/value/valuetest"
)

var aNumber = regexp.MustCompile(`^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,4})?$`)

// checkNumbers holds two numbers against math/big's exact ones.
func checkNumbers(t *testing.T, x, y string) {
	t.Helper()
	v, w := value.NumberText(x), value.NumberText(y)
	xr, _ := new(big.Rat).SetString(x)
	yr, _ := new(big.Rat).SetString(y)
	want := xr.Cmp(yr)
	if got := value.Compare(v, w); got != want {
		t.Errorf("Compare(%s, %s) = %d, want %d", x, y, got, want)
	}
	if got := value.Compare(w, v); got != -want {
		t.Errorf("Compare(%s, %s) = %d, want %d", y, x, got, -want)
	}
	if got := value.Equal(v, w); got != (want == 0) {
		t.Errorf("Equal(%s, %s) = %t", x, y, got)
	}
	if want == 0 && !value.SetOf(append(distinct(10), v)...).Has(w) {
		t.Errorf("a set with %s has no %s", x, y)
	}
	for _, n := range []struct {
		text string
		v    value.Value
		rat  *big.Rat
	}{{x, v, xr}, {y, w, yr}} {
		if got := n.v.Numeral(); got != n.text {
			t.Errorf("%s is spelled %s", n.text, got)
		}
		i, ok := n.v.Int64()
		if want := n.rat.IsInt() && n.rat.Num().IsInt64(); ok != want || ok && i != n.rat.Num().Int64() {
			t.Errorf("%s as int64: %d, %t, want %s, %t", n.text, i, ok, n.rat, want)
		}
		f, _ := strconv.ParseFloat(n.text, 64)
		if got, ok := n.v.Float64(); ok == math.IsInf(f, 0) || ok && got != f {
			t.Errorf("%s as float64: %g, %t, want %g", n.text, got, ok, f)
		}
	}
}

// distinct returns n strings: enough of them make a set look up by hash.
func distinct(n int) []value.Value {
	list := make([]value.Value, n)
	for i := range list {
		list[i] = value.Text(strconv.Itoa(i))
	}
	return list
}

func FuzzNumbers(f *testing.F) {
	for _, s := range []string{
		"0", "-0", "-0.0", "+5", "007", ".5", "5.", "0.50", "1e3", "1000", "1E+3", "10e-1", "1e400", "1e-400", "0e9999", "-1e400",
		"123456.5", "1234567.5", "0.0001", "0.00001", "0.1234567890123456789", "0.123456789012345678", "9223372036854775807",
		"-9223372036854775808", "-9223372036854775808.0", "9223372036854775808", "99999999999999999999", "999999999999999999e1",
		"9007199254740993", "9007199254740992", "9007199254740992.0000000001", "18446744073709551616",
	} {
		f.Add(s, "1")
		f.Add(s, s+"0")
		f.Add(s, "-"+strings.TrimPrefix(s, "-"))
	}
	f.Fuzz(func(t *testing.T, x, y string) {
		if len(x) < 100 && len(y) < 100 && aNumber.MatchString(x) && aNumber.MatchString(y) {
			checkNumbers(t, x, y)
		}
	})
}

func TestNumbersAreComparedExactly(t *testing.T) {
	g := valuetest.New(1)
	for range 20_000 {
		checkNumbers(t, g.Number(), g.Number())
	}
}

// What strconv makes of a double is a short number as well as a spelled one is.
func TestShortDoubles(t *testing.T) {
	for f := range 20_000 {
		for _, e := range []string{"", "e-1", "e-2", "e-3", "e-4", "e-5", "e-6", "e-7"} {
			x, _ := strconv.ParseFloat(strconv.Itoa(f*7)+e, 64)
			text := strconv.FormatFloat(x, 'g', -1, 64)
			if got := value.NumberText(text).Numeral(); got != text {
				t.Fatalf("%s is spelled %s", text, got)
			}
		}
	}
	for _, text := range []string{"-0x1p4", "0x1p-2", "0x_1p4", "0x1p-99999999", "0x0p0", "-0x0p0"} {
		v := value.NumberText(text)
		f, _ := strconv.ParseFloat(text, 64)
		if got := value.Compare(v, value.Float(f)); got != 0 || v.Numeral() != text {
			t.Errorf("%s: %d to %g, spelled %s", text, got, f, v.Numeral())
		}
	}
}

func TestWhatIsAnIndex(t *testing.T) {
	list := value.NewArray(value.Text("zero"), value.Text("one"))
	for text, want := range map[string]string{
		"0": "zero", "1": "one", "1.0": "one", "1.": "one", "-0": "zero", "0.00": "zero", "+1": "one", "01": "one",
		"2": "", "-1": "", "1e0": "", "10e-1": "", "0.5": "", "1.5": "", "1.000000000000000000000": "", "18446744073709551617": "", "0x1p0": "",
	} {
		if got := list.Get(value.NumberText(text)).Text(); got != want {
			t.Errorf("[%s] is %q, want %q", text, got, want)
		}
	}
}

func TestFloat(t *testing.T) {
	for f, want := range map[float64]string{0.5: "0.5", 1: "1", 100: "100", 1e6: "1e+06", 1e21: "1e+21", 123456789: "1.23456789e+08", -2.5e-7: "-2.5e-07", math.Copysign(0, -1): "-0"} {
		if got := value.Float(f).Numeral(); got != want {
			t.Errorf("%g is spelled %s, want %s", f, got, want)
		}
	}
	for _, x := range []float64{-1.5, -1, -0.25, 0, 0.25, 1, 1.5, 1e6, 1e19, 1e300} {
		for _, y := range []float64{-1.5, -1, -0.25, 0, 0.25, 1, 1.5, 1e6, 1e19, 1e300} {
			if got := value.Compare(value.Float(x), value.Float(y)); got != cmp.Compare(x, y) {
				t.Errorf("%g to %g: %d", x, y, got)
			}
		}
	}
}
