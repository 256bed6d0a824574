package reads_test

import (
	"testing"

	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/reads"
)

// The strings of the plans below, and locals as operands.
const (
	a ir.StringIndex = iota
	b
	c
	f
	g
)

func local(l ir.Local) ir.Operand { return ir.Operand{Value: l} }

func text(i ir.StringIndex) ir.Operand { return ir.Operand{Value: i} }

func dot(from ir.Local, key ir.StringIndex, to ir.Local) ir.Stmt {
	return &ir.DotStmt{Source: local(from), Key: text(key), Target: to}
}

// ofPlan returns the set of a plan, and of two functions that it may call.
func ofPlan(stmts ...ir.Stmt) *reads.Set {
	return readsOf(&ir.Policy{
		Static: &ir.Static{Strings: []*ir.StringConst{{Value: "a"}, {Value: "b"}, {Value: "c"}, {Value: "f"}, {Value: "g"}}},
		Plans:  &ir.Plans{Plans: []*ir.Plan{{Blocks: []*ir.Block{{Stmts: stmts}}}}},
		Funcs: &ir.Funcs{Funcs: []*ir.Func{
			{Name: "f", Params: []ir.Local{0, 1}, Return: 2, Path: []string{"f", "f"}, Blocks: []*ir.Block{{Stmts: []ir.Stmt{
				&ir.CallDynamicStmt{Args: []ir.Local{ir.Input, ir.Data}, Path: []ir.Operand{text(f), someData}, Result: 3}}}}},
			{Name: "g", Params: nil, Return: 2, Path: []string{"g", "g"}},
		}},
	})
}

