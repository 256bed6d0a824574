package reads_test

import (
	"errors"
	"flag"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/test/cases"
)

var full = flag.Bool("full", false, "try every change of every input, and more generated policies")

// TestSuiteNoticesNothingOutsideOfItsReads takes every case of OPA's conformance
// suite that has an input.
func TestSuiteNoticesNothingOutsideOfItsReads(t *testing.T) {
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/open-policy-agent/opa").Output()
	if err != nil {
		t.Fatal(err)
	}
	testdata := filepath.Join(strings.TrimSpace(string(dir)), "v1/test/cases/testdata")
	tried, whole, unplanned, unsteady, evaluated := 0, 0, 0, 0, 0
	for folder, version := range map[string]ast.RegoVersion{"v0": ast.RegoV0, "v1": ast.RegoV1} {
		for i, tc := range cases.MustLoad(filepath.Join(testdata, folder)).Sorted().Cases {
			if tc.Input == nil && tc.InputTerm == nil || testing.Short() && i%8 != 0 {
				continue
			}
			for _, lenient := range []bool{false, true} {
				q, input, err := ofCase(tc, version)
				if err != nil {
					t.Fatalf("%s: %v", tc.Note, err)
				}
				q.lenient = lenient
				p, err := q.plan(t.Context())
				if err != nil {
					unplanned++
					t.Logf("%s cannot be planned: %v", tc.Note, err)
					continue
				}
				d := newPerturbation(q, p)
				if !*full {
					d.limit = 100
				}
				complaint, err := d.on(t.Context(), input)
				switch {
				case errors.Is(err, errUnsteady):
					unsteady++
					t.Logf("%s: %v", tc.Note, err)
				case err != nil:
					t.Errorf("%s: %v", tc.Note, err)
				case complaint != "":
					t.Errorf("%s/%s notices what is not in its set\n%s", folder, tc.Note, complaint)
				}
				tried++
				evaluated += d.evaluated
				if d.set.Whole() {
					whole++
				}
			}
		}
	}
	t.Logf("%d cases, strict and lenient (%d read the whole input); %d changed inputs; not planned %d, unsteady %d",
		tried, whole, evaluated, unplanned, unsteady)
	if tried < 100 || evaluated < 1000 {
		t.Error("the suite was not found")
	}
}

func ofCase(tc cases.TestCase, version ast.RegoVersion) (*question, ast.Value, error) {
	q := &question{name: tc.Note, query: tc.Query, version: version}
	var err error
	if q.compiler, err = compile(tc.Modules, version); err != nil {
		return nil, nil, err
	}
	if tc.Data != nil {
		q.store = inmem.NewFromObject(*tc.Data)
	}
	if tc.InputTerm != nil {
		term, err := ast.ParseTerm(*tc.InputTerm)
		if err != nil {
			return nil, nil, err
		}
		return q, term.Value, nil
	}
	input, err := ast.InterfaceToValue(*tc.Input)
	return q, input, err
}
