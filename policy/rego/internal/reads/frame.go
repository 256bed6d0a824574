package reads

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ir"
)

// A frame is one function or plan that runs, and its locals.
//
// Statements are run one after the other, so a local holds what was last
// assigned to it. A block can be left anywhere, so after a block its locals may
// hold all that they held in it, or before.
type frame struct {
	fn     *ir.Func // nil for a plan
	locals []local
	clock  int // counts assignments and turns of loops

	// log is what was assigned in the blocks that are not left yet, with what was
	// there before.
	log []entry
	// turn counts the blocks that were left.
	turn int
	// spilled is the values of locals that hold spill, each once.
	spilled map[ir.Local]map[value]bool

	loop loop
	// left is what the bodies of the outermost loop that runs, and of those in it,
	// leave behind for their next turn.
	left map[*ir.ScanStmt]map[ir.Local]value
	// again says that something was added to left.
	again bool

	result value
	// resultAt is the statement that assigns the result.
	resultAt *ir.Location
	// answers is where the results of rules that a plan calls were assigned: a
	// better place to name than the query.
	answers map[*node]*ir.Location
}

type local struct {
	value value
	born  int // clock when it was assigned
	left  int // turn of the block that it was assigned in and that was left last

	// The oldest value that was read since the outermost loop began, as the clock
	// when it was assigned, and the clock when that loop began.
	oldest, outermost int
}

type entry struct {
	local ir.Local
	value value
	born  int
}

// loop is the innermost loop that runs: when its body and that of the outermost
// loop around it began. Outside of loops it is zero.
type loop struct{ began, outermost int }

// newFrame returns a frame for a function, in the memory of one that was run.
func (a *analysis) newFrame(fn *ir.Func) *frame {
	last := len(a.spare) - 1
	if last < 0 {
		return &frame{fn: fn}
	}
	f := a.spare[last]
	a.spare = a.spare[:last]
	*f = frame{fn: fn, locals: f.locals[:0], log: f.log[:0]}
	return f
}

// run runs the blocks of a frame on arguments.
func (a *analysis) run(f *frame, blocks []*ir.Block, params []ir.Local, args []value) {
	caller, at := a.frame, a.at
	a.frame = f
	f.clock, f.result = 1, none
	for i, l := range params {
		f.assign(l, args[i])
	}
	f.log = f.log[:0]
	a.blocks(blocks)
	a.frame, a.at = caller, at
}

// at returns a local, which holds nothing if it was not assigned to.
func (f *frame) at(l ir.Local) *local {
	for int(l) >= len(f.locals) {
		f.locals = append(f.locals, local{})
	}
	return &f.locals[l]
}

// get returns what a local holds.
func (a *analysis) get(l ir.Local) value {
	if l < 0 {
		return a.everything()
	}
	f := a.frame
	x := f.at(l)
	if x.born < f.loop.began {
		if x.outermost != f.loop.outermost {
			x.outermost, x.oldest = f.loop.outermost, x.born
		}
		x.oldest = min(x.oldest, x.born)
	}
	if x.value == spill {
		for v := range f.spilled[l] {
			a.read(v, "is one of too many values to be followed")
		}
		clear(f.spilled[l])
		x.value = perhaps
	}
	return x.value
}

// assign lets a local hold v and nothing else, until the block is left.
func (f *frame) assign(l ir.Local, v value) {
	if l < 0 {
		return // get gives up on it
	}
	if x := f.at(l); x.value != v {
		f.clock++
		f.log = append(f.log, entry{l, x.value, x.born})
		x.value, x.born = v, f.clock
	}
}

// leave ends a block that began when the log had this length. It may have been
// left anywhere, so a local that it assigned to may hold any value it had since.
func (a *analysis) leave(began int) {
	f := a.frame
	if a.look(len(f.log) - began); a.input.whole {
		f.log = f.log[:began]
		return
	}
	f.turn++
	kept := began
	for _, e := range f.log[began:] {
		x := f.at(e.local)
		x.value, x.born = a.either(e.local, x.value, e.value), min(x.born, e.born)
		if x.left != f.turn {
			x.left = f.turn
			f.log[kept] = e // what was there before the block, for those around it
			kept++
		}
	}
	f.log = f.log[:kept]
}

