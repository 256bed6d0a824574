package exec_test

import (
	"errors"
	"flag"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/convert"
	"github.com/microwall/microwall/policy/rego/internal/exec"
	"github.com/microwall/microwall/policy/rego/internal/front"
	"github.com/microwall/microwall/policy/rego/internal/reference"
	"github.com/microwall/microwall/policy/rego/internal/suite"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

func TestEveryCaseOfOPAsSuite(t *testing.T) {
	all := suite.Cases(t)
	if len(all) < 4427 {
		t.Errorf("the suite has %d cases", len(all))
	}
	for _, c := range all {
		t.Run(c.Name, func(t *testing.T) {
			for k, v := range c.Env {
				t.Setenv(k, v)
			}
			_, program, input := c.Compile(t, c.StrictError)
			results, err := program.Query(t.Context(), input, budget.Limits{})
			switch {
			case c.WantError == nil && c.WantErrorCode == nil:
				if err != nil {
					t.Fatal(err)
				}
				if want, got := wanted(&c), bindings(t, &c, results); want.Compare(got) != 0 {
					t.Fatalf("want %v\n got %v", want, got)
				}
			case err == nil:
				t.Fatal("no error")
			default:
				if c.WantError != nil && !strings.Contains(err.Error(), *c.WantError) {
					t.Errorf("want the text %q, got %v", *c.WantError, err)
				}
				if c.WantErrorCode != nil && code(err) != *c.WantErrorCode {
					t.Errorf("want the code %s, got %v", *c.WantErrorCode, err)
				}
			}
		})
	}
}

func code(err error) string {
	if e, ok := errors.AsType[*exec.Error](err); ok {
		return e.Code
	}
	return ""
}

func wanted(c *suite.Case) ast.Set {
	set := ast.NewSet()
	if c.WantResult == nil {
		return set
	}
	for _, b := range *c.WantResult {
		o := ast.NewObject()
		for k, v := range b {
			o.Insert(ast.StringTerm(k), ast.NewTerm(ast.MustInterfaceToValue(v)))
		}
		set.Add(ast.NewTerm(o))
	}
	return set
}

// bindings returns results the way the suite compares them: as JSON.
func bindings(t *testing.T, c *suite.Case, results []value.Value) ast.Set {
	set := ast.NewSet()
	for _, r := range results {
		o := ast.NewObject()
		for k, v := range r.All() {
			if c.IgnoreGeneratedVars && strings.HasPrefix(k.Text(), "__localq") {
				continue
			}
			plain, err := ast.JSON(convert.ToAST(v))
			if err != nil {
				t.Fatal(err)
			}
			if c.SortBindings {
				slices.SortFunc(plain.([]any), util.Compare)
			}
			o.Insert(ast.StringTerm(k.Text()), ast.NewTerm(ast.MustInterfaceToValue(plain)))
		}
		set.Add(ast.NewTerm(o))
	}
	return set
}

var (
	full  = flag.Bool("full", !underRace, "hold all cases against the reference")
	first = flag.Uint("first", 0, "which of every eight cases is held against the reference, where not all are")
)

// oursAlone are the cases in which a call fails that OPA never makes, although
// its index and early exit are off.
var oursAlone = map[string]string{}

// varies are cases whose result is another one each time.
var varies = map[string]bool{}

// TestErrorsAreLoud holds every case against the reference with strict errors,
// whatever the case asks for: the same results, spelling included, and an error
// wherever the reference has one. Under the race detector, with which that takes
// long, it takes every eighth case, and all of them by
//
//	go test -race ./policy/rego/internal/exec -full
func TestErrorsAreLoud(t *testing.T) {
	for i, c := range suite.Cases(t) {
		if !*full && i%8 != int(*first%8) {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			for k, v := range c.Env {
				t.Setenv(k, v)
			}
			_, program, input := c.Compile(t, true)
			src := c.Source()
			src.Topdown = true
			compiled, err := front.Compile(t.Context(), src)
			if err != nil {
				t.Fatal(err)
			}
			query, err := reference.New(compiled.Compiler(), c.DataMap(), ast.MustParseBody(c.Query))
			if err != nil {
				t.Fatal(err)
			}
			want, wantErr := query.Eval(t.Context(), c.InputValue(), reference.Mode{})
			got, gotErr := program.Query(t.Context(), input, budget.Limits{})
			why, alone := oursAlone[c.Name]
			switch {
			case wantErr != nil && gotErr == nil:
				t.Fatalf("OPA has the error %v", wantErr)
			case wantErr == nil && gotErr != nil:
				if !alone {
					t.Fatalf("OPA has no error, and we have %v", gotErr)
				}
			case alone:
				t.Fatalf("it is listed because %s, but errors are the same: %v", why, gotErr)
			case wantErr != nil:
				// Which of several rules is told of a conflict is a matter of order, and
				// OPA lists more of them.
				conflict := code(gotErr) == "eval_conflict_error"
				if reference.Code(wantErr) != code(gotErr) || !conflict && wantErr.Error() != gotErr.Error() {
					t.Fatalf("want %v\n got %v", wantErr, gotErr)
				}
			case !varies[c.Name]:
				a, b := ast.NewSet(), ast.NewSet()
				for _, solution := range want.Bindings {
					o := ast.NewObject()
					for k, v := range solution {
						o.Insert(ast.StringTerm(string(k)), ast.NewTerm(v))
					}
					a.Add(ast.NewTerm(o))
				}
				for _, r := range got {
					b.Add(convert.ToTerm(r))
				}
				if a.Compare(b) != 0 || a.String() != b.String() {
					t.Fatalf("want %v\n got %v", a, b)
				}
			}
		})
	}
}
