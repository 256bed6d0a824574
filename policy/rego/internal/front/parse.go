package front

import (
	"context"
	"errors"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// What is parsed, all modules together. The parser takes up to 10 µs and 600
// bytes for a token, 50 bytes for each that it copies, and a nanosecond for ten
// that it looks at. Each of its complaints of a default rule quotes the rule's line.
const (
	mayParseBytes   = 16 << 20
	mayParseTokens  = 1_000_000
	mayParseCopies  = 3_000_000
	mayParseLookups = 10_000_000_000
	mayParseQuoted  = 100 << 20
)

func parse(ctx context.Context, src *Source) (map[string]*ast.Module, error) {
	options := ast.ParserOptions{
		Capabilities: src.Capabilities, RegoVersion: src.RegoVersion,
		FutureKeywords: src.FutureKeywords, ProcessAnnotation: src.Annotations,
	}
	bytes, tokens, copies, lookups, quoted := 0, 0, 0, 0, 0
	for _, m := range src.Modules {
		bytes += len(m.Text)
		l := lexer{text: m.Text, v0: src.RegoVersion == ast.RegoV0}
		l.run()
		tokens += l.tokens
		copies += l.copies
		lookups += l.lookups
		quoted += l.quoted
		switch {
		case bytes > mayParseBytes || tokens > mayParseTokens:
			return nil, &TooCostly{
				File:    m.Path,
				Message: fmt.Sprintf("there is too much Rego: more than %d MiB or %d words and signs, this file and those before it taken together", mayParseBytes>>20, mayParseTokens),
				Hint:    "put tables into data.json",
			}
		case l.endless > 0:
			return nil, &TooCostly{
				File: m.Path, Line: l.endless,
				Message: fmt.Sprintf("there is a number of more than %d digits", value.MaxNumeral),
				Hint:    "make it a string",
			}
		case copies > mayParseCopies:
			return nil, &TooCostly{
				File: m.Path, Line: l.worst,
				Message: "parsing would take too long: the head of this rule is copied for each of its bodies and else branches",
				Hint:    "put what is long into a rule of its own, and write a rule for each body",
			}
		case quoted > mayParseQuoted:
			return nil, &TooCostly{
				File: m.Path, Line: l.mostQuoted,
				Message: "parsing might take too much memory: this line with `default` is long, and is quoted for each mistake in it",
				Hint:    "write `default` on a line of its own; a table belongs into data.json",
			}
		case lookups > mayParseLookups && l.templates:
			return nil, &TooCostly{
				File:    m.Path,
				Message: fmt.Sprintf("parsing might take too long: there are %d words and signs in a file with templates", l.tokens),
				Hint:    "put the rules with templates into a file of their own",
			}
		case lookups > mayParseLookups:
			return nil, &TooCostly{
				File: m.Path, Line: l.longestLine,
				Message: fmt.Sprintf("parsing would take too long: there are %d words and signs in brackets behind a name here", l.longest),
				Hint:    "give functions fewer arguments and rules shorter names; a table belongs into data.json",
			}
		}
	}
	var unparsed Unparsed
	modules := make(map[string]*ast.Module, len(src.Modules))
	for _, m := range src.Modules {
		if err := alive(ctx, "parse "+m.Path); err != nil {
			return nil, err
		}
		if modules[m.Path] != nil {
			unparsed = append(unparsed, UnparsedModule{m.Path, ErrTwice})
			continue
		}
		module, err := ast.ParseModuleWithOpts(m.Path, m.Text, options)
		if one, ok := errors.AsType[*ast.Error](err); ok { // an empty file has one alone
			err = ast.Errors{one}
		}
		if err != nil {
			unparsed = append(unparsed, UnparsedModule{m.Path, err})
			continue
		}
		modules[m.Path] = module
	}
	if len(unparsed) > 0 {
		return nil, unparsed
	}
	return modules, nil
}
