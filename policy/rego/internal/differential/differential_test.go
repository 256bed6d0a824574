package differential_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/microwall/microwall/policy/rego/internal/differential"
	"github.com/microwall/microwall/policy/rego/internal/reference"
)

// read reads a case as String writes it.
func read(t *testing.T, text string) *differential.Case {
	t.Helper()
	c := &differential.Case{Data: "{}"}
	for _, f := range txtar.Parse([]byte(text)).Files {
		content := strings.TrimSuffix(string(f.Data), "\n")
		switch {
		case f.Name == "data.json":
			c.Data = content
		case f.Name == "query":
			c.Query = content
		case strings.HasPrefix(f.Name, "input-"):
			c.Inputs = append(c.Inputs, content)
		default:
			c.Modules = append(c.Modules, differential.Module{Path: f.Name, Source: content})
		}
	}
	if c.Query == "" || len(c.Inputs) == 0 {
		t.Fatalf("no case: %s", text)
	}
	return c
}

func compare(t *testing.T, c *differential.Case, other differential.Engine) []differential.Difference {
	t.Helper()
	differences, err := differential.Compare(t.Context(), c, other)
	if err != nil {
		t.Fatalf("%v\n%s", err, c)
	}
	return differences
}

func TestGeneratedPoliciesCompileAndDecideSomething(t *testing.T) {
	const seeds = 60
	compiled, telling, failed, asked := 0, 0, 0, 0
	for seed := range uint64(seeds) {
		c := differential.Generate(seed)
		if again := differential.Generate(seed); again.String() != c.String() {
			t.Fatalf("seed %d gives two cases", seed)
		}
		if read(t, c.String()).String() != c.String() {
			t.Errorf("seed %d: the case is another one once it was written and read", seed)
		}
		ask, err := differential.Reference(reference.Mode{})(c)
		if err != nil {
			t.Logf("seed %d: %v", seed, err)
			continue
		}
		compiled++
		for _, text := range c.Inputs {
			var input ast.Value
			if text != "" {
				input = ast.MustParseTerm(text).Value
			}
			set, err := ask(t.Context(), input)
			asked++
			switch {
			case err != nil:
				failed++
			case len(set.String()) > len(`{{"allow": [false], "deny": [set()], "obligations": [{}], "reasons": [set()]}}`):
				telling++
			}
		}
	}
	t.Logf("%d of %d cases compile; of %d questions %d fail and %d have an answer that says something", compiled, seeds, asked, failed, telling)
	if compiled < seeds*95/100 {
		t.Errorf("%d of %d cases compile", compiled, seeds)
	}
	if telling < asked/4 || failed < asked/10 || failed > asked/2 {
		t.Errorf("%d questions, %d fail, %d have an answer that says something", asked, failed, telling)
	}
}

func TestTheReferenceAgreesWithItself(t *testing.T) {
	for seed := range uint64(25) {
		if d := compare(t, differential.Generate(seed), differential.Reference(reference.Mode{})); len(d) > 0 {
			t.Errorf("seed %d: %v", seed, d)
		}
	}
}

func TestAnIndexAndAnEarlyExitOnlyHideErrors(t *testing.T) {
	missed := 0
	for seed := range uint64(200) {
		for _, d := range compare(t, differential.Generate(seed), differential.Reference(reference.Mode{Fast: true})) {
			switch d.Verdict {
			case differential.Missed:
				missed++
			case differential.Order:
			default:
				t.Errorf("seed %d: %v", seed, d)
			}
		}
	}
	if missed == 0 {
		t.Error("none was found")
	}
}

func TestWhatIsSkippedIsNoFault(t *testing.T) {
	for name, policy := range map[string]string{
		"every, behind an element that does not hold":  `allow if every x in [2, "a"] { x + input.one == 2 }`,
		"every, with keys":                             `allow if every k, x in {"a": 2, "b": "a"} { k != "x"; x + input.one == 2 }`,
		"every, behind a first solution":               `allow if every x in [1] { some y in [1, "a"]; x + y + input.one == 3 }`,
		"every in every":                               `allow if every x in [1] { every y in [2, "a"] { x + y + input.one == 2 } }`,
		"every under with":                             `allow if { every x in [2, data.a] { x + input.one == 2 } with data.a as "a" }`,
		"a member of a set":                            "allow if part[1]\npart contains x if { some x in [1, 2]; {1: 1, 2: input.text}[x] + 1 > 0 }",
		"a member of an object":                        "allow if part.a == 1\npart[k] := v if { some k, v in {\"a\": 1, \"b\": input.text}; v + 1 > 0 }",
		"a member of an object in the head of a rule":  "allow := part.a\npart[k] := v == 1 if { some k, v in {\"a\": 1, \"b\": input.text}; v + 1 > 0 }",
		"a member of an object by a reference of name": "allow if part.a.b == 1\npart.a[k] := v if { some k, v in {\"b\": 1, \"c\": input.text}; v + 1 > 0 }",
		"a function whose result cannot be the wanted": "allow if input.map[i] = f(i)\nf(x) := 2 if x + 1 > 0",
		"a comprehension beside what is undefined":     "allow if [x | some x in [input.text]; x + 1 > 0] == data.none",
		"every, with what no type checker lets pass":   `allow if every x in [2, {}] { x != 2; 1 = split(x, "b") }`,
		"and": "allow if { some x in [1, \"a\"]; x + input.one > 0 } and { input.one == 1 }",
		"or":  "allow if { some x in [1, \"a\"]; x + input.one > 0 } or { input.one == 1 }",
	} {
		t.Run(name, func(t *testing.T) {
			c := &differential.Case{
				Modules: []differential.Module{{Path: "authz.rego", Source: "package authz\nimport rego.v2\n" + policy}},
				Data:    "{}", Query: "allow = data.authz.allow", Inputs: []string{`{"one": 1, "text": "x", "map": {"x": 1}}`},
			}
			d := compare(t, c, differential.Whole())
			if len(d) != 1 || d[0].Verdict != differential.Early || d[0].Verdict.IsFault() {
				t.Errorf("%v", d)
			}
		})
	}
}

