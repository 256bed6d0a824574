package differential

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/microwall/microwall/policy/rego/internal/reference"
)

// ErrUnplanned is the error of an [Engine] for a policy that OPA's planner cannot
// plan.
var ErrUnplanned = errors.New("cannot be planned")

// ErrUnsafe is the error of an [Engine] for a policy that says nothing, and that
// OPA's compiler should refuse: with a variable that has no value, or a function
// that takes a document's place.
var ErrUnsafe = errors.New("is unsafe")

// Verdict on two answers.
type Verdict uint8

// The verdicts. Those from Refused on are faults.
const (
	// Same answer, or the same error.
	Same Verdict = iota
	// Unfinished: the context ended first, or OPA panicked, or made an object that
	// has one key twice.
	Unfinished
	// Order: both report an error, each another one of those that are possible,
	// or the reference a conflict, which hides what would fail behind it. Or a
	// number is spelled otherwise, but `p[x] := 1.0` stands beside `p.k := 1`, which
	// OPA's planner puts first and its evaluator last.
	Order
	// Unplanned: OPA's planner, which the other one begins with, cannot plan the
	// policy.
	Unplanned
	// Unsafe: the other one refuses what says nothing. Whether the reference fails,
	// too, depends on whether it comes there.
	Unsafe
	// Early: the other one alone reports an error, which the reference does,
	// too, if it is made to skip nothing.
	Early
	// Refused: the other one does not compile what the reference does.
	Refused
	// Value: the answers differ.
	Value
	// Spelling: the answers are equal, but a number in them is spelled in
	// another way.
	Spelling
	// Missed: the reference alone reports an error.
	Missed
	// Alone: the other one alone reports an error.
	Alone
	// Code: both report an error, with another code, and the other one's is
	// none of those that are possible.
	Code
	// Text: as Code, with the same code and another text.
	Text
)

var verdicts = [...]string{"same", "unfinished", "order", "unplanned", "unsafe", "early", "refused", "value", "spelling", "missed", "alone", "code", "text"}

func (v Verdict) String() string { return verdicts[v] }

// IsFault reports whether one of the two is wrong.
func (v Verdict) IsFault() bool { return v >= Refused }

// Difference between the answers to one question.
type Difference struct {
	Verdict Verdict
	// Input is the number of the question, -1 if it is about them all.
	Input int
	// Reference and Other are what the two said.
	Reference, Other string
}

func (d Difference) String() string {
	return fmt.Sprintf("%s, input %d\nreference: %s\nother:     %s", d.Verdict, d.Input, d.Reference, d.Other)
}

// Compare puts a case to the reference and to another evaluator, and returns
// what is not the same. The error is a case that the reference refuses.
func Compare(ctx context.Context, c *Case, other Engine) ([]Difference, error) {
	q, err := compile(c, false)
	if err != nil {
		return nil, err
	}
	ask, err := compileOther(c, other)
	if err != nil {
		d := Difference{Refused, -1, "compiles", err.Error()}
		switch {
		case errors.Is(err, ErrUnplanned):
			d.Verdict = Unplanned
		case errors.Is(err, ErrUnsafe):
			d.Verdict = Unsafe
		}
		return []Difference{d}, nil
	}
	var differences []Difference
	for i, text := range c.Inputs {
		input, err := parseInput(text)
		if err != nil {
			return nil, err
		}
		d := Difference{Input: i}
		expected := answer{}
		expected.solutions, expected.failures, expected.err = eval(ctx, q, input)
		got := answer{}
		got.solutions, got.err = askOther(ctx, ask, input)
		d.Reference, d.Other = expected.String(), got.String()
		if d.Verdict = judge(ctx, c, input, expected, got); d.Verdict != Same {
			differences = append(differences, d)
		}
	}
	return differences, nil
}

type answer struct {
	solutions ast.Set
	failures  []error
	err       error
}

func (a answer) String() string {
	if a.err != nil {
		return a.err.Error()
	}
	return a.solutions.String()
}

