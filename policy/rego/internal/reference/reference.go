// Package reference answers queries with OPA's own evaluator: what the native
// one is held against, what `microwall explain` traces, and the other side of
// the differential fuzzer. Nothing decides by it.
//
// It runs without rule index and without early exit, so that every call which
// the policy makes is made, and reports a failed call wherever it stands. Some
// calls OPA leaves out all the same, unless modules are compiled so that nothing
// is skipped ([Options]):
//
//   - `every` ends with the first element that does not hold, and an element with
//     its first solution; so do the operands of `and` and `or`.
//   - A look-up of one member of a partial rule computes that member alone.
//   - A function whose result stands written in its head is not computed where
//     another result is wanted.
//   - A comprehension is not computed where what it is compared with is undefined.
package reference

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// Query is a compiled query over compiled modules and data. It is immutable and
// safe for concurrent use.
type Query struct {
	modules  *ast.Compiler
	body     ast.Body
	compiler ast.QueryCompiler
	names    map[ast.Var]ast.Var
	store    storage.Store
}

// New compiles a query. Modules must have been compiled without an error, and
// neither they nor data may change afterwards. Data holds JSON's types, numbers
// as json.Number, which keep their spelling; nil is {}. An error is OPA's.
func New(modules *ast.Compiler, data map[string]any, query ast.Body) (q *Query, err error) {
	defer catch(&err)
	q = &Query{modules: modules, compiler: modules.QueryCompiler()}
	query = query.Copy()
	if _, whole := modules.Modules[seenWhole]; whole {
		seeIn(modules.RuleTree, query, false)
	}
	if q.body, err = q.compiler.Compile(query); err != nil {
		return nil, err
	}
	q.names = q.compiler.RewrittenVars()
	if data == nil {
		data = map[string]any{}
	}
	q.store = inmem.NewFromObjectWithOpts(data, inmem.OptRoundTripOnWrite(false), inmem.OptReturnASTValuesOnRead(true))
	return q, nil
}

// Mode of one evaluation. The zero value is how decisions are made.
type Mode struct {
	// Lenient takes a failed call for undefined. Otherwise the first one is the
	// error of the evaluation, which is made to its end all the same.
	Lenient bool
	// Fast lets OPA use its rule index and early exit.
	Fast bool
	// Tracer is told of every step; nil if nobody listens.
	Tracer topdown.QueryTracer
}

// Result of a query.
type Result struct {
	// Bindings are the solutions in the order in which OPA found them: the
	// query's variables, under the names that they have in its text, and their
	// values. Generated variables are left out.
	Bindings []map[ast.Var]ast.Value
	// Failures are all calls of built-ins that failed, in the order in which
	// they were made, and last, if there is one, the error that nothing could be
	// computed after, for instance a conflict.
	Failures []error
}

// Eval answers the query about an input; nil is none. An error is OPA's, a
// *[topdown.Error] with code and text, whose cause is ctx's if ctx ended; a
// [Crash] if OPA panicked. With an error the Result has the failures alone.
func (q *Query) Eval(ctx context.Context, input ast.Value, m Mode) (r Result, err error) {
	defer catch(&err)
	cancel := topdown.NewCancel()
	defer context.AfterFunc(ctx, cancel.Cancel)()
	txn, err := q.store.NewTransaction(ctx)
	if err != nil {
		return r, err
	}
	defer q.store.Abort(ctx, txn)

	var failures []topdown.Error
	query := topdown.NewQuery(q.body).
		WithQueryCompiler(q.compiler).
		WithCompiler(q.modules).
		WithStore(q.store).
		WithTransaction(txn).
		WithCancel(cancel).
		WithIndexing(m.Fast).
		WithEarlyExit(m.Fast).
		WithBuiltinErrorList(&failures).
		WithQueryTracer(m.Tracer)
	if input != nil {
		query = query.WithInput(ast.NewTerm(input))
	}
	err = query.Iter(ctx, func(solution topdown.QueryResult) error {
		r.Bindings = append(r.Bindings, q.named(solution))
		return nil
	})
	err = because(ctx, err)
	for i := range failures {
		r.Failures = append(r.Failures, &failures[i])
	}
	if err != nil {
		r.Failures = append(r.Failures, err)
	}
	// OPA does the same under WithStrictBuiltinErrors, but for the end of the
	// context, which is not to be hidden by a failure.
	if len(r.Failures) > 0 && !m.Lenient && !topdown.IsCancel(err) {
		err = r.Failures[0]
	}
	if err != nil {
		r.Bindings = nil
	}
	return r, err
}

// because gives the error of an evaluation that was ended the error of ctx for its
// cause. OPA does so between expressions, but not where a built-in notices the
// end (numbers.range: "timed out before generating all numbers in range").
func because(ctx context.Context, err error) error {
	if e, ok := errors.AsType[*topdown.Error](err); ok && e.Code == topdown.CancelErr && e.Unwrap() == nil && ctx.Err() != nil {
		_ = e.Wrap(ctx.Err()) // e is this evaluation's own
	}
	return err
}

func (q *Query) named(solution topdown.QueryResult) map[ast.Var]ast.Value {
	bindings := make(map[ast.Var]ast.Value, len(solution))
	for name, t := range solution {
		if original, ok := q.names[name]; ok {
			name = original
		}
		if !name.IsGenerated() && !name.IsWildcard() {
			bindings[name] = t.Value
		}
	}
	return bindings
}

// Crash is the error of an evaluation or compilation in which OPA panicked.
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

// Code returns the code of OPA's error in err's chain, for instance
// "eval_builtin_error"; "" if there is none.
func Code(err error) string {
	if e, ok := errors.AsType[*topdown.Error](err); ok {
		return e.Code
	}
	return ""
}