func TestSkippingNothingChangesNoAnswer(t *testing.T) {
	for seed := range uint64(50) {
		c := differential.Generate(seed)
		if c.Query == "x = data" { // the module that makes it look stands there, too
			continue
		}
		for _, d := range compare(t, c, differential.Whole()) {
			if d.Verdict.IsFault() && d.Verdict != differential.Refused {
				t.Errorf("seed %d: %v\n%s", seed, d, c)
			}
		}
	}
}

// What another evaluator can do wrong, and how it is called.
func TestFaultsAreFound(t *testing.T) {
	const good, failing = `package authz
		allow := {"a": [1.0], "b": input.a}`, `package authz
		allow if input.a + 1 == 2
		allow if startswith("a", input.a)`
	of := func(term string, err error) differential.Engine {
		return func(*differential.Case) (differential.Ask, error) {
			return func(context.Context, ast.Value) (ast.Set, error) {
				if err != nil {
					return nil, err
				}
				return ast.MustParseTerm(term).Value.(ast.Set), nil
			}, nil
		}
	}
	for name, test := range map[string]struct {
		policy, input string
		other         differential.Engine
		want          differential.Verdict
	}{
		"the same":                     {good, `{"a": 1}`, of(`{{"x": {"a": [1.0], "b": 1}}}`, nil), differential.Same},
		"another value":                {good, `{"a": 1}`, of(`{{"x": {"a": [1.0], "b": 2}}}`, nil), differential.Value},
		"no solution":                  {good, `{"a": 1}`, of(`set()`, nil), differential.Value},
		"another spelling":             {good, `{"a": 1}`, of(`{{"x": {"a": [1], "b": 1}}}`, nil), differential.Spelling},
		"an error of its own":          {good, `{"a": 1}`, of("", errors.New("authz.rego:2: eval_type_error: plus: no")), differential.Alone},
		"no error":                     {failing, `{"a": null}`, of(`set()`, nil), differential.Missed},
		"the same error":               {failing, `{"a": null}`, of("", errors.New("authz.rego:2: eval_type_error: plus: operand 1 must be number but got null")), differential.Same},
		"another error that is there":  {failing, `{"a": null}`, of("", errors.New("authz.rego:3: eval_type_error: startswith: operand 2 must be string but got null")), differential.Order},
		"an error on another line":     {failing, `{"a": null}`, of("", errors.New("authz.rego:4: eval_type_error: plus: operand 1 must be number but got null")), differential.Text},
		"an error with another code":   {failing, `{"a": null}`, of("", errors.New("authz.rego:2: eval_builtin_error: plus: operand 1 must be number but got null")), differential.Code},
		"a panic in place of an error": {failing, `{"a": null}`, func(*differential.Case) (differential.Ask, error) { return nil, nil }, differential.Code},
		"a panic":                      {good, `{"a": 1}`, func(*differential.Case) (differential.Ask, error) { return nil, nil }, differential.Alone},
		"a panic of the compiler":      {good, `{"a": 1}`, func(*differential.Case) (differential.Ask, error) { panic("no") }, differential.Refused},
		"a policy that is refused":     {good, `{"a": 1}`, func(*differential.Case) (differential.Ask, error) { return nil, errors.New("no") }, differential.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			c := &differential.Case{
				Modules: []differential.Module{{Path: "authz.rego", Source: test.policy}},
				Data:    "{}", Query: "x = data.authz.allow", Inputs: []string{test.input},
			}
			got := differential.Same
			if d := compare(t, c, test.other); len(d) > 0 {
				got = d[0].Verdict
			}
			if got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
			if fault := test.want != differential.Same && test.want != differential.Order; got.IsFault() != fault {
				t.Errorf("IsFault of %v is %v", got, got.IsFault())
			}
		})
	}
}

func TestShrinkLeavesWhatMatters(t *testing.T) {
	found := 0
	for seed := uint64(0); seed < 500 && found < 4; seed++ {
		c := differential.Generate(seed)
		fails := func(c *differential.Case) bool {
			differences, err := differential.Compare(t.Context(), c, differential.Reference(reference.Mode{Fast: true}))
			return err == nil && len(differences) > 0 && differences[0].Verdict == differential.Missed
		}
		if !fails(c) {
			continue
		}
		found++
		small := differential.Shrink(c, 2000, fails)
		if !fails(small) {
			t.Errorf("seed %d: what is left does not fail\n%s", seed, small)
		}
		if len(small.String()) > 1000 || len(small.Inputs) != 1 {
			t.Errorf("seed %d: %d bytes are left of %d\n%s", seed, len(small.String()), len(c.String()), small)
		}
	}
	if found == 0 {
		t.Error("there was nothing to shrink")
	}
}

func TestAnEndedContextIsNoFault(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for seed := range uint64(5) {
		d, err := differential.Compare(ctx, differential.Generate(seed), differential.Reference(reference.Mode{}))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range d {
			if d.Verdict != differential.Unfinished || d.Verdict.IsFault() {
				t.Error(d)
			}
		}
	}
}