func eval(ctx context.Context, q *reference.Query, input ast.Value) (ast.Set, []error, error) {
	r, err := q.Eval(ctx, input, reference.Mode{})
	return solutions(r.Bindings), r.Failures, err
}

// compileOther turns a panic into an error, as askOther does.
func compileOther(c *Case, other Engine) (ask Ask, err error) {
	defer catch(&err)
	return other(c)
}

func askOther(ctx context.Context, ask Ask, input ast.Value) (set ast.Set, err error) {
	defer catch(&err)
	return ask(ctx, input)
}

func catch(err *error) {
	if cause := recover(); cause != nil {
		*err = fmt.Errorf("panic: %v", cause)
	}
}

func judge(ctx context.Context, c *Case, input ast.Value, expected, got answer) Verdict {
	_, crashed := errors.AsType[*reference.Crash](expected.err)
	switch {
	case ctx.Err() != nil, crashed, expected.err == nil && hasKeyTwice(expected.solutions):
		return Unfinished
	case expected.err == nil && got.err == nil && expected.solutions.Compare(got.solutions) != 0:
		return Value
	case expected.err == nil && got.err == nil && expected.solutions.String() != got.solutions.String():
		if c.mixesKeys() {
			return Order
		}
		return Spelling
	case expected.err == nil && got.err == nil:
		return Same
	case got.err == nil:
		return Missed
	case expected.err != nil && textOf(expected.err) == textOf(got.err):
		return Same
	case contains(expected.failures, got.err), codeOf(expected.err) == conflict:
		return Order
	}
	whole, err := wholly(ctx, c, input)
	found := err == nil && (contains(whole, got.err) || len(whole) > 0 && codeOf(whole[len(whole)-1]) == conflict)
	sameCode := codeOf(expected.err) == codeOf(got.err)
	switch {
	case ctx.Err() != nil:
		return Unfinished
	case found && expected.err == nil:
		return Early
	case expected.err == nil:
		return Alone
	case found, err != nil && sameCode:
		return Order
	case !sameCode:
		return Code
	}
	return Text
}

// hasKeyTwice reports whether there is an object in v that has one key twice: OPA
// (v1.22.2) does not find a key again if another one has the same hash.
func hasKeyTwice(v ast.Value) bool {
	twice := false
	ast.WalkTerms(ast.NewTerm(v), func(t *ast.Term) bool {
		if o, ok := t.Value.(ast.Object); ok {
			keys := o.Keys()
			slices.SortFunc(keys, func(a, b *ast.Term) int { return a.Value.Compare(b.Value) })
			twice = twice || len(slices.CompactFunc(keys, func(a, b *ast.Term) bool { return a.Value.Compare(b.Value) == 0 })) < o.Len()
		}
		return twice
	})
	return twice
}

// wholly returns what fails if nothing is skipped. The error is a policy that
// cannot be rewritten: what it skips, the type checker refuses elsewhere.
func wholly(ctx context.Context, c *Case, input ast.Value) ([]error, error) {
	q, err := compile(c, true)
	if err != nil {
		return nil, err
	}
	_, failures, err := eval(ctx, q, input)
	if _, crashed := errors.AsType[*reference.Crash](err); crashed {
		return nil, err
	}
	return failures, nil
}

func contains(all []error, err error) bool {
	return slices.ContainsFunc(all, func(one error) bool { return textOf(one) == textOf(err) })
}

// textOf returns the text of an error. Of a conflict it leaves out the values that
// OPA lists, for which it computes every rule once more, and the place: it is that
// of the rule that was computed last.
func textOf(err error) string {
	text := err.Error()
	if i := strings.Index(text, conflict); i >= 0 {
		text = text[i:]
		for _, end := range []string{"produced conflicting values", "object keys must be unique"} {
			if i := strings.Index(text, end); i >= 0 {
				return text[:i+len(end)]
			}
		}
	}
	return text
}

const conflict = "eval_conflict_error"

var code = regexp.MustCompile(`\beval_[a-z_]+_error\b`)

func codeOf(err error) string {
	if err == nil {
		return ""
	}
	return code.FindString(err.Error())
}
