package rego

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/util"
)

// cover runs the tests once more, with OPA's tester and evaluator, which can tell
// what they evaluate. Nothing but the timeout bounds them here.
func (r *TestReport) cover(ctx context.Context, src Source, timeout time.Duration) error {
	caps, err := language()
	if err != nil {
		return err
	}
	modules := make(map[string]*ast.Module)
	var own []string
	for i, m := range slices.Concat(src.Modules, src.Tests) {
		if modules[m.Path], err = ast.ParseModuleWithOpts(m.Path, string(m.Source), ast.ParserOptions{Capabilities: caps, RegoVersion: ast.RegoV1, ProcessAnnotation: true}); err != nil {
			return err
		}
		if i < len(src.Modules) {
			own = append(own, m.Path)
		}
	}
	store, err := newStore(src.Data)
	if err != nil {
		return err
	}
	coverage := cover.New()
	runner := tester.NewRunner().
		SetCompiler(ast.NewCompiler().WithCapabilities(caps).WithDefaultRegoVersion(ast.RegoV1).WithEnablePrintStatements(true)).
		SetStore(store).
		SetModules(modules).
		SetTimeout(timeout).
		RaiseBuiltinErrors(true).
		CapturePrintOutput(true).
		SetCoverageQueryTracer(coverage)
	err = storage.Txn(ctx, store, storage.TransactionParams{}, func(txn storage.Transaction) error {
		results, err := runner.RunTests(ctx, txn)
		if err != nil {
			return err
		}
		for range results { // what they are is known already
		}
		return ctx.Err()
	})
	if err != nil {
		return fmt.Errorf("coverage was not found out: %w", err)
	}
	r.addCoverage(coverage.Report(modules), own)
	return nil
}

// newStore returns data as OPA's tester wants it.
func newStore(data []byte) (storage.Store, error) {
	root := map[string]any{}
	if len(data) > 0 {
		if err := util.NewJSONDecoder(bytes.NewReader(data)).Decode(&root); err != nil {
			return nil, fmt.Errorf("data.json: %w", err)
		}
	}
	return inmem.NewFromObjectWithOpts(root, inmem.OptRoundTripOnWrite(false), inmem.OptReturnASTValuesOnRead(true)), nil
}

// addCoverage counts the policy's own files; a test covers itself.
func (r *TestReport) addCoverage(all cover.Report, own []string) {
	covered, lines := 0, 0
	for _, path := range own {
		f, ok := all.Files[path]
		if !ok {
			continue
		}
		covered += f.CoveredLines
		lines += f.CoveredLines + f.NotCoveredLines
		for _, gap := range f.NotCovered {
			place := fmt.Sprintf("%s:%d", path, gap.Start.Row)
			if gap.End.Row > gap.Start.Row {
				place += fmt.Sprintf("-%d", gap.End.Row)
			}
			r.NotCovered = append(r.NotCovered, place)
		}
	}
	r.NotCovered = slices.Compact(r.NotCovered)
	r.Coverage = 100
	if lines > 0 {
		r.Coverage = 100 * float64(covered) / float64(lines)
	}
}
