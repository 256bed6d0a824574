package rego

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// Problem is one thing that is wrong with a bundle.
type Problem struct {
	// File is the module's path inside the bundle; data.json for data.
	File string `json:"file"`
	// Line and Column count from 1; 0 where the problem is about the whole file.
	Line   int `json:"line"`
	Column int `json:"column"`
	// Message says what is wrong.
	Message string `json:"message"`
	// Hint says how to get around it, "" if there is nothing to add.
	Hint string `json:"hint,omitempty"`
}

// String returns "file:line:column: message (hint)".
func (p Problem) String() string {
	s := p.File
	if p.Line > 0 {
		s += fmt.Sprintf(":%d:%d", p.Line, p.Column)
	}
	s += ": " + p.Message
	if p.Hint != "" {
		s += " (" + p.Hint + ")"
	}
	return s
}

// Problems is the error of a bundle that does not compile: every problem,
// sorted by place. Its kind is policy.BadRequest.
type Problems []Problem

// Error returns all problems, one a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the error its kind.
func (ps Problems) Unwrap() error {
	return &policy.Error{Kind: policy.BadRequest, Message: ps.Error()}
}

// err returns the problems as an error, sorted and each once; nil if there are
// none.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	ps.sort()
	return slices.Compact(ps)
}

func (ps Problems) sort() {
	slices.SortFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Message, b.Message))
	})
}

func (ps *Problems) add(loc *ast.Location, hint, format string, args ...any) {
	p := Problem{Message: fmt.Sprintf(format, args...), Hint: hint}
	if loc != nil {
		p.File, p.Line, p.Column = loc.File, loc.Row, loc.Col
	}
	*ps = append(*ps, p)
}

// addData takes over why data.json is none.
func (ps *Problems) addData(err error) {
	p := Problem{File: "data.json", Message: err.Error()}
	if fault, ok := errors.AsType[*value.DataError](err); ok {
		p.Line, p.Column, p.Message = fault.Line, fault.Column, fault.Message
	}
	*ps = append(*ps, p)
}

// maxMessage bounds a message of OPA's, in bytes.
const maxMessage = 1000

var undefinedFunction = regexp.MustCompile(`undefined function (\S+)`)

// addAST takes over what OPA's parser or compiler reported for a file.
func (ps *Problems) addAST(file string, err error) {
	var errs ast.Errors
	ok := errors.As(err, &errs)
	if !ok {
		*ps = append(*ps, Problem{File: file, Message: err.Error()})
		return
	}
	for _, e := range errs {
		p := Problem{File: file, Message: e.Message}
		if e.Location != nil && e.Location.Row > 0 {
			p.Line, p.Column = e.Location.Row, e.Location.Col
			if e.Location.File != "" {
				p.File = e.Location.File
			}
		}
		if e.Details != nil {
			p.Message += ": " + strings.Join(strings.Fields(strings.Join(e.Details.Lines(), " ")), " ")
		}
		p.Hint = hintFor(p.Message)
		// Of what is wrong with a type, OPA writes out the type.
		if len(p.Message) > maxMessage {
			p.Message = strings.ToValidUTF8(p.Message[:maxMessage], "") + "..."
		}
		*ps = append(*ps, p)
	}
}

func hintFor(message string) string {
	if m := undefinedFunction.FindStringSubmatch(message); m != nil {
		return hints[m[1]]
	}
	if strings.Contains(message, "`if` keyword is required") || strings.Contains(message, "`contains` keyword is required") {
		return "this is Rego v0, which is refused; `opa fmt --write --v0-v1` rewrites it"
	}
	return ""
}
