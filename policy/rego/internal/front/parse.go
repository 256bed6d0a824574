package front

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// What is parsed, all modules together. The parser takes up to 10 µs and 600
// bytes for a token.
const (
	mayParseBytes  = 16 << 20
	mayParseTokens = 1_000_000
)

func parse(ctx context.Context, src *Source) (map[string]*ast.Module, error) {
	options := ast.ParserOptions{
		Capabilities: src.Capabilities, RegoVersion: src.RegoVersion,
		FutureKeywords: src.FutureKeywords, ProcessAnnotation: src.Annotations,
	}
	bytes, tokens := 0, 0
	for _, m := range src.Modules {
		bytes += len(m.Text)
		if tokens += tokensOf(m.Text); bytes > mayParseBytes || tokens > mayParseTokens {
			return nil, &TooCostly{
				File:    m.Path,
				Message: fmt.Sprintf("there is too much Rego: more than %d MiB or %d words and signs, this file and those before it taken together", mayParseBytes>>20, mayParseTokens),
				Hint:    "put tables into data.json",
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

// tokensOf returns how many tokens the parser finds in a text, or more: comments
// and strings are left out unless the text may have templates, whose strings
// have code in them. What is not Rego may have more tokens; it is not parsed far.
func tokensOf(text string) (n int) {
	templates := strings.Contains(text, "$\"") || strings.Contains(text, "$`")
	word := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		inWord := c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
		switch {
		case inWord:
			if !word {
				n++
			}
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
		default:
			n++
			if templates {
				break
			}
			end := 0
			switch c {
			case '#':
				end = strings.IndexByte(text[i:], '\n')
			case '`':
				end = strings.IndexByte(text[i+1:], '`') + 1
			case '"':
				end = quoted(text[i:])
			}
			if end < 0 {
				return n
			}
			i += end
		}
		word = inWord
	}
	return n
}

// quoted returns where the string ends that a text begins with: at a quote that
// is not escaped, or at the end of the line, which the parser refuses. It is
// negative if neither comes.
func quoted(text string) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"', '\n':
			return i
		}
	}
	return -1
}
