package builtin_test

import (
	"context"
	"errors"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/convert"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

func TestEveryBuiltinOfOPAIsFound(t *testing.T) {
	for _, decl := range ast.Builtins {
		switch decl.Name {
		case "eq", "assign", "print": // the compiler leaves no call of these
			continue
		}
		if _, ok := builtin.Find(decl.Name); !ok {
			t.Errorf("%s is not found", decl.Name)
		}
	}
	if b, ok := builtin.Find("no.such"); ok {
		t.Errorf("found %s", b.Name)
	}
}

// newCall returns a Call without limits.
func newCall() *builtin.Call {
	m := new(budget.Meter)
	m.Reset(context.Background(), budget.Limits{})
	return &builtin.Call{Meter: m}
}

func TestABuiltinOfTheHost(t *testing.T) {
	ended, end := context.WithCancel(context.Background())
	end()
	for _, tc := range []struct {
		name string
		call topdown.BuiltinFunc
		host func() *topdown.BuiltinContext
		want string // the result in OPA's text, "" for undefined
		err  *builtin.Error
	}{
		{name: "gives a value", want: `{1, 2.50}`, call: gives(`{1, 2.50}`)},
		{name: "gives nothing", call: gives()},
		{name: "has no result", want: `true`, call: func(_ topdown.BuiltinContext, _ []*ast.Term, iter func(*ast.Term) error) error {
			return iter(nil)
		}},
		{name: "panics", call: func(topdown.BuiltinContext, []*ast.Term, func(*ast.Term) error) error { panic("out of luck") },
			err: &builtin.Error{Code: builtin.BuiltinError, Message: "test.host: panic: out of luck"}},
		{name: "halts", call: func(topdown.BuiltinContext, []*ast.Term, func(*ast.Term) error) error {
			return topdown.Halt{Err: &topdown.Error{Code: topdown.ConflictErr, Message: "two of them"}}
		}, err: &builtin.Error{Code: topdown.ConflictErr, Message: "two of them", Halts: true}},
		{name: "fails", call: func(topdown.BuiltinContext, []*ast.Term, func(*ast.Term) error) error { return errors.New("no") },
			err: &builtin.Error{Code: builtin.BuiltinError, Message: "test.host: no"}},
		{name: "gives a variable", call: gives(`x`),
			err: &builtin.Error{Code: builtin.BuiltinError, Message: "test.host: var is not a value"}},
		{name: "is told the time", want: `17`, call: func(b topdown.BuiltinContext, _ []*ast.Term, iter func(*ast.Term) error) error {
			return iter(b.Time)
		}, host: func() *topdown.BuiltinContext {
			return &topdown.BuiltinContext{Context: context.Background(), Time: ast.NumberTerm("17")}
		}},
		{name: "is told that the evaluation has ended", call: func(b topdown.BuiltinContext, _ []*ast.Term, _ func(*ast.Term) error) error {
			if b.Cancel.Cancelled() {
				return topdown.Halt{Err: &topdown.Error{Code: topdown.CancelErr}}
			}
			return nil
		}, host: func() *topdown.BuiltinContext {
			return &topdown.BuiltinContext{Context: ended, Cancel: builtin.Cancel{Context: ended}}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			topdown.RegisterBuiltinFunc("test.host", tc.call)
			b, ok := builtin.Find("test.host")
			if !ok {
				t.Fatal("not found")
			}
			c := newCall()
			c.Host = tc.host
			got, err := b.Func(c, nil)
			var e *builtin.Error
			switch {
			case tc.host != nil && tc.want == "":
				if !errors.Is(err, context.Canceled) {
					t.Fatalf("got %v, want the context's error", err)
				}
			case tc.err != nil:
				if !errors.As(err, &e) || *e != *tc.err {
					t.Fatalf("got %v, want %v", err, tc.err)
				}
			case err != nil:
				t.Fatal(err)
			case tc.want == "" && got.Defined() || tc.want != "" && convert.ToTerm(got).String() != tc.want:
				t.Fatalf("got %s, want %q", convert.ToTerm(got), tc.want)
			}
		})
	}
}

func gives(results ...string) topdown.BuiltinFunc {
	return func(_ topdown.BuiltinContext, _ []*ast.Term, iter func(*ast.Term) error) error {
		for _, r := range results {
			if err := iter(ast.MustParseTerm(r)); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestABuiltinWithoutAHostKnowsNothing(t *testing.T) {
	for name, args := range map[string][]string{
		"opa.runtime":        {},
		"net.lookup_ip_addr": {`"localhost"`},
		"http.send":          {`{"method": "get", "url": "http://localhost:1/"}`},
		"rand.intn":          {`"a"`, `1000000`},
	} {
		got, err := call(name, parse(t, args...)...)
		if err == nil && got.Len() != 0 {
			t.Errorf("%s gives %s", name, convert.ToTerm(got))
		}
	}
}

func parse(t testing.TB, texts ...string) []value.Value {
	values := make([]value.Value, len(texts))
	for i, text := range texts {
		var err error
		if values[i], err = convert.FromAST(ast.MustParseTerm(text).Value); err != nil {
			t.Fatal(err)
		}
	}
	return values
}

// call calls a built-in without limits.
func call(name string, args ...value.Value) (value.Value, error) {
	b, ok := builtin.Find(name)
	if !ok {
		return value.Value{}, errors.New("there is no " + name)
	}
	return b.Func(newCall(), args)
}
