package exec

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// region is what is known of the locals of one rule.
type region struct {
	locals map[ir.Local]*local
	// spans are where blocks stand.
	spans map[*ir.Block]span
	// constants are locals that have one value throughout.
	constants map[ir.Local]value.Value
	// alias are locals that are only another name for a local.
	alias map[ir.Local]ir.Local
	// base are locals that a path into the data document leads to.
	base map[ir.Local]footing
	// shared are locals that other regions set or read.
	shared map[ir.Local]bool
	// until are loops that are over once a local is set.
	until map[*ir.ScanStmt]ir.Local
	numbers
}

// local is how a region sets and reads a local.
type local struct {
	// sets are the positions of the statements that set it, in order; trues are
	// those that set it to true.
	sets, trues []int
	// reads counts the statements that read it. The first and the last one stand at
	// these positions.
	reads, first, last int
	// uses are the reads, and those of its aliases.
	uses int
	// asked is set if a statement asks whether it has a value.
	asked bool
	// other is set if it is ever set to anything but a new set, object or array.
	other bool
}

var unused = &local{}

// of returns how a local is used, which must not be changed.
func (r *region) of(l ir.Local) *local {
	if k, ok := r.locals[l]; ok {
		return k
	}
	return unused
}

func (r *region) at(l ir.Local) *local {
	k, ok := r.locals[l]
	if !ok {
		k = &local{}
		r.locals[l] = k
	}
	return k
}

// isMade reports whether a local is only ever set to a new set, object or array.
func (r *region) isMade(l ir.Local) bool {
	k := r.of(l)
	return len(k.sets) > 0 && !k.other
}

// within reports whether one of some positions, which are in order, is in a span.
func within(positions []int, s span) bool {
	i, _ := slices.BinarySearch(positions, s.from)
	return i < len(positions) && positions[i] < s.to
}

// enter makes a block the region that is being compiled.
func (c *compiler) enter(b *ir.Block) {
	if r, ok := c.regionsOf[b]; ok {
		c.region = r
		return
	}
	r := &region{
		locals: map[ir.Local]*local{}, spans: map[*ir.Block]span{}, constants: map[ir.Local]value.Value{},
		alias: map[ir.Local]ir.Local{}, base: map[ir.Local]footing{ir.Data: inBase}, shared: c.shared, until: map[*ir.ScanStmt]ir.Local{},
	}
	c.region, c.regionsOf[b] = r, r
	r.survey(c, b, 0)
	r.findAliases(c, b)
	r.findBase(c, b)
	made := map[ir.Local]int{} // changes that are in the constants
	r.foldConstants(c, b, made)
	r.dropChanged(c, b, made)
	for _, v := range r.constants {
		value.Freeze(v)
	}
	r.findEnds(c, b)
}

// survey notes where each local is set and read, and where blocks stand. It
// returns the position after the block.
func (r *region) survey(c *compiler, b *ir.Block, at int) int {
	if _, twice := r.spans[b]; twice {
		c.errorf("a block stands twice in a plan")
		return at
	}
	from := at
	r.spans[b] = span{from, from}
	for _, s := range b.Stmts {
		c.went()
		defs(s, func(l ir.Local) {
			k := r.at(l)
			k.sets = append(k.sets, at)
			switch s := s.(type) {
			case *ir.MakeSetStmt, *ir.MakeObjectStmt, *ir.MakeArrayStmt:
				return
			case *ir.AssignVarStmt:
				if s.Source.Value == ir.Bool(true) {
					k.trues = append(k.trues, at)
				}
			}
			k.other = true
		})
		uses(s, func(l ir.Local) {
			k := r.at(l)
			if k.reads == 0 {
				k.first = at
			}
			k.last = at
			k.reads++
			k.uses++
			switch s.(type) {
			case *ir.IsDefinedStmt, *ir.IsUndefinedStmt:
				k.asked = true
			}
		})
		at++
		for _, inner := range blocksOf(s) {
			at = r.survey(c, inner, at)
		}
	}
	r.spans[b] = span{from, at}
	return at
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
		if len(r.of(l).sets) == 1 && !r.shared[l] {
			r.constants[l], building[l] = v, true
		}
	}
	for _, s := range b.Stmts {
		c.went()
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
func (r *region) dropChanged(c *compiler, b *ir.Block, made map[ir.Local]int) {
	changes := map[ir.Local]int{}
	holders := map[ir.Local][]ir.Local{}
	c.visit(b, func(s ir.Stmt) {
		target, ok := change(s)
		if !ok {
			return
		}
		changes[target]++
		uses(s, func(l ir.Local) {
			if l != target {
				holders[l] = append(holders[l], target)
			}
		})
	})
	var dropped []ir.Local
	drop := func(l ir.Local) {
		if _, ok := r.constants[l]; ok {
			delete(r.constants, l)
			dropped = append(dropped, l)
		}
	}
	for held, by := range holders {
		if _, constant := r.constants[held]; !constant {
			for _, l := range by {
				drop(l)
			}
		}
	}
	for l, n := range changes {
		if n != made[l] {
			drop(l)
		}
	}
	for len(dropped) > 0 {
		c.went()
		l := dropped[len(dropped)-1]
		dropped = dropped[:len(dropped)-1]
		for _, by := range holders[l] {
			drop(by)
		}
	}
}

// findAliases finds locals that are set once to another local that is set once,
// and are read only where that has happened: in the same block, below.
func (r *region) findAliases(c *compiler, b *ir.Block) {
	for at, s := range c.statements(b) {
		for _, inner := range blocksOf(s) {
			r.findAliases(c, inner)
		}
		assign, ok := s.(*ir.AssignVarStmt)
		if !ok {
			continue
		}
		from, ok := assign.Source.Value.(ir.Local)
		to := assign.Target
		if !ok || from == ir.Input || from == ir.Data || r.shared[from] || r.shared[to] {
			continue
		}
		name := r.of(to)
		if len(r.of(from).sets) != 1 || len(name.sets) != 1 || name.asked || !name.readIn(span{at + 1, r.spans[b].to}) {
			continue
		}
		for root, ok := r.alias[from]; ok; root, ok = r.alias[from] {
			from = root
		}
		r.alias[to] = from
		r.locals[from].uses += name.uses - 1
	}
}

// readIn reports whether all that reads a local stands in a span.
func (k *local) readIn(s span) bool {
	return k.reads == 0 || s.from <= k.first && k.last < s.to
}

// named returns the local that l is a name for.
func (r *region) named(l ir.Local) ir.Local {
	if of, ok := r.alias[l]; ok {
		return of
	}
	return l
}

// foldable reports whether a local is set once and read once, so that what it is
// set to can be computed where it is read.
func (r *region) foldable(l ir.Local) bool {
	k := r.of(l)
	return len(k.sets) == 1 && k.uses == 1
}

// condition returns the local that says whether a body has held: its block sets it
// to true, and asks for it at the end. Where the body can never hold, the block
// only asks.
func (r *region) condition(b *ir.Block) (int, bool) {
	if len(b.Stmts) == 0 {
		return 0, false
	}
	asked, ok := b.Stmts[len(b.Stmts)-1].(*ir.IsDefinedStmt)
	if !ok {
		return 0, false
	}
	k, in := r.of(asked.Source), r.spans[b]
	return int(asked.Source), within(k.trues, in) || !within(k.sets, in) && asked.Source > ir.Data
}
