package front_test

import (
	"errors"
	"strings"
	"testing"

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
