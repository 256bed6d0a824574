package reads_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/ir"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/microwall/microwall/policy/rego/internal/reads"
)

// A mutant is an analysis that leaves out one case. It is the real one, on a plan
// from which what that case looks at was taken away; or it is the real set, held
// against inputs that agree by less than the whole letter of what agreeing is.
type mutant struct {
	name string
	// blind returns what the mutant sees instead of a statement. It may not change
	// the statement. A block of several is a BlockStmt.
	blind func(m *sight, s ir.Stmt) ir.Stmt
	agree agreement
	// rego, asked for allow about input, shows what is wrong with it. Most let the
	// mutant see a lookup of input.a.b, but not that the rest of input.a is read.
	rego, input string
}

// sight is what blind may want to know.
type sight struct {
	policy *ir.Policy
	inPlan bool // the statement is the query's, no rule's
}

func (m *sight) isFunction(name string) bool {
	for _, f := range m.policy.Funcs.Funcs {
		if f.Name == name {
			return true
		}
	}
	return false
}

var (
	nothing  = &ir.NopStmt{}
	yes      = ir.Operand{Value: ir.Bool(true)}
	someData = ir.Operand{Value: ir.Data}
)

// reading makes a mutant that does not see what statements of one type read.
func reading[S ir.Stmt](name, rego, input string, blind func(S) ir.Stmt) mutant {
	return mutant{name: name, rego: rego, input: input, blind: func(_ *sight, s ir.Stmt) ir.Stmt {
		if s, ok := s.(S); ok {
			return blind(s)
		}
		return s
	}}
}

const witness = `{"a": {"b": 1, "c": 2}, "x": {"b": 1}, "y": true, "k": "p", "list": [1, 2], "p": 1, "q": {"r": 1}}`