// TestWhatAStatementReads has, for every operand of every statement, a plan in
// which it is input.a, of which nothing but input.a.b was looked at.
func TestWhatAStatementReads(t *testing.T) {
	const part, other, fresh ir.Local = 10, 11, 12
	number := &ir.MakeNumberIntStmt{Value: 1, Target: other}
	for _, tc := range []struct {
		name  string
		whole bool
		stmts []ir.Stmt
	}{
		{"nothing else", false, nil},
		{"an assignment", false, []ir.Stmt{&ir.AssignVarStmt{Source: local(part), Target: fresh}}},
		{"an assignment to nothing", false, []ir.Stmt{&ir.AssignVarOnceStmt{Source: local(part), Target: fresh}}},
		{"an assignment of the same", false, []ir.Stmt{
			&ir.AssignVarOnceStmt{Source: local(part), Target: fresh}, &ir.AssignVarOnceStmt{Source: local(part), Target: fresh}}},
		{"an assignment of another", true, []ir.Stmt{number, &ir.AssignVarOnceStmt{Source: local(part), Target: other}}},
		{"an assignment to another", true, []ir.Stmt{number, &ir.AssignVarOnceStmt{Source: local(other), Target: part}}},
		{"is it defined", false, []ir.Stmt{&ir.IsDefinedStmt{Source: part}}},
		{"is it undefined", false, []ir.Stmt{&ir.IsUndefinedStmt{Source: part}}},
		{"a reset", false, []ir.Stmt{&ir.ResetLocalStmt{Target: part}}},
		{"nop", false, []ir.Stmt{&ir.NopStmt{}}},
		{"is it an array", true, []ir.Stmt{&ir.IsArrayStmt{Source: local(part)}}},
		{"is it an object", true, []ir.Stmt{&ir.IsObjectStmt{Source: local(part)}}},
		{"is it a set", true, []ir.Stmt{&ir.IsSetStmt{Source: local(part)}}},
		{"length", true, []ir.Stmt{&ir.LenStmt{Source: local(part), Target: fresh}}},
		{"left of equal", true, []ir.Stmt{&ir.EqualStmt{A: local(part), B: text(a)}}},
		{"right of equal", true, []ir.Stmt{&ir.EqualStmt{A: text(a), B: local(part)}}},
		{"left of not equal", true, []ir.Stmt{&ir.NotEqualStmt{A: local(part), B: text(a)}}},
		{"right of not equal", true, []ir.Stmt{&ir.NotEqualStmt{A: text(a), B: local(part)}}},
		{"iteration", true, []ir.Stmt{&ir.ScanStmt{Source: part, Key: fresh, Value: other, Block: &ir.Block{}}}},
		{"in a loop", true, []ir.Stmt{&ir.ScanStmt{Source: ir.Data, Key: fresh, Value: other, Block: &ir.Block{Stmts: []ir.Stmt{
			&ir.IsSetStmt{Source: local(part)}}}}}},
		{"in not", true, []ir.Stmt{&ir.NotStmt{Block: &ir.Block{Stmts: []ir.Stmt{&ir.IsSetStmt{Source: local(part)}}}}}},
		{"in a second block", true, []ir.Stmt{&ir.BlockStmt{Blocks: []*ir.Block{
			{Stmts: []ir.Stmt{&ir.BreakStmt{Index: 1}}}, {Stmts: []ir.Stmt{&ir.IsSetStmt{Source: local(part)}}}}}}},
		{"after a reset that need not have been reached", true, []ir.Stmt{
			&ir.BlockStmt{Blocks: []*ir.Block{{Stmts: []ir.Stmt{&ir.IsSetStmt{Source: someData}, &ir.ResetLocalStmt{Target: part}}}}},
			&ir.IsSetStmt{Source: local(part)}}},
		{"after a reset", false, []ir.Stmt{&ir.ResetLocalStmt{Target: part}, &ir.IsSetStmt{Source: local(part)}}},
		{"after it was overwritten", false, []ir.Stmt{number, &ir.AssignVarStmt{Source: local(other), Target: part}, &ir.IsSetStmt{Source: local(part)}}},
		{"a lookup by it", true, []ir.Stmt{&ir.DotStmt{Source: someData, Key: local(part), Target: fresh}}},
		{"a lookup in it, not by a constant", true, []ir.Stmt{&ir.DotStmt{Source: local(part), Key: someData, Target: fresh}}},
		{"a lookup in it, by nothing", true, []ir.Stmt{&ir.DotStmt{Source: local(part), Key: local(fresh), Target: fresh}}},
		{"an array with it", true, []ir.Stmt{&ir.MakeArrayStmt{Capacity: 1, Target: fresh}, &ir.ArrayAppendStmt{Value: local(part), Array: fresh}}},
		{"it, as an array", true, []ir.Stmt{&ir.ArrayAppendStmt{Value: text(a), Array: part}}},
		{"a set with it", true, []ir.Stmt{&ir.MakeSetStmt{Target: fresh}, &ir.SetAddStmt{Value: local(part), Set: fresh}}},
		{"it, as a set", true, []ir.Stmt{&ir.SetAddStmt{Value: text(a), Set: part}}},
		{"an object with its value", true, []ir.Stmt{&ir.MakeObjectStmt{Target: fresh}, &ir.ObjectInsertStmt{Key: text(a), Value: local(part), Object: fresh}}},
		{"an object with its key", true, []ir.Stmt{&ir.MakeObjectStmt{Target: fresh}, &ir.ObjectInsertStmt{Key: local(part), Value: text(a), Object: fresh}}},
		{"it, as an object", true, []ir.Stmt{&ir.ObjectInsertStmt{Key: text(b), Value: text(a), Object: part}}},
		{"an object with its value, once", true, []ir.Stmt{&ir.MakeObjectStmt{Target: fresh}, &ir.ObjectInsertOnceStmt{Key: text(a), Value: local(part), Object: fresh}}},
		{"an object with its key, once", true, []ir.Stmt{&ir.MakeObjectStmt{Target: fresh}, &ir.ObjectInsertOnceStmt{Key: local(part), Value: text(a), Object: fresh}}},
		{"it, as an object, once", true, []ir.Stmt{&ir.ObjectInsertOnceStmt{Key: text(b), Value: text(a), Object: part}}},
		{"merged with another", true, []ir.Stmt{&ir.ObjectMergeStmt{A: part, B: ir.Data, Target: fresh}}},
		{"another merged with it", true, []ir.Stmt{&ir.ObjectMergeStmt{A: ir.Data, B: part, Target: fresh}}},
		{"the result", true, []ir.Stmt{&ir.ResultSetAddStmt{Value: part}}},
		{"with it in the place of data", false, []ir.Stmt{&ir.WithStmt{Local: ir.Data, Value: local(part), Block: &ir.Block{}}}},
		{"with it in the place of data that is read", true, []ir.Stmt{&ir.WithStmt{Local: ir.Data, Value: local(part), Block: &ir.Block{Stmts: []ir.Stmt{
			&ir.IsSetStmt{Source: someData}}}}}},
		{"with it in a place of data that is read", true, []ir.Stmt{&ir.WithStmt{Local: ir.Data, Path: []int{2}, Value: local(part), Block: &ir.Block{Stmts: []ir.Stmt{
			&ir.IsSetStmt{Source: someData}}}}}},
		{"with another in the place of data, which is read before", false, []ir.Stmt{
			&ir.WithStmt{Local: part, Value: text(a), Block: &ir.Block{Stmts: []ir.Stmt{&ir.IsSetStmt{Source: local(part)}}}}}},
		{"with another in its place, after that", true, []ir.Stmt{
			&ir.WithStmt{Local: part, Value: text(a), Block: &ir.Block{}}, &ir.IsSetStmt{Source: local(part)}}},
		{"an argument of a built-in", true, []ir.Stmt{&ir.CallStmt{Func: "count", Args: []ir.Operand{local(part)}, Result: fresh}}},
		{"an argument of object.get", true, []ir.Stmt{&ir.CallStmt{Func: "object.get", Args: []ir.Operand{local(part), someData, text(a)}, Result: fresh}}},
		{"an argument of object.get that is no constant", true, []ir.Stmt{&ir.CallStmt{Func: "object.get", Args: []ir.Operand{someData, local(part), text(a)}, Result: fresh}}},
		{"an argument of a built-in called object.get", true, []ir.Stmt{&ir.CallStmt{Func: "object.get", Args: []ir.Operand{local(part), text(b)}, Result: fresh}}},
		{"an argument too many", true, []ir.Stmt{&ir.CallStmt{Func: "g", Args: []ir.Operand{local(part)}, Result: fresh}}},
		{"a name of a dynamic call", true, []ir.Stmt{&ir.CallDynamicStmt{Args: []ir.Local{ir.Data, ir.Data}, Path: []ir.Operand{text(c), local(part)}, Result: fresh}}},
		{"an argument too many of a dynamic call", true, []ir.Stmt{&ir.CallDynamicStmt{Args: []ir.Local{part}, Path: []ir.Operand{text(g), text(g)}, Result: fresh}}},
		{"an argument of a dynamic call that finds nothing", false, []ir.Stmt{&ir.CallDynamicStmt{Args: []ir.Local{part}, Path: []ir.Operand{text(g), text(f)}, Result: fresh}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := "input.a.b"
			if tc.whole {
				want = "input.a"
			}
			if set := ofPlan(append([]ir.Stmt{dot(ir.Input, a, part), dot(part, b, 2)}, tc.stmts...)...); set.String() != want {
				t.Errorf("reads %v, want %s", set, want)
			}
		})
	}
}

