package builtin_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/builtin"
)

func TestPrintWritesWhatOPAWrites(t *testing.T) {
	const name = "internal.print"
	native, _ := builtin.Find(name)
	opa, _ := builtin.Bridge(name)
	for _, operand := range []string{
		`[]`, `["a", 1, 1.50, true, null, "b c", ""]`, `[set()]`, `[{"a"}, set(), {1}]`, `[{"a", "b"}, "x", {1, 2, 3}]`,
		`[{{"b": [1, "x"]}}, {[]}, {{1, {2}}}, {"\n\""}, {1e3, 2.0}]`,
		`[[1]]`, `[{"a": 1}]`, `["a", {1}, [2]]`, `"a"`,
	} {
		args := parse(t, operand)
		var got, want bytes.Buffer
		c := newCall()
		c.Watch = &builtin.Watch{Print: func(line string) { got.WriteString(line + "\n") }}
		_, gotErr := native.Func(c, args)
		host := newCall()
		host.Host = func() *topdown.BuiltinContext {
			return &topdown.BuiltinContext{Context: context.Background(), PrintHook: topdown.NewPrintHook(&want)}
		}
		_, wantErr := opa.Func(host, args)
		if got.String() != want.String() {
			t.Errorf("%s: got %q, want %q", operand, got.String(), want.String())
		}
		if diff := differ(args[0], gotErr, args[0], wantErr); diff != "" {
			t.Errorf("%s: %s", operand, diff)
		}
	}
}

// What is told outlives the evaluation, so that it is charged for.
func TestWhatATestTellsIsCharged(t *testing.T) {
	for name, operand := range map[string]string{
		"internal.print":     `[{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}]`,
		"internal.test_case": `["` + strings.Repeat("x", 2000) + `"]`,
	} {
		b, _ := builtin.Find(name)
		c := newCall()
		c.Reset(context.Background(), budget.Limits{Bytes: 2000})
		told := 0
		c.Watch = &builtin.Watch{Print: func(string) { told++ }, Case: func([]string) { told++ }}
		if _, err := b.Func(c, parse(t, operand)); !budget.IsOver(err) || told > 500 {
			t.Errorf("%s: told %d times, then %v", name, told, err)
		}
	}
}

func TestTheNamesOfACase(t *testing.T) {
	b, _ := builtin.Find("internal.test_case")
	for operand, want := range map[string][]string{
		`["a", "b c", ""]`:              {"a", "b c", ""},
		`[1, 2.50, true, null]`:         {"1", "2.50", "true", "null"},
		`[["a", 1], {"b": {2}}, set()]`: {`["a",1]`, `{"b":[2]}`, `[]`},
		`[]`:                            {},
	} {
		var got []string
		c := newCall()
		c.Watch = &builtin.Watch{Case: func(names []string) { got = names }}
		if _, err := b.Func(c, parse(t, operand)); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v, want %q", operand, got, err, want)
		}
	}
	place := int64(-1)
	c := newCall()
	c.Watch = &builtin.Watch{Reached: func(n int64) { place = n }}
	if _, err := b.Func(c, parse(t, `17`)); err != nil || place != 17 {
		t.Errorf("place %d, %v", place, err)
	}
}
