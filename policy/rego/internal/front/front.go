// Package front is OPA's front end for an evaluator of our own: it parses and
// compiles the modules of a policy and hands over OPA's plan for a query, in
// memory.
//
// The modules may come from a stranger, and a few hundred bytes of Rego can keep
// OPA busy for hours or fill the memory. It cannot be interrupted. So before each
// part of the work there is a judgement of what it will cost, made from what is
// to be worked on and itself cheap; what is too much is refused as [TooCostly],
// which names the worst place:
//
//   - Parser: words and signs are counted, 1,000,000 in all modules together, and
//     those of heads that it copies for further bodies, 3,000,000. It takes up to
//     10 µs for one. What it finds behind the name of a rule it looks for again,
//     each time among all of that: the squares of their numbers are counted.
//   - Compiler: some of its stages take quadratic or exponential time for nested
//     comprehensions, values in values, long bodies, many else branches, short
//     names of long paths, rules that may refer to many rules, large types. What
//     they will do is estimated in steps of about 100 ns, 50,000,000 in all. The
//     estimate follows the code of OPA v1.22.2 and what was measured with policies
//     that are bad on purpose; it is not proved, and there may be a shape of
//     policy that it takes for cheap. What is linear is not judged. The end of a
//     context is noticed between two stages, and by what judges them.
//   - Planner: it is rehearsed. The rehearsal goes where the planner will go and
//     counts what it will make, 1,000,000 statements, a depth of 100,000
//     calls and 5,000 loops in each other. It is exact: tests compare it with OPA's plans, statement for
//     statement.
//
// Once the modules are parsed a refusal takes well below a second, and whatever
// is not refused takes no more than about five for any part of the work, and 1 GiB
// in all. 10,000 rules of two comparisons take half a second and 220 MB.
//
// Compilations share nothing and may run side by side.
package front

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
)

// Module is one Rego file.
type Module struct {
	// Path is where errors are reported.
	Path string
	// Text of the file.
	Text string
}

// Source is what is compiled.
type Source struct {
	// Modules, each with a path of its own.
	Modules []Module
	// RegoVersion of the modules; zero is v1.
	RegoVersion ast.RegoVersion
	// Capabilities are the language: what a module may import and call. Nil is
	// everything that the linked OPA has. They are only read.
	Capabilities *ast.Capabilities
	// FutureKeywords are in force without being imported.
	FutureKeywords []string
	// Annotations reads the METADATA blocks of the modules, and reports those
	// that it cannot read. Without it they are comments.
	Annotations bool
	// Tests compiles the rules that are tests so that they can be run: several
	// rules with one name are told apart, print is kept, and what is computed says
	// how far it has come (see builtin.Watch).
	Tests bool
	// Topdown builds what OPA's own evaluator needs besides: its indexes. How long
	// that takes is not judged.
	Topdown bool
	// Check is called between parser and compiler with the parsed modules by
	// their paths, unless one of them does not parse or they are [TooCostly]. It
	// may not change them. Its error ends [Compile] and is returned as it is.
	// Nil is no check.
	Check func(map[string]*ast.Module) error
}

// Compiled are compiled modules. They are safe for concurrent use, and nothing
// that they hand out may be changed.
type Compiled struct {
	compiler *ast.Compiler

	// OPA's query compiler and planner share state with the compiler.
	planning sync.Mutex
}

// Compiler returns OPA's compiler after its work. What uses it may not run
// beside [Compiled.Plan].
func (c *Compiled) Compiler() *ast.Compiler { return c.compiler }

// Plan is a planned query.
type Plan struct {
	// Query as it was parsed.
	Query ast.Body
	// Policy is the plan. A result is an object, its keys the names of the
	// query's variables as they stand in its text.
	Policy *ir.Policy
	// Statements that it was rehearsed to have. It has as many, or fewer where
	// OPA's planner drops what can never be reached.
	Statements int
}

// Compile parses and compiles modules. Its error is
//
//   - [Unparsed], for modules that do not parse,
//   - that of [Source.Check],
//   - [ast.Errors], as the compiler reports them,
//   - *[TooCostly], for modules that might take too long, or too much memory,
//   - *[Crash], if OPA panicked,
//   - ctx's, if it ended before.
func Compile(ctx context.Context, src Source) (c *Compiled, err error) {
	defer catch(&err)
	modules, err := parse(ctx, &src)
	if err != nil {
		return nil, err
	}
	m := &meter{ctx: ctx, left: mayCompile}
	if err := m.measure(modules); err != nil {
		return nil, err
	}
	if src.Check != nil {
		if err := src.Check(modules); err != nil {
			return nil, err
		}
	}
	compiler, err := compile(ctx, &src, modules, m)
	if err != nil {
		return nil, err
	}
	c = &Compiled{compiler: compiler}
	for _, module := range compiler.Modules {
		c.prepareModule(module)
	}
	return c, nil
}

// Plan compiles a query and plans what it needs of the modules. Its error is
//
//   - [ast.Errors] of the query,
//   - *[TooCostly], for a plan that would be too large,
//   - *[Unplannable], for what OPA's planner cannot plan,
//   - *[Crash], if OPA panicked,
//   - ctx's, if it ended before.
//
// An expression of the query that is neither an equation nor negated must be
// defined and not false, as everywhere in Rego, and does not appear in the
// results.
func (c *Compiled) Plan(ctx context.Context, query string) (p *Plan, err error) {
	defer catch(&err)
	parsed, err := ast.ParseBody(query)
	if err != nil {
		return nil, err
	}
	c.planning.Lock()
	defer c.planning.Unlock()
	return c.plan(ctx, parsed)
}

// Unparsed is the error of modules that do not parse, in the order of
// [Source.Modules].
type Unparsed []UnparsedModule

// UnparsedModule is a module that does not parse.
type UnparsedModule struct {
	Path string
	// Err is [ast.Errors] of the parser, or [ErrTwice].
	Err error
}

// ErrTwice is the error of a module with another one's path.
var ErrTwice = errors.New("two files have this path; give one of them another")

// Error returns what is wrong with each module, one below the other.
func (u Unparsed) Error() string { return errors.Join(u.Unwrap()...).Error() }

// Unwrap returns the errors of the modules.
func (u Unparsed) Unwrap() []error {
	errs := make([]error, len(u))
	for i, m := range u {
		errs[i] = m.Err
	}
	return errs
}

// Unplannable is the error of something that OPA can evaluate, but not plan, for
// instance an equation of two objects with comprehensions in them.
type Unplannable struct {
	// File and Line of it; "" and 0 if they are not known.
	File string
	Line int
	// Err is what the planner says.
	Err error
}

// Error returns "file:line: message".
func (u *Unplannable) Error() string {
	if u.File == "" {
		return u.Err.Error()
	}
	return fmt.Sprintf("%s:%d: %v", u.File, u.Line, u.Err)
}

// Unwrap returns what the planner says.
func (u *Unplannable) Unwrap() error { return u.Err }

// Crash is the error of source that made OPA panic.
type Crash struct {
	// Cause is what it panicked with.
	Cause any
	// Stack is where.
	Stack []byte
}

func (c *Crash) Error() string { return fmt.Sprintf("OPA panicked: %v", c.Cause) }

func catch(err *error) {
	if cause := recover(); cause != nil {
		*err = &Crash{Cause: cause, Stack: debug.Stack()}
	}
}

// alive returns an error if ctx has ended. The stages of OPA cannot be
// interrupted: it is asked between them.
func alive(ctx context.Context, next string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("stopped before it could %s: %w", next, context.Cause(ctx))
	}
	return nil
}
