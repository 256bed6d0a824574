package builtin_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/convert"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// TestALongTextIsSearchedAsAShortOne is about texts that are too long to be given
// to package regexp at once.
func TestALongTextIsSearchedAsAShortOne(t *testing.T) {
	long := strings.Repeat("ab é\nx\xff", 300)
	for _, pattern := range []string{`b`, `\bx\b`, `(?m)^x`, `(?m)$`, `$`, `^`, `^a`, `a.*?x`, `é|(x)`, `\B`, ``, `(a)(b)?|x`, `[^a]+`, `\x{fffd}`, `(?i)X`, `z`, `(?s).*\z`} {
		for _, text := range []string{long, "z" + long + "z", strings.Repeat("é", 900), strings.Repeat("ab", 40_000)} {
			for name, args := range map[string][]value.Value{
				"regex.match":                      {value.Text(pattern), value.Text(text)},
				"regex.find_n":                     {value.Text(pattern), value.Text(text), value.Int(5)},
				"regex.find_all_string_submatch_n": {value.Text(pattern), value.Text(text), value.Int(3)},
				"regex.split":                      {value.Text(pattern), value.Text(text)},
				"regex.replace":                    {value.Text(text), value.Text(pattern), value.Text("<$0$1>")},
			} {
				if len(text) > 10_000 && name != "regex.match" {
					continue
				}
				got, err := call(name, args...)
				opa, _ := builtin.Bridge(name)
				want, wantErr := opa.Func(newCall(), args)
				if diff := differ(got, err, want, wantErr); diff != "" {
					t.Errorf("%s of %q in %d bytes: %.300s", name, pattern, len(text), diff)
				}
			}
		}
	}
}

// TestAPatternCostsTheSameEveryTime is about whether it has been compiled before.
func TestAPatternCostsTheSameEveryTime(t *testing.T) {
	for name, args := range map[string][]value.Value{
		"regex.match":    texts2(`once (and|or) (again)+`, "once and again"),
		"regex.is_valid": texts2(`not valid (`),
		"glob.match":     {value.Text("once.*.{again,more}*"), value.NewArray(), value.Text("once.and.again")},
	} {
		cost := func() (steps, bytes int64) {
			m := new(budget.Meter)
			m.Reset(context.Background(), budget.Limits{Steps: 1_000_000, Bytes: 1_000_000})
			b, _ := builtin.Find(name)
			if _, err := b.Func(&builtin.Call{Meter: m}, args); err != nil {
				t.Fatal(err)
			}
			for ; m.Step(1) == nil; steps++ {
			}
			for ; m.Bytes(1) == nil; bytes++ {
			}
			return steps, bytes
		}
		steps, bytes := cost()
		for range 3 {
			if s, b := cost(); s != steps || b != bytes {
				t.Fatalf("%s: %d steps and %d bytes are left at first, %d and %d later", name, steps, bytes, s, b)
			}
			for i := range 3000 { // displace it
				if _, err := call("regex.is_valid", value.Text(fmt.Sprint("x", i))); err != nil {
					t.Fatal(err)
				}
				if _, err := call("glob.match", value.Text(fmt.Sprint("x", i)), value.NullValue, value.Text("")); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func TestManyPatternsAtOnce(t *testing.T) {
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := range 3000 {
				n := (i*7 + worker) % 2000
				for name, args := range map[string][]value.Value{
					"regex.match": texts2(fmt.Sprintf("^x%d$", n), fmt.Sprint("x", n)),
					"glob.match":  {value.Text(fmt.Sprintf("x%d*", n)), value.NullValue, value.Text(fmt.Sprintf("x%d.", n))},
				} {
					if got, err := call(name, args...); err != nil || !got.IsTrue() {
						t.Errorf("%s of %v: %v, %v", name, args, got, err)
						return
					}
				}
			}
		})
	}
	all.Wait()
}

func TestALongMatchEndsWithItsDeadline(t *testing.T) {
	megabyte := strings.Repeat("ab", 1<<19)
	for _, tc := range []struct {
		name string
		args []value.Value
	}{
		{"regex.match", texts2(`(a|b|ab)*(b|a|ba)*c`, megabyte)},
		{"regex.match", texts2(`(?:(?:a?b?){0,30}){0,30}c`, megabyte)},
		{"regex.find_n", append(texts2(`[ab]*c|b`, megabyte), value.Int(-1))},
		{"regex.split", texts2(`[ab]*c|b`, megabyte)},
		{"regex.replace", texts2(megabyte, `[ab]*c|b`, "x")},
		{"glob.match", []value.Value{value.Text(strings.Repeat("*a*b", 50) + "c"), value.NewArray(), value.Text(megabyte)}},
		{"indexof_n", texts2(megabyte, megabyte[:1<<19])},
		{"numbers.range", []value.Value{value.NumberText("10000000000000000000"), value.NumberText("20000000000000000000")}},
		{"net.cidr_expand", texts2("10.0.0.0/9")},
		{"strings.any_prefix_match", []value.Value{prefixes("x", 20_000), prefixes("y", 20_000)}},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		m := new(budget.Meter)
		m.Reset(ctx, budget.Limits{})
		b, _ := builtin.Find(tc.name)
		_, err := b.Func(&builtin.Call{Meter: m}, tc.args)
		late := time.Since(deadline(ctx))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, want the deadline's error", tc.name, err)
		}
		if late > time.Second { // 10 ms on a machine that does nothing else
			t.Errorf("%s went on for %v", tc.name, late)
		}
	}
}

func deadline(ctx context.Context) time.Time {
	d, _ := ctx.Deadline()
	return d
}

func prefixes(s string, n int) value.Value {
	list := value.NewArray()
	for i := range n {
		list.Append(value.Text(fmt.Sprint(s, i)))
	}
	return list
}

// TestWhatOPADoesNotDo are calls for which OPA never comes back, or gives
// something else each time.
func TestWhatOPADoesNotDo(t *testing.T) {
	for _, tc := range []struct{ name, a, b, want string }{
		{"semver.compare", "1.0.0-99999999999999999999", "1.0.0-99999999999999999998", "0"},
		{"semver.compare", "1.0.0-99999999999999999999.1", "1.0.0-99999999999999999998", "1"},
		{"semver.compare", "1.0.0-a.99999999999999999999", "1.0.0-a.9223372036854775807", "0"},
	} {
		if got, err := call(tc.name, value.Text(tc.a), value.Text(tc.b)); err != nil || convert.ToTerm(got).String() != tc.want {
			t.Errorf("%s(%q, %q): %v, %v, want %s", tc.name, tc.a, tc.b, got, err, tc.want)
		}
	}
	_, err := call("sprintf", value.Text("%p"), value.NewArray(value.NumberText("123456789012345678901234567890")))
	var e *builtin.Error
	if !errors.As(err, &e) || e.Code != builtin.BuiltinError {
		t.Errorf("sprintf shows an address: %v", err)
	}
}
