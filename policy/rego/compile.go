package rego

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/exec"
	"github.com/microwall/microwall/policy/rego/internal/front"
	"github.com/microwall/microwall/policy/rego/internal/reads"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// Module is one Rego file.
type Module struct {
	// Path inside the bundle, for instance "authz.rego". It is where problems
	// are reported.
	Path string
	// Source text.
	Source []byte
}

// Source is what a bundle brings to be compiled.
type Source struct {
	// Modules of the policy, without its tests.
	Modules []Module
	// Tests are the modules that test it. They are compiled only by [Check]
	// and [Test].
	Tests []Module
	// Data is a JSON object; empty is {}.
	Data []byte
}

// Options of a [Program]. The zero value has the defaults. What an evaluation
// needs more of than it may is an error of kind policy.Failed.
type Options struct {
	// Budget is how long one evaluation may take. Zero is one second.
	Budget time.Duration
	// Steps is how many statements and elements one evaluation may look at; one
	// takes some ten nanoseconds. Zero is 20 million.
	Steps int64
	// Bytes is how much one evaluation may build. Zero is 256 MiB.
	Bytes int64
}

func (o Options) limits() budget.Limits {
	return budget.Limits{Time: cmp.Or(o.Budget, time.Second), Steps: cmp.Or(o.Steps, 20_000_000), Bytes: cmp.Or(o.Bytes, 256<<20)}
}

// compileTime is how long a policy may take to be compiled. The stages of OPA's
// compiler cannot be interrupted; what could make one of them take much longer is
// refused before it. Only a test sets it.
var compileTime = 10 * time.Second

// query asks for the rules that answer. A comprehension turns "undefined" into an
// empty array, so that the query always has one result.
const query = "allow = [x | x := data.authz.allow]; deny = [x | x := data.authz.deny]; reasons = [x | x := data.authz.reasons]; obligations = [x | x := data.authz.obligations]"

// Compile checks a bundle's policy and returns it ready to be evaluated. If the
// policy does not compile, or would take over ten seconds to, the error is
// [Problems].
func Compile(ctx context.Context, src Source, o Options) (*Program, error) {
	p, _, err := compileProgram(ctx, src, o)
	return p, err
}

func compileProgram(ctx context.Context, src Source, o Options) (*Program, *compiled, error) {
	bounded, cancel := context.WithTimeoutCause(ctx, compileTime, errSlow)
	defer cancel()
	c, err := compile(bounded, src, false)
	if err != nil {
		return nil, nil, err
	}
	plan, err := c.front.Plan(bounded, query)
	if err != nil {
		return nil, nil, problemsOf(err, nil)
	}
	p := &Program{limits: o.limits()}
	if p.reads, err = reads.Of(bounded, plan.Policy); err != nil {
		return nil, nil, problemsOf(err, nil)
	}
	p.exec, err = exec.Compile(bounded, plan.Policy, exec.Options{
		Data: c.data, Strict: true, Answers: answers,
		Functions: c.front.Functions(), Find: builtin.Find,
	})
	if err != nil {
		return nil, nil, problemsOf(err, nil)
	}
	return p, c, nil
}

// Report is what [Check] finds out about a policy that has no problems.
type Report struct {
	// Reads are the paths of the input that the policy may read, sorted.
	Reads []Read `json:"reads"`
	// Tried are rules that are tried for every request, among many that an index
	// finds.
	Tried []Tried `json:"tried,omitempty"`
	// Notes are what is most likely a mistake although it compiles, sorted by
	// place:
	//
	//   - a rule of package authz that is none of those that answer, or a rule with
	//     the name of one of those in another package, if no other rule refers to it.
	//     Tests do not count;
	//   - a path below data that neither the data nor a rule has, as far as it is
	//     constant;
	//   - a call that its constants let fail, whatever the request is: a pattern that
	//     does not compile, or takes more than a decision may with the zero [Options];
	//   - a use of the whole input, or of the whole time, by which no decision can be
	//     remembered for longer than a second; or of the whole context, by which none
	//     can be for a request with another trace ID.
	Notes []Problem `json:"notes,omitempty"`
}

// Read is a path of the input, and why it is read with all that is below it.
type Read struct {
	// Path as Rego writes it, for instance "input.subject.id".
	Path string `json:"path"`
	// File, Line and Column of what reads the value.
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	// Why goes on from the path: "is compared", "is iterated".
	Why string `json:"why"`
}

