package reads

import (
	"strconv"

	"github.com/open-policy-agent/opa/v1/ir"
)

// blocks runs blocks one after the other. Any of them may end early.
func (a *analysis) blocks(blocks []*ir.Block) {
	for _, b := range blocks {
		began := len(a.frame.log)
		a.block(b)
		a.leave(began)
	}
}

func (a *analysis) block(b *ir.Block) {
	if b == nil {
		return
	}
	for _, s := range b.Stmts {
		a.look(1)
		if a.input.whole {
			return // there is nothing to add
		}
		a.steps++
		a.at = s.GetLocation()
		a.statement(s)
	}
}

// statement runs one statement: what it reads, and what its target holds if it
// does not end the block.
func (a *analysis) statement(s ir.Stmt) {
	f := a.frame
	switch s := s.(type) {
	// What moves values.
	case *ir.DotStmt:
		f.assign(s.Target, a.dot(a.operand(s.Source), a.operand(s.Key)))
	case *ir.AssignVarStmt:
		f.assign(s.Target, a.operand(s.Source))
	case *ir.AssignVarOnceStmt:
		f.assign(s.Target, a.once(a.get(s.Target), a.operand(s.Source)))
		if f.fn != nil && s.Target == f.fn.Return {
			f.resultAt = a.at
		}
	case *ir.ResetLocalStmt:
		f.assign(s.Target, unset)
	case *ir.ReturnLocalStmt:
		f.result = a.merge(f.result, a.get(s.Source))
	case *ir.CallStmt:
		f.assign(s.Result, a.call(s))
	case *ir.CallDynamicStmt:
		f.assign(s.Result, a.callDynamic(s))

	// Whether a local was assigned to follows from what was read before, so it is
	// the same for inputs that agree.
	case *ir.IsDefinedStmt:
		f.assign(s.Source, a.defined(a.get(s.Source)))
	case *ir.IsUndefinedStmt:
		f.assign(s.Source, unset)

	// What reads.
	case *ir.EqualStmt:
		a.read(a.operand(s.A), "is compared")
		a.read(a.operand(s.B), "is compared")
	case *ir.NotEqualStmt:
		a.read(a.operand(s.A), "is compared")
		a.read(a.operand(s.B), "is compared")
	case *ir.IsArrayStmt:
		a.read(a.operand(s.Source), "is tested for its type")
	case *ir.IsObjectStmt:
		a.read(a.operand(s.Source), "is tested for its type")
	case *ir.IsSetStmt:
		a.read(a.operand(s.Source), "is tested for its type")
	case *ir.LenStmt:
		f.assign(s.Target, a.read(a.operand(s.Source), "is counted"))
	case *ir.ResultSetAddStmt:
		a.read(a.get(s.Value), "is part of the answer")

	// What makes constants.
	case *ir.AssignIntStmt:
		f.assign(s.Target, a.constant(Key{Number, strconv.FormatInt(s.Value, 10)}))
	case *ir.MakeNumberIntStmt:
		f.assign(s.Target, a.constant(Key{Number, strconv.FormatInt(s.Value, 10)}))
	case *ir.MakeNumberRefStmt:
		f.assign(s.Target, a.number(s.Index))
	case *ir.MakeNullStmt:
		f.assign(s.Target, a.constant(Key{Kind: Null}))

	// What makes values of others. Only arrays of constants are known in detail,
	// for object.get; the planner hands an array on only when it is complete.
	case *ir.MakeArrayStmt:
		f.assign(s.Target, a.array(int(s.Capacity)))
	case *ir.MakeObjectStmt:
		f.assign(s.Target, known)
	case *ir.MakeSetStmt:
		f.assign(s.Target, known)
	case *ir.ArrayAppendStmt:
		f.assign(s.Array, a.extend(a.get(s.Array), a.operand(s.Value)))
	case *ir.ObjectInsertStmt:
		a.insert(s.Object, a.operand(s.Key), a.operand(s.Value))
	case *ir.ObjectInsertOnceStmt:
		a.insert(s.Object, a.operand(s.Key), a.operand(s.Value))
	case *ir.SetAddStmt:
		a.read(a.operand(s.Value), "is put into a set")
		f.assign(s.Set, a.read(a.get(s.Set), "is put into a set"))
	case *ir.ObjectMergeStmt:
		a.read(a.get(s.A), "is merged")
		f.assign(s.Target, a.read(a.get(s.B), "is merged"))

	// What nests.
	case *ir.BlockStmt:
		a.blocks(s.Blocks)
	case *ir.NotStmt:
		a.blocks([]*ir.Block{s.Block})
	case *ir.ScanStmt:
		a.scan(s)
	case *ir.WithStmt:
		a.with(s)

	case *ir.BreakStmt, *ir.NopStmt: // leave has thought of it
	default:
		a.everything()
	}
}

// dot looks into v, with a key that may not be constant.
func (a *analysis) dot(v, key value) value {
	if src, ok := a.single(key); ok && src.kind == isConstant {
		return a.lookup(v, src.key)
	}
	keys, constant := a.keys(key)
	if !constant {
		a.read(key, "is used as a key")
		return a.read(v, "is looked into with a key that is not constant")
	}
	found := none
	for _, k := range keys {
		found = a.merge(found, a.lookup(v, k))
	}
	return found
}

// once returns what a local that held old holds when v is assigned to it once. If
// it held a value already, the two are compared.
func (a *analysis) once(old, v value) value {
	old = a.set(old)
	if old == none {
		return v
	}
	if src, ok := a.single(v); ok && v == old && src.kind != isPatched {
		return v // one and the same
	}
	const why = "is compared with another result for the same name"
	a.read(old, why)
	return a.read(v, why)
}

// array returns an empty array. The planner gives those of comprehensions, which
// grow in loops, no capacity.
func (a *analysis) array(capacity int) value {
	if capacity == 0 {
		return known
	}
	return a.only(source{kind: isList, base: none})
}

// extend returns an array with v appended.
func (a *analysis) extend(array, v value) value {
	list, ok := a.single(array)
	element, constant := a.single(v)
	if ok && list.kind == isList && constant && element.kind == isConstant && a.depth(array) <= maxList {
		return a.only(source{kind: isList, base: array, key: element.key})
	}
	a.read(v, "is put into an array")
	return a.read(array, "is put into an array")
}

// insert puts a member into the object in a local.
func (a *analysis) insert(object ir.Local, key, v value) {
	a.read(key, "is put into an object")
	a.read(v, "is put into an object")
	a.frame.assign(object, a.read(a.get(object), "is put into an object"))
}