// TestLoopHandsAPartOnToItsNextTurn in a local that was read in the turn before.
func TestLoopHandsAPartOnToItsNextTurn(t *testing.T) {
	const handed, second, third ir.Local = 10, 11, 12
	loop := func(stmts ...ir.Stmt) ir.Stmt {
		return &ir.ScanStmt{Source: ir.Data, Key: 20, Value: 21, Block: &ir.Block{Stmts: stmts}}
	}
	hand := func(from, to ir.Local) ir.Stmt { return &ir.AssignVarStmt{Source: local(from), Target: to} }
	for _, tc := range []struct {
		name  string
		stmts []ir.Stmt
		want  string
	}{
		{"once", []ir.Stmt{
			dot(ir.Input, a, handed), loop(dot(handed, c, 13), dot(ir.Input, b, handed)),
		}, "input.a.c, input.b.c"},
		{"after another loop", []ir.Stmt{
			loop(), dot(ir.Input, a, handed), loop(dot(handed, c, 13), dot(ir.Input, b, handed)),
		}, "input.a.c, input.b.c"},
		{"of a loop in a loop", []ir.Stmt{
			loop(dot(ir.Input, a, handed), loop(dot(handed, c, 13), dot(ir.Input, b, handed))),
		}, "input.a.c, input.b.c"},
		{"over a loop in it", []ir.Stmt{
			dot(ir.Input, a, handed), loop(dot(handed, c, 13), dot(ir.Input, b, handed), loop(dot(handed, a, 13))),
		}, "input.a.c, input.b.a, input.b.c"},
		{"past a block that may have replaced it", []ir.Stmt{
			dot(ir.Input, a, handed),
			loop(
				&ir.BlockStmt{Blocks: []*ir.Block{{Stmts: []ir.Stmt{&ir.IsSetStmt{Source: someData}, hand(ir.Data, handed)}}}},
				dot(handed, c, 13), dot(ir.Input, b, handed),
			),
		}, "input.a.c, input.b.c"},
		{"from hand to hand", []ir.Stmt{
			dot(ir.Input, a, handed), dot(ir.Input, b, second), dot(ir.Input, c, third),
			loop(dot(handed, c, 13), hand(second, handed), hand(third, second), dot(ir.Input, f, third)),
		}, "input.a.c, input.b.c, input.c.c, input.f.c"},
		{"but not what it makes in each turn", []ir.Stmt{
			dot(ir.Input, a, handed), loop(dot(ir.Input, b, handed), dot(handed, c, 13)),
		}, "input.a, input.b.c"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if set := ofPlan(tc.stmts...); set.String() != tc.want {
				t.Errorf("reads %v, want %s", set, tc.want)
			}
		})
	}
}