// Tried is a rule that an index cannot find.
type Tried struct {
	File string `json:"file"`
	Line int    `json:"line"`
	// Why not, for instance "regex.match comes before any such comparison".
	Why string `json:"why"`
}

// Check reports every problem of a policy and of its tests as [Problems].
func Check(ctx context.Context, src Source) (*Report, error) {
	p, c, err := compileProgram(ctx, src, Options{})
	if err != nil {
		return nil, err
	}
	if len(src.Tests) > 0 {
		bounded, cancel := context.WithTimeoutCause(ctx, compileTime, errSlow)
		defer cancel()
		if _, err := compile(bounded, src, true); err != nil {
			return nil, err
		}
	}
	r := &Report{Reads: []Read{}, Notes: c.notes(ctx, p.reads)}
	for _, read := range p.reads.Reads() {
		r.Reads = append(r.Reads, Read{Path: read.Path.String(), File: read.File, Line: read.Row, Column: read.Col, Why: read.Why})
	}
	for _, t := range p.exec.Tried() {
		r.Tried = append(r.Tried, Tried{File: t.File, Line: t.Row, Why: t.Why})
	}
	return r, nil
}

type compiled struct {
	front *front.Compiled
	data  *value.Data
}

// compile parses and compiles modules under the hermetic profile, with the tests
// or without them.
func compile(ctx context.Context, src Source, tests bool) (*compiled, error) {
	caps, err := language()
	if err != nil {
		return nil, err
	}
	var problems Problems
	modules, data := src.Modules, src.Data
	if tests {
		modules = slices.Concat(src.Modules, src.Tests)
	}
	if len(data) == 0 {
		data = []byte("{}")
	}
	packed, err := value.ParseData(data)
	if err != nil {
		problems.addData(err)
	}
	source := front.Source{Capabilities: caps, Annotations: true, RegoVersion: ast.RegoV1, Tests: tests}
	for _, m := range modules {
		source.Modules = append(source.Modules, front.Module{Path: m.Path, Text: string(m.Source)})
	}
	source.Check = func(parsed map[string]*ast.Module) error {
		checkShapes(parsed, &problems)
		if packed != nil {
			checkData(parsed, packed.Value(), &problems)
		}
		checkHost(parsed, &problems)
		return nil // the compiler may find more
	}
	c, err := front.Compile(ctx, source)
	if err := problemsOf(err, problems); err != nil {
		return nil, err
	}
	return &compiled{front: c, data: packed}, nil
}

var errSlow = errors.New("the policy takes too long to compile")

// problemsOf puts what the front end says of a source together with what is known
// already; nil if there is nothing.
func problemsOf(err error, problems Problems) error {
	var unparsed front.Unparsed
	var errs ast.Errors
	var costly *front.TooCostly
	var crash *front.Crash
	var unsupported *exec.Unsupported
	var unplannable *front.Unplannable
	switch {
	case err == nil:
	case errors.As(err, &unparsed):
		for _, m := range unparsed {
			problems.addAST(m.Path, m.Err)
		}
	case errors.As(err, &errs):
		problems.addAST("", errs)
	case errors.As(err, &costly):
		problems = append(problems, Problem{File: cmp.Or(costly.File, "authz"), Line: costly.Line, Message: costly.Message, Hint: costly.Hint})
	case errors.As(err, &unsupported):
		problems = append(problems, Problem{File: unsupported.File, Line: unsupported.Row, Message: unsupported.Message + " cannot be evaluated", Hint: unsupported.Hint})
	case errors.As(err, &unplannable):
		problems = append(problems, Problem{File: cmp.Or(unplannable.File, "authz"), Line: unplannable.Line, Message: unplannable.Err.Error()})
	case errors.Is(err, errSlow):
		problems = append(problems, Problem{
			File: "authz", Message: fmt.Sprintf("the policy takes over %s to compile", compileTime),
			Hint: "make it smaller: put what is a table into data.json, and look it up",
		})
	case errors.As(err, &crash):
		return &policy.Error{
			Kind: policy.BadRequest, Message: fmt.Sprintf("policy crashed the compiler: %v", crash.Cause), Err: fmt.Errorf("%w\n%s", crash, crash.Stack),
		}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	default:
		problems = append(problems, Problem{File: "authz", Message: err.Error()})
	}
	return problems.err()
}