var mutants = []mutant{
	reading("the value of with input",
		`allow if { input.a.b; count(input.z) == 2 with input.z as input.a }`, witness,
		func(s *ir.WithStmt) ir.Stmt {
			if seen := *s; s.Local == ir.Input {
				seen.Value = yes
				return &seen
			}
			return s
		}),
	reading("the value of with data",
		`allow if { input.a.b; data.d[_] == 2 with data.d as input.a }`, witness,
		func(s *ir.WithStmt) ir.Stmt {
			if seen := *s; s.Local == ir.Data {
				seen.Value = yes
				return &seen
			}
			return s
		}),
	reading("that with puts a part back together with the rest",
		`allow if { input.a.b; input.a.c == 2 with input.z as 1 }`, witness,
		func(s *ir.WithStmt) ir.Stmt {
			seen := *s
			seen.Path = nil
			return &seen
		}),
	reading("what is iterated",
		`allow if { input.a.b; input.a[_] == 2 }`, witness,
		func(s *ir.ScanStmt) ir.Stmt {
			seen := *s
			seen.Source = ir.Data
			return &seen
		}),
	reading("what goes into arrays",
		`allow := json.marshal([input.a]) if input.a.b`, witness,
		func(s *ir.ArrayAppendStmt) ir.Stmt { return nothing }),
	reading("what goes into sets",
		`allow if { input.a.b; {input.a} == {{"b": 1, "c": 2}} }`, witness,
		func(s *ir.SetAddStmt) ir.Stmt { return nothing }),
	reading("the values of objects",
		`allow := json.marshal({"k": input.a}) if input.a.b`, witness,
		func(s *ir.ObjectInsertStmt) ir.Stmt {
			seen := *s
			seen.Value = yes
			return &seen
		}),
	reading("the keys of objects",
		`allow := json.marshal({input.a: 1}) if input.a.b`, witness,
		func(s *ir.ObjectInsertStmt) ir.Stmt {
			seen := *s
			seen.Key = yes
			return &seen
		}),
	reading("the values of object comprehensions and partial objects",
		`allow if { input.a.b; {k: v | k := data.list[_]; v := input.a}[1] == {"b": 1, "c": 2} }`, witness,
		func(s *ir.ObjectInsertOnceStmt) ir.Stmt {
			seen := *s
			seen.Value = yes
			return &seen
		}),
	reading("the keys of object comprehensions and partial objects",
		`allow if { input.a.b; {k: 1 | k := input.a} == {{"b": 1, "c": 2}: 1} }`, witness,
		func(s *ir.ObjectInsertOnceStmt) ir.Stmt {
			seen := *s
			seen.Key = yes
			return &seen
		}),
	reading("what is merged",
		`allow if { input.a.b; whole }
whole if { x := data.rules with data.rules.z as input.a; count(x.z) == 2 }`, witness,
		func(s *ir.ObjectMergeStmt) ir.Stmt { return nothing }),
	reading("what is compared",
		`allow if { input.a.b; input.a = data.object }`, witness,
		func(s *ir.EqualStmt) ir.Stmt { return nothing }),
	reading("what must not be false",
		`allow if { not input.y.b; input.y }`, witness,
		func(s *ir.NotEqualStmt) ir.Stmt { return nothing }),
	reading("what is assigned twice",
		`allow if u.b == 1
u := input.a
u := data.object`, witness,
		func(s *ir.AssignVarOnceStmt) ir.Stmt {
			return &ir.AssignVarStmt{Source: s.Source, Target: s.Target}
		}),
	reading("other names",
		`allow if { input.a.b; x := input.a; count(x) == 2 }`, witness,
		func(s *ir.AssignVarStmt) ir.Stmt {
			return &ir.AssignVarStmt{Source: yes, Target: s.Target}
		}),
	reading("what a function returns",
		`allow if { input.a.b; count(u) == 2 }
u := input.a`, witness,
		func(s *ir.ReturnLocalStmt) ir.Stmt { return nothing }),
	{name: "the answer", rego: "allow := input.a if input.a.b", input: witness, blind: func(m *sight, s ir.Stmt) ir.Stmt {
		if s, ok := s.(*ir.ObjectInsertStmt); ok && m.inPlan {
			seen := *s
			seen.Value = yes
			return &seen
		}
		return s
	}},
	{name: "the length and the type of what is taken apart", rego: `allow if { {"b": 1} = input.x }`, input: witness, blind: func(_ *sight, s ir.Stmt) ir.Stmt {
		switch s := s.(type) {
		case *ir.IsArrayStmt, *ir.IsObjectStmt, *ir.IsSetStmt:
			return nothing
		case *ir.LenStmt:
			seen := *s
			seen.Source = yes
			return &seen
		}
		return s
	}},

	reading("what is looked into with a key that is not constant",
		`allow if { input.a.b; input.a[data.key] == 2 }`, witness,
		func(s *ir.DotStmt) ir.Stmt {
			if _, ok := s.Key.Value.(ir.Local); !ok {
				return s
			}
			return several(&ir.EqualStmt{A: s.Key, B: s.Key}, &ir.AssignVarStmt{Source: someData, Target: s.Target})
		}),
	reading("keys that are not constant",
		`allow if { not input.k.x; data.table[input.k] }`, witness,
		func(s *ir.DotStmt) ir.Stmt {
			if _, ok := s.Key.Value.(ir.Local); !ok {
				return s
			}
			seen := *s
			seen.Key = someData
			return &seen
		}),
	reading("lookups",
		`allow if input.a.b == 1`, witness,
		func(s *ir.DotStmt) ir.Stmt { return &ir.AssignVarStmt{Source: someData, Target: s.Target} }),
	{name: "that [0] is not [\"0\"]", rego: `allow if input.list[0] == 1`, input: witness, blind: func(m *sight, s ir.Stmt) ir.Stmt {
		if s, ok := s.(*ir.MakeNumberRefStmt); ok {
			return &ir.AssignVarStmt{Source: ir.Operand{Value: ir.StringIndex(s.Index)}, Target: s.Target}
		}
		return s
	}},

	call("arguments of functions", true,
		`allow if { input.a.b; f(input.a) }
f(x) if count(x) == 2`, witness,
		func(s *ir.CallStmt) {
			for i := 2; i < len(s.Args); i++ {
				s.Args[i] = yes
			}
		}),
	call("the input of rules and functions", true,
		`allow if { input.a.b; f(1) }
f(x) if count(input.a) == 2`, witness,
		func(s *ir.CallStmt) { s.Args[0] = someData }),
	call("the data of rules and functions", true,
		`allow if { input.a.b; r with data.d as input.a }
r if data.d.c == 2`, witness,
		func(s *ir.CallStmt) { s.Args[1] = yes }),
	call("arguments of built-ins", false,
		`allow if { input.a.b; count(input.a) == 2 }`, witness,
		func(s *ir.CallStmt) {
			if s.Func != "object.get" {
				s.Args = nil
			}
		}),
	call("the object of object.get", false,
		`allow if { input.a.b; object.get(input.a, "c", 0) == 2 }`, witness,
		func(s *ir.CallStmt) {
			if s.Func == "object.get" {
				s.Args[0] = someData
			}
		}),
	call("the path of object.get", false,
		`allow if object.get(input.a, "c", 0) == 2`, witness,
		func(s *ir.CallStmt) {
			if s.Func == "object.get" {
				s.Args[1] = ir.Operand{Value: ir.StringIndex(0)}
			}
		}),
	call("the default of object.get", false,
		`allow if { input.a.b; object.get(data.table, "none", input.a).c == 2 }`, witness,
		func(s *ir.CallStmt) {
			if s.Func == "object.get" {
				s.Args[2] = yes
			}
		}),
	reading("the input of rules chosen at run time",
		`allow if data.rules[data.rule]`, witness,
		func(s *ir.CallDynamicStmt) ir.Stmt {
			seen := *s
			seen.Args = []ir.Local{ir.Data, ir.Data}
			return &seen
		}),
	{name: "the names of rules chosen at run time, which are also looked up in data", rego: `allow if { not input.k.x; data.rules[input.k] }`, input: witness,
		blind: func(_ *sight, s ir.Stmt) ir.Stmt {
			switch s := s.(type) {
			case *ir.CallDynamicStmt:
				seen := *s
				seen.Path = nil
				for _, o := range s.Path {
					if _, ok := o.Value.(ir.Local); ok {
						o = someData
					}
					seen.Path = append(seen.Path, o)
				}
				return &seen
			case *ir.DotStmt:
				if _, ok := s.Key.Value.(ir.Local); ok && s.Source.Value != ir.Input {
					seen := *s
					seen.Key = someData
					return &seen
				}
			}
			return s
		}},
	reading("what is in not",
		`allow if not input.a.c`, witness,
		func(s *ir.NotStmt) ir.Stmt { return nothing }),

	{name: "how far a path leads where nothing is found", agree: agreement{depth: false, kind: true},
		rego: `allow if { x := input.x; not x.c }`, input: witness},
	{name: "the type of what a path ends at where nothing is found", agree: agreement{depth: true, kind: false},
		rego: `allow if object.get(input.x, "c", 3) == 3`, input: witness},
}