// strange is a statement of a version of OPA to come.
type strange struct{ ir.Location }

// TestPlansThatOPADoesNotMakeReadEverything are of a planner to come, or of
// somebody who found a way to bring a plan of his own.
func TestPlansThatOPADoesNotMakeReadEverything(t *testing.T) {
	for _, tc := range []struct {
		name  string
		stmts []ir.Stmt
	}{
		{"an unknown statement", []ir.Stmt{&strange{}}},
		{"an unknown statement in a block", []ir.Stmt{&ir.BlockStmt{Blocks: []*ir.Block{{Stmts: []ir.Stmt{&strange{}}}}}}},
		{"an operand that is none", []ir.Stmt{&ir.AssignVarStmt{Target: 2}}},
		{"a local below zero", []ir.Stmt{&ir.ResultSetAddStmt{Value: -1}}},
		{"a constant key beyond the end", []ir.Stmt{&ir.DotStmt{Source: local(ir.Input), Key: ir.Operand{Value: ir.StringIndex(70)}, Target: 2}}},
		{"with of a path beyond the end", []ir.Stmt{&ir.WithStmt{Local: ir.Input, Path: []int{70}, Value: someData, Block: &ir.Block{}}}},
		{"with of a local below zero", []ir.Stmt{&ir.WithStmt{Local: -3, Value: someData, Block: &ir.Block{}}}},
		{"a dynamic call without a path", []ir.Stmt{&ir.CallDynamicStmt{Args: []ir.Local{ir.Input, ir.Data}, Result: 2}}},
		{"a loop that goes deeper at every turn", []ir.Stmt{
			dot(ir.Input, a, 2),
			&ir.ScanStmt{Source: ir.Data, Key: 3, Value: 4, Block: &ir.Block{Stmts: []ir.Stmt{dot(2, a, 2)}}},
		}},
		{"a function that calls itself", []ir.Stmt{
			&ir.CallStmt{Func: "f", Args: []ir.Operand{{Value: ir.Input}, {Value: ir.Data}}, Result: 2},
		}},
		{"arguments too many", []ir.Stmt{
			&ir.CallStmt{Func: "g", Args: []ir.Operand{{Value: ir.Input}, {Value: ir.Data}}, Result: 2},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if set := ofPlan(tc.stmts...); !set.Whole() {
				t.Errorf("reads %v", set)
			}
		})
	}
}

func TestPlanOfNothingReadsNothing(t *testing.T) {
	if set := readsOf(&ir.Policy{}); set.Whole() || len(set.Paths()) != 0 || set.String() != "nothing" {
		t.Errorf("reads %v", set)
	}
}