// either joins two values that a local may hold. If there is too much to tell
// apart they are put aside, to be read only if the local is: most locals mean
// nothing after their block.
func (a *analysis) either(l ir.Local, x, y value) value {
	if x != spill && y != spill {
		if v, ok := a.join(x, y); ok {
			return v
		}
	}
	f := a.frame
	if f.spilled == nil {
		f.spilled = map[ir.Local]map[value]bool{}
	}
	if f.spilled[l] == nil {
		f.spilled[l] = map[value]bool{}
	}
	for _, v := range []value{x, y} {
		if v != spill {
			f.spilled[l][v] = true
		}
	}
	return spill
}

// maxTurns is how often an outermost loop is run until it adds nothing: twice for
// nearly all that OPA's planner makes.
const maxTurns = 10

// scan runs a loop. An outermost one is run, with those in it, until no turn
// leaves anything new behind for the next.
func (a *analysis) scan(s *ir.ScanStmt) {
	f := a.frame
	a.read(a.get(s.Source), "is iterated")
	if f.loop.outermost != 0 {
		a.turn(s)
		return
	}
	clear(f.left)
	for range maxTurns {
		f.again = false
		a.turn(s)
		if !f.again || a.input.whole {
			return
		}
	}
	a.widen(a.input, "is too entangled in loops to be followed")
}

// turn runs the body of a loop once, with all that its earlier turns may have
// left.
func (a *analysis) turn(s *ir.ScanStmt) {
	f := a.frame
	around, began := f.loop, len(f.log)
	f.clock++
	f.loop.began = f.clock
	if around.outermost == 0 {
		f.loop.outermost = f.clock
	}
	a.look(len(f.left[s]))
	for l, v := range f.left[s] {
		f.assign(l, a.merge(a.get(l), v))
	}
	f.assign(s.Key, known)
	f.assign(s.Value, known)
	a.block(s.Block)
	a.leave(began)

	for _, e := range f.log[began:] {
		// What the body reads only after it was assigned in the same turn is not
		// left for the next.
		x := f.at(e.local)
		if x.outermost != f.loop.outermost || x.oldest >= f.loop.began {
			continue
		}
		left, before := a.get(e.local), e.value
		if before == spill {
			before = perhaps // get has read it
		}
		earlier, ok := f.left[s][e.local]
		if !ok {
			earlier = none
		}
		if left != a.merge(before, earlier) {
			f.leaves(s, e.local, left)
		}
	}
	f.loop = around
}

func (f *frame) leaves(s *ir.ScanStmt, l ir.Local, v value) {
	if f.left == nil {
		f.left = map[*ir.ScanStmt]map[ir.Local]value{}
	}
	if f.left[s] == nil {
		f.left[s] = map[ir.Local]value{}
	}
	f.left[s][l] = v
	f.again = true
}

// with runs a block with a part of a local replaced, which is nearly always the
// input or data.
func (a *analysis) with(s *ir.WithStmt) {
	f := a.frame
	before, replaced := a.get(s.Local), a.operand(s.Value)
	if s.Local < 0 {
		return
	}
	if len(s.Path) > 0 {
		path := make([]Key, len(s.Path))
		for i, index := range s.Path {
			if index < 0 || index >= len(a.texts) {
				a.everything()
				return
			}
			path[i] = Key{Kind: String, Text: a.texts[index].Value}
		}
		replaced = a.patch(before, path, replaced)
	}
	began, was := len(f.log), *f.at(s.Local)
	f.assign(s.Local, replaced)
	a.block(s.Block)
	a.leave(began)

	// However the block is left, the local is as it was.
	x := f.at(s.Local)
	x.value, x.born = was.value, was.born
	f.log = append(f.log[:began], slices.DeleteFunc(f.log[began:], func(e entry) bool { return e.local == s.Local })...)
}