// call makes a mutant that sees other calls, of functions or of built-ins.
func call(name string, functions bool, rego, input string, change func(s *ir.CallStmt)) mutant {
	return mutant{name: name, rego: rego, input: input, blind: func(m *sight, s ir.Stmt) ir.Stmt {
		call, ok := s.(*ir.CallStmt)
		if !ok || m.isFunction(call.Func) != functions {
			return s
		}
		seen := *call
		seen.Args = append([]ir.Operand(nil), call.Args...)
		change(&seen)
		return &seen
	}}
}

func several(stmts ...ir.Stmt) ir.Stmt { return &ir.BlockStmt{Blocks: []*ir.Block{{Stmts: stmts}}} }

// of returns the set that the mutant works out.
func (m mutant) of(p *ir.Policy) *reads.Set {
	if m.blind == nil {
		return readsOf(p)
	}
	seen := &ir.Policy{Static: p.Static, Plans: &ir.Plans{}, Funcs: &ir.Funcs{}}
	for _, plan := range p.Plans.Plans {
		copied := *plan
		copied.Blocks = m.blocks(&sight{p, true}, plan.Blocks)
		seen.Plans.Plans = append(seen.Plans.Plans, &copied)
	}
	for _, f := range p.Funcs.Funcs {
		copied := *f
		copied.Blocks = m.blocks(&sight{p, false}, f.Blocks)
		seen.Funcs.Funcs = append(seen.Funcs.Funcs, &copied)
	}
	return readsOf(seen)
}

