package convert_test

import (
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/microwall/microwall/policy/rego/internal/convert"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

var values = []string{
	`null`, `true`, `false`, `0`, `-0`, `1`, `1.0`, `1e0`, `1E+2`, `-12.50`, `0.1`, `1e-7`, `1e400`, `-1e-400`,
	`9223372036854775807`, `9223372036854775808`, `-9223372036854775809`, `123456789012345678901234567890`,
	`""`, `"ß\u0000\n"`, `[]`, `{}`, `set()`, `[1, [2.0, "a"], {"b": {3}}]`,
	`{1: "a", "1": "b", 1.5: null, [1]: {2}, {"k": 1}: set(), {7}: true, null: 0, true: 1}`,
	`{1, "1", 1.5, [1], {"k": 1}, {7}, null, true}`, `{"z": 1, "a": 2, "m": [3]}`,
	`{0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.11, 0.12}`,
}

func TestNothingIsLostInConversion(t *testing.T) {
	for _, text := range values {
		want := ast.MustParseTerm(text).Value
		v, err := convert.FromAST(want)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got := convert.ToAST(v)
		if got.String() != want.String() || got.Compare(want) != 0 || got.Hash() != want.Hash() {
			t.Errorf("%s became %s", want, got)
		}
	}
}

func TestValuesOfBothHaveOneOrder(t *testing.T) {
	for _, a := range values {
		for _, b := range values {
			x, y := ast.MustParseTerm(a).Value, ast.MustParseTerm(b).Value
			v, _ := convert.FromAST(x)
			w, _ := convert.FromAST(y)
			if got, want := sign(value.Compare(v, w)), sign(x.Compare(y)); got != want {
				t.Errorf("%s to %s: %d, OPA says %d", a, b, got, want)
			}
			if got, want := value.Equal(v, w), ast.ValueEqual(x, y); got != want {
				t.Errorf("%s is %s: %t, OPA says %t", a, b, got, want)
			}
		}
	}
}

func sign(i int) int {
	switch {
	case i < 0:
		return -1
	case i > 0:
		return 1
	}
	return 0
}

func TestWhatIsNoValueIsRefused(t *testing.T) {
	for _, text := range []string{`x`, `data.a`, `[x]`, `{"a": input.b}`, `{y}`, `{x: 1}`, `[a | a = 1]`} {
		if v, err := convert.FromAST(ast.MustParseTerm(text).Value); err == nil {
			t.Errorf("%s is taken for a value of kind %s", text, v.Kind())
		}
	}
	if v, err := convert.FromAST(nil); err != nil || v.Defined() {
		t.Errorf("nil gives %s, %v; want the undefined value", v.Kind(), err)
	}
	if v := convert.ToAST(value.Value{}); v != nil {
		t.Errorf("the undefined value gives %s, want nil", v)
	}
}
