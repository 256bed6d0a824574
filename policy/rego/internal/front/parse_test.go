package front_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/microwall/microwall/policy/rego/internal/front"
)

// Whatever stands before them, a million numbers are seen before the parser makes
// gigabytes of them.
func TestNothingHidesTokens(t *testing.T) {
	numbers := strings.Repeat("1,", 1_000_000)
	for name, before := range map[string]string{
		"nothing":                             `[`,
		"a string":                            `["a",`,
		"a string with a quote":               `["\"",`,
		"a string that ends in a backslash":   `["\\",`,
		"a string with a sign of a comment":   `["#",`,
		"a raw string":                        "[`a`,",
		"a raw string with a backslash":       "[`\\`,",
		"a raw string with a quote":           "[`\"`,",
		"a raw string of two lines":           "[`a\n#\n`,",
		"a comment with a quote":              "[ # \"\n",
		"a comment with a raw quote":          "[ # `\n",
		"a comment that ends in a backslash":  "[ # \\\n",
		"a template":                          `[$"{1}",`,
		"a template with a string in it":      `[$"{["a"][0]}",`,
		"a raw template":                      "[$`{1}`,",
		"a template that the numbers are in":  `[$"{[`,
		"a quote behind a character":          `["` + "\u00e9" + `\"",`,
		"a string that goes on past its line": "[\"a\n,",
	} {
		_, err := front.Compile(t.Context(), source("package z\n\nz := "+before+numbers))
		if _, ok := errors.AsType[*front.TooCostly](err); !ok {
			t.Errorf("behind %s they are not seen: %.200v", name, err)
		}
	}
}

func TestProseIsNoCode(t *testing.T) {
	words := strings.Repeat("so it is, ", 400_000)
	for name, text := range map[string]string{
		"a comment":    "# " + words + "\npackage z\n",
		"a string":     "package z\n\nz := \"" + words + "\"\n",
		"a raw string": "package z\n\nz := `" + words + "`\n",
	} {
		if _, err := front.Compile(t.Context(), source(text)); err != nil {
			t.Errorf("%s of %d words: %.200v", name, 1_200_000, err)
		}
	}
}

// However it is written, a long head is not copied by the parser for many bodies
// and branches.
func TestNothingHidesCopies(t *testing.T) {
	long := "[" + strings.Repeat("1,", 20_000) + "1]"
	for name, text := range map[string]string{
		"bodies":                         "z := " + long + " if { true }" + strings.Repeat(" { true }", 20_000),
		"bodies on lines of their own":   "z := " + long + " if {\ntrue\n}\n" + strings.Repeat("{\ntrue\n}\n", 20_000),
		"bodies behind comments":         "z := " + long + " if { true } # and\n" + strings.Repeat("# or } else {\n{ true } # and\n", 20_000),
		"branches":                       "z(" + long + ") if { true }" + strings.Repeat(" else if { true }", 20_000),
		"branches without braces":        "z(" + long + ") if true" + strings.Repeat(" else := 1 if true", 20_000),
		"branches on lines of their own": "z(" + long + ") if true\n" + strings.Repeat("else := 1 if\ntrue\n", 20_000),
		"a head of several lines":        "z(x,\n" + long + "\n)\n:=\n1 if { true }\n" + strings.Repeat("{ true }\n", 20_000),
		"a head of many lines":           "z := 1 +" + strings.Repeat("\n1 +", 20_000) + "\n1 if { true }\n" + strings.Repeat("{ true }\n", 20_000),
		"a head of names on lines":       "z :=\nx" + strings.Repeat(" +\nx", 20_000) + " if { true }\n" + strings.Repeat("{ true }\n", 20_000),
		"behind another rule":            "y := 1\ny if true\nz := " + long + " if { true }" + strings.Repeat(" { true }", 20_000),
		"with a template":                "y := $\"{1}\"\nz := " + long + " if { true }" + strings.Repeat(" { true }", 20_000),
		"with a brace in a string":       "z(\"{\", " + long + ") if { true }" + strings.Repeat(" { true }", 20_000),
		"keys":                           "z[" + long + "] := 1 if { true }" + strings.Repeat(" { true }", 20_000),
	} {
		_, err := front.Compile(t.Context(), source("package z\n\n"+text+"\n"))
		if costly, ok := errors.AsType[*front.TooCostly](err); !ok || !strings.Contains(costly.Message, "is copied") {
			t.Errorf("%s: %.200v", name, err)
		}
	}
}

func TestManyBranchesOfShortRulesAreParsed(t *testing.T) {
	if underRace {
		t.Skip("it is about sizes, for which the race detector takes long: run it without")
	}
	for name, src := range map[string]front.Source{
		"branches of one":      source("package z\n\nz := 1 if input.x == 1\n" + each(2000, "else := 2 if input.y == %[1]d\n")),
		"branches of many":     source("package z\n\n" + each(10_000, "f(x) := 1 if x == %[1]d else := 2 if {\n\tinput.y == %[1]d\n}\n")),
		"sets before bodies":   source("package z\n\n" + each(10_000, "z if every x in {%[1]d, 2} { x > 1 }\n")),
		"bodies of one":        source("package z\n\nz contains x if { x := 1 }\n" + each(2000, "{ x := %[1]d }\n")),
		"rules without braces": source("package z\n\n" + each(10_000, "x%[1]d := 1\n\ny%[1]d if x%[1]d else := false\n")),
	} {
		if _, err := front.Compile(t.Context(), src); err != nil {
			t.Errorf("%s: %.300v", name, err)
		}
	}
	v0 := source("package z\n\n" + each(3000, "z { input.x == %[1]d } { input.y == %[1]d }\n"))
	v0.RegoVersion = ast.RegoV0
	if _, err := front.Compile(t.Context(), v0); err != nil {
		t.Errorf("v0: %.300v", err)
	}
}
