package builtin_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/builtin"
	"github.com/microwall/microwall/policy/rego/internal/convert"
	"github.com/microwall/microwall/policy/rego/internal/value"
	"github.com/microwall/microwall/policy/rego/internal/value/valuetest"
)

// TestNativeBuiltinsAreOPAs calls every native built-in and OPA's with the same
// operands, made up by the declared types and against them, and compares the
// results with their spelling, and the errors.
func TestNativeBuiltinsAreOPAs(t *testing.T) {
	rounds, base := 500, uint64(17)
	if testing.Short() {
		rounds = 100
	}
	for _, name := range builtin.Native() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, calls := newDiff(t, name), 0
			for seed := range uint64(rounds) {
				if raceDetector && skipped(seed) {
					continue
				}
				calls++
				d.compare(t, rand.New(rand.NewPCG(seed, base)))
				if t.Failed() {
					return
				}
			}
			if calls == rounds && d.results < rounds/50 {
				t.Errorf("only %d of %d calls gave a result: the operands that the test makes up are no good", d.results, rounds)
			}
		})
	}
}

func FuzzNativeBuiltinsAreOPAs(f *testing.F) {
	f.Add(uint64(1), uint64(2), "a/b")
	names := builtin.Native()
	diffs := map[string]*diff{}
	f.Fuzz(func(t *testing.T, a, b uint64, text string) {
		name := names[a%uint64(len(names))]
		if diffs[name] == nil {
			diffs[name] = newDiff(t, name)
		}
		d := diffs[name]
		d.text = strings.ToValidUTF8(text, "?")
		d.compare(t, rand.New(rand.NewPCG(a, b)))
	})
}

// diff compares one native built-in with OPA's.
type diff struct {
	native, opa *builtin.Builtin
	args        []types.Type
	results     int
	text        string // to mix into the operands
}

func newDiff(t testing.TB, name string) *diff {
	native, _ := builtin.Find(name)
	opa, ok := builtin.Bridge(name)
	decl := ast.BuiltinMap[name]
	if !ok || decl == nil {
		t.Fatalf("OPA has no %s", name)
	}
	return &diff{native: native, opa: opa, args: decl.Decl.FuncArgs().Args}
}

func (d *diff) compare(t *testing.T, r *rand.Rand) {
	g := &generator{Gen: valuetest.Gen{Rand: r}, texts: textsOf(d.native.Name), extra: d.text, odd: r.IntN(4) == 0}
	if made := makerOf(d.native.Name); made != nil && r.IntN(2) == 0 {
		args := made(maker{r}, d.native.Name)
		for i := range args {
			args[i] = g.form(args[i])
		}
		d.call(t, r, args)
		return
	}
	args := make([]value.Value, len(d.args))
	likely := operands[d.native.Name]
	for i, typ := range d.args {
		if likely != nil && !g.odd {
			args[i] = g.form(likely(g, i))
		} else {
			args[i] = g.form(g.operand(typ))
		}
		if i > 0 && g.IntN(20) == 0 {
			args[i] = args[g.IntN(i)]
		}
	}
	d.call(t, r, args)
}

// call compares one call, and one with some of the operands bound.
func (d *diff) call(t *testing.T, r *rand.Rand, args []value.Value) {
	shown := make([]string, len(args))
	for i, arg := range args {
		shown[i] = convert.ToTerm(arg).String()
	}
	got, gotErr := d.native.Func(limited(), args)
	if budget.IsOver(gotErr) {
		return // OPA has no budget: it may not come back
	}
	want, wantErr := d.opa.Func(newCall(), args)
	call := fmt.Sprintf("%s(%s)", d.native.Name, strings.Join(shown, ", "))
	if diff := differ(got, gotErr, want, wantErr); diff != "" {
		t.Fatalf("%s: %s", call, diff)
	}
	for i, arg := range args {
		if s := convert.ToTerm(arg).String(); s != shown[i] {
			t.Fatalf("%s changes its operand %d to %s", call, i+1, s)
		}
	}
	if gotErr == nil && got.Defined() {
		d.results++
	}
	if gotErr != nil && d.native.Total {
		t.Fatalf("%s fails, though it is said to be total: %v", call, gotErr)
	}
	consts := make([]value.Value, len(args))
	for i := range args {
		if r.IntN(2) == 0 {
			consts[i] = args[i]
		}
	}
	if bound := builtin.NewPreparation(context.Background()).Bind(d.native, consts); bound != nil {
		for range 2 {
			if got, gotErr = bound(limited(), args); budget.IsOver(gotErr) {
				return
			}
			if diff := differ(got, gotErr, want, wantErr); diff != "" {
				t.Fatalf("%s, bound to %s: %s", call, convert.ToTerm(value.NewArray(defined(consts)...)), diff)
			}
		}
	}
}

func defined(values []value.Value) []value.Value {
	list := make([]value.Value, len(values))
	for i, v := range values {
		if list[i] = v; !v.Defined() {
			list[i] = value.Text("?")
		}
	}
	return list
}

func limited() *builtin.Call {
	m := new(budget.Meter)
	m.Reset(context.Background(), budget.Limits{Steps: 2_000_000, Bytes: 2 << 20})
	return &builtin.Call{Meter: m}
}

// differ says how two outcomes differ.
func differ(got value.Value, gotErr error, want value.Value, wantErr error) string {
	if gotErr != nil || wantErr != nil {
		var g, w builtin.Error
		var e *builtin.Error
		if errors.As(gotErr, &e) {
			g = *e
		}
		if errors.As(wantErr, &e) {
			w = *e
		}
		switch {
		case g == w && g != (builtin.Error{}):
			return ""
		case gotErr == nil:
			return fmt.Sprintf("gives %s, OPA the error\n%v", convert.ToTerm(got), wantErr)
		case wantErr == nil:
			return fmt.Sprintf("gives the error\n%v\nand OPA %s", gotErr, convert.ToTerm(want))
		}
		return fmt.Sprintf("gives the error\n%v\nand OPA\n%v", gotErr, wantErr)
	}
	if got.Kind() == want.Kind() && (!got.Defined() || convert.ToTerm(got).String() == convert.ToTerm(want).String()) {
		return ""
	}
	show := func(v value.Value) string {
		if !v.Defined() {
			return "undefined"
		}
		return convert.ToTerm(v).String()
	}
	return fmt.Sprintf("gives\n%s\nand OPA\n%s", show(got), show(want))
}
