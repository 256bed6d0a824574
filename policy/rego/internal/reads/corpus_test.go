package reads_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/test/cases"

	"github.com/microwall/microwall/examples/boutique"
)

// A specimen is a question, its plan, and inputs to ask it about.
type specimen struct {
	*question
	policy *ir.Policy
	inputs []ast.Value
}

// suite returns every case of OPA's conformance suite that has an input, or a part
// of them.
func suite(t testing.TB) (found []specimen) {
	t.Helper()
	withInput := 0
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/open-policy-agent/opa").Output()
	if err != nil {
		t.Fatal(err)
	}
	for folder, version := range map[string]ast.RegoVersion{"v0": ast.RegoV0, "v1": ast.RegoV1} {
		testdata := filepath.Join(strings.TrimSpace(string(dir)), "v1/test/cases/testdata", folder)
		for _, tc := range cases.MustLoad(testdata).Sorted().Cases {
			input, err := inputOf(tc)
			if err != nil {
				t.Fatalf("%s: %v", tc.Note, err)
			}
			if input == nil {
				continue
			}
			if withInput++; skipped(withInput) {
				continue
			}
			q := &question{name: folder + "/" + tc.Note, query: tc.Query, version: version}
			if tc.Data != nil {
				q.store = inmem.NewFromObject(*tc.Data)
			}
			if q.compiler, err = compile(tc.Modules, version); err != nil {
				t.Fatalf("%s: %v", q.name, err)
			}
			p, err := q.plan(t.Context())
			if err != nil {
				t.Fatalf("%s: %v", q.name, err)
			}
			found = append(found, specimen{q, p, []ast.Value{input}})
		}
	}
	if withInput < 500 {
		t.Fatalf("the suite has only %d cases with an input", withInput)
	}
	return found
}

func inputOf(tc cases.TestCase) (ast.Value, error) {
	switch {
	case tc.InputTerm != nil:
		term, err := ast.ParseTerm(*tc.InputTerm)
		if err != nil {
			return nil, err
		}
		return term.Value, nil
	case tc.Input != nil:
		return ast.InterfaceToValue(*tc.Input)
	}
	return nil, nil
}

// shop returns the policies of the boutique: each with all calls to its service,
// and the guardrails with all there are.
func shop(t testing.TB) (found []specimen) {
	t.Helper()
	const query = "allow = [x | x := data.authz.allow]; deny = [x | x := data.authz.deny]; " +
		"reasons = [x | x := data.authz.reasons]; obligations = [x | x := data.authz.obligations]"
	graph := boutique.Graph()
	inputs := map[string][]ast.Value{}
	for _, c := range graph.Calls() {
		input := inputOfCall(t, c)
		inputs[c.Namespace] = append(inputs[c.Namespace], input)
		inputs[graph.Guardrail] = append(inputs[graph.Guardrail], input)
	}
	for namespace, inputs := range inputs {
		folder := strings.TrimPrefix(namespace, graph.Guardrail+".")
		if namespace == graph.Guardrail {
			folder = "guardrails"
		}
		source, err := fs.ReadFile(boutique.FS, folder+"/authz.rego")
		if err != nil {
			t.Fatal(err)
		}
		q := ask(t, query, string(source))
		q.name = namespace
		if data, err := fs.ReadFile(boutique.FS, folder+"/data.json"); err == nil {
			var object map[string]any
			if err := json.Unmarshal(data, &object); err != nil {
				t.Fatal(err)
			}
			q.store = inmem.NewFromObject(object)
		}
		p, err := q.plan(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, specimen{q, p, inputs})
	}
	return found
}

func inputOfCall(t testing.TB, c boutique.Call) ast.Value {
	t.Helper()
	properties := map[string]any{"trace": "4bf92f35"}
	maps.Copy(properties, c.Properties)
	input, err := ast.InterfaceToValue(map[string]any{
		"subject":  map[string]any{"type": "workload", "id": c.Subject, "properties": map[string]any{"version": 3}},
		"action":   map[string]any{"name": c.Action, "properties": map[string]any{}},
		"resource": map[string]any{"type": c.ResourceType, "id": c.ResourceID, "properties": properties},
		"context":  c.Context,
		"time":     map[string]any{"unix": 1795428000, "hour": 10, "minute": 0, "date": "2026-11-23", "weekday": "monday"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return input
}

// constructs returns the rules of TestWhatARuleReads, with inputs in which much
// of what they look for is there.
func constructs(t testing.TB) (found []specimen) {
	t.Helper()
	const part = `{"b": %[1]s, "c": %[1]s, "r": %[1]s, "x": 1, "k": "x", "l": "k", "id": "x", "p": 1, "a": {"b": 1}}`
	for _, c := range ruleReads {
		q := c.question(t)
		q.name = c.name
		q.store = inmem.NewFromObject(map[string]any{
			"x": true, "key": "b", "list": []any{json.Number("1"), json.Number("2")}, "a": map[string]any{"x": true, "k": json.Number("1")},
			"conf": map[string]any{"x": map[string]any{"k": json.Number("0")}},
		})
		p, err := q.plan(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var inputs []ast.Value
		for _, leaf := range []string{"1", `"x"`, `{"c": 1}`, `[1, 2]`} {
			members := map[string]string{"p": "1", "list": `[{"id": 1}, "y"]`, "name": `{"x": "p"}`, "min": "2", "role": `"admin"`}
			for _, name := range []string{"a", "b", "c", "k", "x", "q", "z", "user", "subject", "object", "other", "inner"} {
				members[name] = fmt.Sprintf(part, leaf)
			}
			input := ast.NewObject()
			for name, v := range members {
				if strings.Contains(c.rego+" p q", name) { // the less there is, the sooner all of it is changed
					input.Insert(ast.StringTerm(name), ast.MustParseTerm(v))
				}
			}
			inputs = append(inputs, input)
		}
		found = append(found, specimen{q, p, inputs})
	}
	return found
}

// generated returns the policy that a grammar makes of a seed, with inputs. It
// reports false if OPA refuses it.
func generated(t testing.TB, seed int) (specimen, bool) {
	g := &generator{choose: rand.New(rand.NewPCG(uint64(seed), 0)).IntN}
	q, p, err := g.question(t)
	if err != nil {
		return specimen{}, false
	}
	q.name = fmt.Sprintf("seed %d\n%s", seed, q.name)
	return specimen{q, p, []ast.Value{g.input(), g.input(), g.input()}}, true
}
