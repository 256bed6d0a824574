package exec

import (
	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// region is what is known of the locals of one rule.
type region struct {
	// defs and uses count the statements that set and read a local.
	defs, uses map[ir.Local]int
	// constants are locals that have one value throughout.
	constants map[ir.Local]value.Value
	// alias are locals that are only another name for a local.
	alias map[ir.Local]ir.Local
	// base are locals that are only ever set by a path into the data document.
	base map[ir.Local]bool
	// made are locals that are only ever set to a new set, object or array.
	made map[ir.Local]bool
	// shared are locals that other regions set or read.
	shared map[ir.Local]bool
}

func newRegion(c *compiler, b *ir.Block) *region {
	r := &region{defs: map[ir.Local]int{}, uses: map[ir.Local]int{}, constants: map[ir.Local]value.Value{}, base: map[ir.Local]bool{}, alias: map[ir.Local]ir.Local{}, made: map[ir.Local]bool{}, shared: c.shared}
	visit(b, func(s ir.Stmt) {
		def, uses := access(s)
		for _, l := range def {
			r.defs[l]++
		}
		for _, l := range uses {
			r.uses[l]++
		}
	})
	r.findAliases(b)
	visit(b, func(s ir.Stmt) {
		if dot, ok := s.(*ir.DotStmt); ok && r.defs[dot.Target] == 1 && r.isBase(dot.Source) {
			r.base[dot.Target] = true
		}
	})
	notMade := map[ir.Local]bool{}
	visit(b, func(s ir.Stmt) {
		defs, _ := access(s)
		for _, l := range defs {
			switch s.(type) {
			case *ir.MakeSetStmt, *ir.MakeObjectStmt, *ir.MakeArrayStmt:
				r.made[l] = !notMade[l]
			default:
				notMade[l] = true
				r.made[l] = false
			}
		}
	})
	made := map[ir.Local]int{} // changes that are in the constants
	r.foldConstants(c, b, made)
	r.dropChanged(b, made)
	for _, v := range r.constants {
		value.Freeze(v)
	}
	return r
}

// foldConstants finds locals that are constants: numbers and null, and sets,
// arrays and objects that are put together from constants in one block.
func (r *region) foldConstants(c *compiler, b *ir.Block, made map[ir.Local]int) {
	building := map[ir.Local]bool{} // begun in this block
	operand := func(o ir.Operand) (value.Value, bool) {
		switch v := o.Value.(type) {
		case ir.Bool:
			return value.Boolean(bool(v)), true
		case ir.StringIndex:
			return value.Text(c.strings[v]), true
		case ir.Local:
			k, ok := r.constants[v]
			return k, ok
		}
		return value.Value{}, false
	}
	start := func(l ir.Local, v value.Value) {
		if r.defs[l] == 1 && !r.shared[l] {
			r.constants[l], building[l] = v, true
		}
	}
	for _, s := range b.Stmts {
		switch s := s.(type) {
		case *ir.MakeNullStmt:
			start(s.Target, value.NullValue)
		case *ir.MakeNumberIntStmt:
			start(s.Target, value.Int(s.Value))
		case *ir.MakeNumberRefStmt:
			start(s.Target, value.NumberText(c.strings[s.Index]))
		case *ir.MakeArrayStmt:
			start(s.Target, value.NewArray())
		case *ir.MakeObjectStmt:
			start(s.Target, value.NewObject(0))
		case *ir.MakeSetStmt:
			start(s.Target, value.NewSet(0))
		case *ir.ArrayAppendStmt:
			if v, ok := operand(s.Value); ok && building[s.Array] {
				r.constants[s.Array].Append(v)
				made[s.Array]++
			}
		case *ir.SetAddStmt:
			if v, ok := operand(s.Value); ok && building[s.Set] {
				r.constants[s.Set].Add(v)
				made[s.Set]++
			}
		case *ir.ObjectInsertStmt:
			k, kok := operand(s.Key)
			v, vok := operand(s.Value)
			if kok && vok && building[s.Object] {
				r.constants[s.Object].Insert(k, v)
				made[s.Object]++
			}
		}
		for _, inner := range blocksOf(s) {
			r.foldConstants(c, inner, made)
		}
	}
}

// dropChanged drops what is changed by any other statement than those that made
// it, and what holds such a one.
func (r *region) dropChanged(b *ir.Block, made map[ir.Local]int) {
	changes := map[ir.Local]int{}
	holds := map[ir.Local][]ir.Local{}
	visit(b, func(s ir.Stmt) {
		var target ir.Local
		var operands []ir.Operand
		switch s := s.(type) {
		case *ir.ArrayAppendStmt:
			target, operands = s.Array, []ir.Operand{s.Value}
		case *ir.SetAddStmt:
			target, operands = s.Set, []ir.Operand{s.Value}
		case *ir.ObjectInsertStmt:
			target, operands = s.Object, []ir.Operand{s.Key, s.Value}
		case *ir.ObjectInsertOnceStmt:
			target, operands = s.Object, []ir.Operand{s.Key, s.Value}
		default:
			return
		}
		changes[target]++
		for _, o := range operands {
			if l, ok := o.Value.(ir.Local); ok {
				holds[target] = append(holds[target], l)
			}
		}
	})
	for again := true; again; {
		again = false
		for l := range r.constants {
			ok := changes[l] == made[l]
			for _, held := range holds[l] {
				_, constant := r.constants[held]
				ok = ok && constant
			}
			if !ok {
				delete(r.constants, l)
				again = true
			}
		}
	}
}

// findAliases finds locals that are set once to another local that is set once,
// and are read only where that has happened.
func (r *region) findAliases(b *ir.Block) {
	for i, s := range b.Stmts {
		for _, inner := range blocksOf(s) {
			r.findAliases(inner)
		}
		assign, ok := s.(*ir.AssignVarStmt)
		if !ok {
			continue
		}
		from, ok := assign.Source.Value.(ir.Local)
		to := assign.Target
		if !ok || from == ir.Input || from == ir.Data || r.defs[from] != 1 || r.defs[to] != 1 || r.shared[from] || r.shared[to] {
			continue
		}
		after, asks := 0, false
		visit(&ir.Block{Stmts: b.Stmts[i+1:]}, func(s ir.Stmt) {
			_, uses := access(s)
			for _, l := range uses {
				if l != to {
					continue
				}
				after++
				switch s.(type) {
				case *ir.IsDefinedStmt, *ir.IsUndefinedStmt:
					asks = true
				}
			}
		})
		if after != r.uses[to] || asks {
			continue
		}
		for root, ok := r.alias[from]; ok; root, ok = r.alias[from] {
			from = root
		}
		r.alias[to] = from
		r.uses[from] += r.uses[to] - 1
	}
}

// named returns the local that l is a name for.
func (r *region) named(l ir.Local) ir.Local {
	if of, ok := r.alias[l]; ok {
		return of
	}
	return l
}

func (r *region) isBase(o ir.Operand) bool {
	l, ok := o.Value.(ir.Local)
	return ok && (l == ir.Data || r.base[l])
}

// foldable reports whether a local is set once and read once, so that what it is
// set to can be computed where it is read.
func (r *region) foldable(l ir.Local) bool { return r.defs[l] == 1 && r.uses[l] == 1 }

// visit calls f for every statement of a block and of those inside it.
func visit(b *ir.Block, f func(ir.Stmt)) {
	for _, s := range b.Stmts {
		f(s)
		for _, inner := range blocksOf(s) {
			visit(inner, f)
		}
	}
}

func blocksOf(s ir.Stmt) []*ir.Block {
	switch s := s.(type) {
	case *ir.BlockStmt:
		return s.Blocks
	case *ir.NotStmt:
		return []*ir.Block{s.Block}
	case *ir.ScanStmt:
		return []*ir.Block{s.Block}
	case *ir.WithStmt:
		return []*ir.Block{s.Block}
	}
	return nil
}

// access returns the locals that a statement itself sets and reads. What is put
// into a composite changes it, and counts as reading.
func access(s ir.Stmt) (defs, uses []ir.Local) {
	use := func(operands ...ir.Operand) {
		for _, o := range operands {
			if l, ok := o.Value.(ir.Local); ok {
				uses = append(uses, l)
			}
		}
	}
	switch s := s.(type) {
	case *ir.ReturnLocalStmt:
		uses = append(uses, s.Source)
	case *ir.CallStmt:
		use(s.Args...)
		defs = append(defs, s.Result)
	case *ir.CallDynamicStmt:
		uses = append(uses, s.Args...)
		use(s.Path...)
		defs = append(defs, s.Result)
	case *ir.DotStmt:
		use(s.Source, s.Key)
		defs = append(defs, s.Target)
	case *ir.LenStmt:
		use(s.Source)
		defs = append(defs, s.Target)
	case *ir.ScanStmt:
		uses = append(uses, s.Source)
		defs = append(defs, s.Key, s.Value)
	case *ir.AssignIntStmt:
		defs = append(defs, s.Target)
	case *ir.AssignVarStmt:
		use(s.Source)
		defs = append(defs, s.Target)
	case *ir.AssignVarOnceStmt:
		use(s.Source)
		uses = append(uses, s.Target)
		defs = append(defs, s.Target)
	case *ir.ResetLocalStmt:
		defs = append(defs, s.Target)
	case *ir.MakeNullStmt:
		defs = append(defs, s.Target)
	case *ir.MakeNumberIntStmt:
		defs = append(defs, s.Target)
	case *ir.MakeNumberRefStmt:
		defs = append(defs, s.Target)
	case *ir.MakeArrayStmt:
		defs = append(defs, s.Target)
	case *ir.MakeObjectStmt:
		defs = append(defs, s.Target)
	case *ir.MakeSetStmt:
		defs = append(defs, s.Target)
	case *ir.EqualStmt:
		use(s.A, s.B)
	case *ir.NotEqualStmt:
		use(s.A, s.B)
	case *ir.IsArrayStmt:
		use(s.Source)
	case *ir.IsObjectStmt:
		use(s.Source)
	case *ir.IsSetStmt:
		use(s.Source)
	case *ir.IsDefinedStmt:
		uses = append(uses, s.Source)
	case *ir.IsUndefinedStmt:
		uses = append(uses, s.Source)
	case *ir.ArrayAppendStmt:
		use(s.Value)
		uses = append(uses, s.Array)
	case *ir.ObjectInsertStmt:
		use(s.Key, s.Value)
		uses = append(uses, s.Object)
	case *ir.ObjectInsertOnceStmt:
		use(s.Key, s.Value)
		uses = append(uses, s.Object)
	case *ir.ObjectMergeStmt:
		uses = append(uses, s.A, s.B)
		defs = append(defs, s.Target)
	case *ir.SetAddStmt:
		use(s.Value)
		uses = append(uses, s.Set)
	case *ir.WithStmt:
		use(s.Value)
		uses = append(uses, s.Local)
		defs = append(defs, s.Local)
	case *ir.ResultSetAddStmt:
		uses = append(uses, s.Value)
	}
	return defs, uses
}

func countLocals(blocks []*ir.Block) int {
	n := int(ir.Unused)
	for _, b := range blocks {
		visit(b, func(s ir.Stmt) {
			defs, uses := access(s)
			for _, l := range append(defs, uses...) {
				n = max(n, int(l)+1)
			}
		})
	}
	return n
}