func (m mutant) blocks(see *sight, blocks []*ir.Block) []*ir.Block {
	copied := make([]*ir.Block, len(blocks))
	for i, b := range blocks {
		copied[i] = m.block(see, b)
	}
	return copied
}

func (m mutant) block(see *sight, b *ir.Block) *ir.Block {
	copied := &ir.Block{}
	for _, s := range b.Stmts {
		switch s := m.blind(see, s).(type) {
		case *ir.BlockStmt:
			seen := *s
			seen.Blocks = m.blocks(see, s.Blocks)
			copied.Stmts = append(copied.Stmts, &seen)
		case *ir.NotStmt:
			seen := *s
			seen.Block = m.block(see, s.Block)
			copied.Stmts = append(copied.Stmts, &seen)
		case *ir.ScanStmt:
			seen := *s
			seen.Block = m.block(see, s.Block)
			copied.Stmts = append(copied.Stmts, &seen)
		case *ir.WithStmt:
			seen := *s
			seen.Block = m.block(see, s.Block)
			copied.Stmts = append(copied.Stmts, &seen)
		default:
			copied.Stmts = append(copied.Stmts, s)
		}
	}
	return copied
}

// TestMutantsAreNoticed shows that changing inputs finds an analysis that leaves
// out any one case.
func TestMutantsAreNoticed(t *testing.T) {
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			q := ruleRead{rego: m.rego}.question(t)
			q.store = inmem.NewFromObject(map[string]any{
				"list": []any{json.Number("1")}, "key": "c", "rule": "p", "table": map[string]any{"p": true},
				"object": map[string]any{"b": json.Number("1"), "c": json.Number("2")},
			})
			p, err := q.plan(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			input := ast.MustParseTerm(m.input).Value
			if complaint := m.noticed(t, specimen{q, p, []ast.Value{input}}); complaint == "" {
				t.Error("nothing notices that this is left out")
			}
			var n tally
			if n.unnoticed(t, specimen{q, p, []ast.Value{input}}, 0); n.changed == 0 {
				t.Error("the witness shows nothing")
			}
		})
	}
}

// TestGrammarFindsMutants shows that the policies that the grammar makes would
// find most of them, without having been written for it.
func TestGrammarFindsMutants(t *testing.T) {
	if !*full {
		t.Skip("takes minutes: -full")
	}
	var specimens []specimen
	for seed := range 1000 {
		if s, ok := generated(t, seed); ok {
			specimens = append(specimens, s)
		}
	}
	var missed []string
	for _, m := range mutants {
		if !slices.ContainsFunc(specimens, func(s specimen) bool { return m.noticed(t, s) != "" }) {
			missed = append(missed, m.name)
		}
	}
	t.Logf("of %d mutants, not found: %q", len(mutants), missed)
	if len(missed) > len(mutants)/4 {
		t.Error("the grammar makes too little that matters")
	}
}

// noticed tries a specimen on a mutant, and returns what gives it away.
func (m mutant) noticed(t *testing.T, s specimen) string {
	t.Helper()
	set, right := m.of(s.policy), readsOf(s.policy)
	d := newPerturbation(s.question, s.policy, set)
	d.except, d.limit = right, 200
	if m.blind == nil {
		d.agreement = m.agree
	} else if set.String() == right.String() {
		return ""
	}
	for _, input := range s.inputs {
		complaint, err := d.on(t.Context(), input)
		if err != nil {
			t.Fatal(err)
		}
		if complaint != "" {
			return complaint
		}
	}
	return ""
}
