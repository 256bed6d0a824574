package exec_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/test/cases"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/convert"
	evaluator "github.com/microwall/microwall/policy/rego/internal/exec"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

var speed = flag.Bool("suite.speed", false, "let TestSuiteSpeed run: it takes minutes, and a machine that does nothing else")

// slower are the cases in which OPA is known to be quicker, and why.
var slower = map[string]string{}

// TestSuiteSpeed times every case of the suite here and in OPA: a prepared
// query with OPA's defaults, its values in the store, the input parsed before,
// and the results left as OPA's values, as ours are. It prints the geometric
// mean of how many times as long OPA takes, and the cases that come off worst.
func TestSuiteSpeed(t *testing.T) {
	if !*speed {
		t.Skip("run it with -suite.speed")
	}
	type timing struct {
		note      string
		ours, opa time.Duration
	}
	var timings []timing
	for version, rv := range map[string]ast.RegoVersion{"v0": ast.RegoV0, "v1": ast.RegoV1} {
		for _, tc := range suite(t, version) {
			t.Run(version+"/"+tc.Note, func(t *testing.T) {
				for k, v := range tc.Env {
					t.Setenv(k, v)
				}
				ours, opa := contenders(t, tc, rv)
				if ours == nil {
					return
				}
				a, b := race(ours, opa)
				// A machine that was busy elsewhere is no finding.
				for range 5 {
					if a < b {
						break
					}
					moreA, moreB := race(ours, opa)
					a, b = min(a, moreA), min(b, moreB)
				}
				timings = append(timings, timing{version + "/" + tc.Note, a, b})
			})
		}
	}
	ratio := func(t timing) float64 { return float64(t.opa) / float64(t.ours) }
	slices.SortFunc(timings, func(a, b timing) int {
		switch ra, rb := ratio(a), ratio(b); {
		case ra < rb:
			return -1
		case ra > rb:
			return 1
		}
		return strings.Compare(a.note, b.note)
	})
	sum := 0.0
	for _, c := range timings {
		sum += math.Log(ratio(c))
	}
	mean := math.Exp(sum / float64(len(timings)))
	var table strings.Builder
	fmt.Fprintf(&table, "%d cases, OPA takes %.3g times as long in the geometric mean\n", len(timings), mean)
	for _, percent := range []int{1, 5, 25, 50, 75, 95} {
		fmt.Fprintf(&table, "%2d %% of them below %.3gx\n", percent, ratio(timings[len(timings)*percent/100]))
	}
	for i, c := range timings {
		if i < 40 || ratio(c) < 1 {
			fmt.Fprintf(&table, "%6.3gx %10v %10v %s\n", ratio(c), c.ours, c.opa, c.note)
		}
		if ratio(c) < 1 && slower[c.note] == "" {
			t.Errorf("%s: OPA takes %.3g times as long, which is less: make it quicker, or list it with the reason", c.note, ratio(c))
		}
	}
	t.Log("\n" + table.String())
	if mean < 5 {
		t.Errorf("OPA takes %.3g times as long in the geometric mean, the bar is 5", mean)
	}
}

// contenders returns what runs a case here and in OPA, nil if OPA cannot plan
// it.
func contenders(t *testing.T, tc cases.TestCase, rv ast.RegoVersion) (ours, opa func()) {
	po := ast.ParserOptions{RegoVersion: rv}
	if tc.ExperimentalKeywords {
		po.Capabilities = ast.CapabilitiesForThisVersion(ast.CapabilitiesExperimentalKeywords(true))
	}
	modules := map[string]string{}
	for i, m := range tc.Modules {
		modules[fmt.Sprintf("test-%d.rego", i)] = m
	}
	compiler := ast.MustCompileModulesWithOpts(modules, ast.CompileOpts{ParserOptions: po})
	query := rego.ParsedQuery(ast.MustParseBody(tc.Query))
	if _, err := rego.New(query, rego.Compiler(compiler), rego.Target("suite")).PrepareForEval(t.Context()); err != nil {
		return nil, nil
	}
	plan := thePlanner.plan

	root := map[string]any{}
	if tc.Data != nil {
		root = *tc.Data
	}
	data, err := convert.FromAST(ast.MustInterfaceToValue(root))
	if err != nil {
		t.Fatal(err)
	}
	var options []rego.EvalOption
	var input value.Value
	var parsed ast.Value
	switch {
	case tc.InputTerm != nil:
		parsed = ast.MustParseTerm(*tc.InputTerm).Value
	case tc.Input != nil:
		parsed = ast.MustInterfaceToValue(*tc.Input)
	}
	if parsed != nil {
		if input, err = convert.FromAST(parsed); err != nil {
			t.Fatal(err)
		}
		options = append(options, rego.EvalParsedInput(parsed))
	}

	functions := map[string]bool{}
	for _, m := range compiler.Modules {
		for _, r := range m.Rules {
			if len(r.Head.Args) > 0 {
				functions[r.Ref().String()] = true
			}
		}
	}
	program, err := evaluator.Compile(plan, evaluator.Options{
		Data: data, Strict: tc.StrictError, Find: builtin.Find,
		Functions: functions,
		Host: func(ctx context.Context) *topdown.BuiltinContext {
			return &topdown.BuiltinContext{
				Context: ctx, Cancel: topdown.NewCancel(), Cache: builtins.Cache{}, Seed: rand.Reader,
				Time: ast.NumberTerm(json.Number(strconv.FormatInt(time.Now().UnixNano(), 10))),
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	prepared, err := rego.New(query, rego.Compiler(compiler), rego.StrictBuiltinErrors(tc.StrictError),
		rego.Store(inmem.NewFromObjectWithOpts(root, inmem.OptReturnASTValuesOnRead(true))),
		rego.GenerateJSON(func(t *ast.Term, _ *rego.EvalContext) (any, error) { return t, nil }),
	).PrepareForEval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// What comes out is TestSuite's business; some cases end in an error.
	ctx := t.Context()
	return func() { _, _ = program.Query(ctx, input, budget.Limits{}) },
		func() { _, _ = prepared.Eval(ctx, options...) }
}

// race returns how long each takes: the best of five turns of about a
// millisecond, in which what else the machine does counts least.
func race(a, b func()) (best, bestB time.Duration) {
	turn := func(f func()) (func() time.Duration, time.Duration) {
		start := time.Now()
		f()
		n := max(1, int(time.Millisecond/max(1, time.Since(start))))
		timed := func() time.Duration {
			start := time.Now()
			for range n {
				f()
			}
			return time.Since(start) / time.Duration(n)
		}
		return timed, timed()
	}
	timeA, best := turn(a)
	timeB, bestB := turn(b)
	for range 5 {
		best, bestB = min(best, timeA()), min(bestB, timeB())
	}
	return max(best, 1), max(bestB, 1)
}
