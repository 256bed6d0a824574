package front

import (
	"errors"

	"github.com/open-policy-agent/opa/v1/ast"
)

func (r *rehearsal) planRef(ref ast.Ref, iter func()) {
	head, ok := ref[0].Value.(ast.Var)
	if !ok {
		panic(unplannable{at: r.at})
	}
	if head == "data" {
		r.planRefData(r.rules.child(head), nil, ref, 1, iter)
		return
	}
	if ref.Equal(ast.InputRootRef) {
		r.append(1)
	}
	if !r.isSeen(head) {
		panic(unplannable{at: r.at})
	}
	r.planRefRec(ref, 1, iter)
}

func (r *rehearsal) planRefRec(ref ast.Ref, i int, iter func()) {
	if i == len(ref) {
		r.target = operand{} // what was looked up, or a local that it starts from
		iter()
		return
	}
	next := func() { r.planRefRec(ref, i+1, iter) }
	if r.hasUnseen(ref[i]) {
		r.planScan(ref[i], next)
		return
	}
	r.planTerm(ref[i], func() {
		r.append(1)
		next()
	})
}

func (r *rehearsal) hasUnseen(t *ast.Term) (unseen bool) {
	ast.WalkVars(t, func(v ast.Var) bool {
		unseen = unseen || !r.isSeen(v)
		return unseen
	})
	return unseen
}

// planScan is planScan and planScanValues.
func (r *rehearsal) planScan(key *ast.Term, iter func()) {
	r.append(1)
	r.looped(func() { r.planUnifyLocal(operand{}, key, iter) })
}

// planRefData plans what a reference into data may mean below a node of the
// rules; nil if there are none. The path is where in the base document it
// stands.
func (r *rehearsal) planRefData(virtual *trie, path ast.Ref, ref ast.Ref, i int, iter func()) {
	r.enter()
	defer r.leave()
	if i >= len(ref) {
		r.planRefDataExtent(virtual, path, true, iter)
		return
	}
	if i == 1 && virtual != nil {
		if nodes, depth, ok := r.optimizeLookup(virtual, ref); ok {
			if len(nodes) == 0 {
				r.planRefData(nil, path, ref, 1, iter)
				return
			}
			for _, n := range nodes {
				r.planRules(n)
			}
			r.append(2)
			r.planRefRec(ref[:depth+1], 1, func() {
				r.append(6)
				r.planRefRec(ref, depth+1, iter)
			})
			return
		}
	}
	if ref[i].IsGround() {
		child := virtual.child(ref[i].Value)
		if child != nil && len(child.rules) > 0 {
			r.planRules(child)
			r.work(r.arguments())
			r.append(1)
			r.planRefRec(ref, i+1, iter)
			return
		}
		r.planRefData(child, append(path, ref[i]), ref, i+1, iter)
		return
	}
	if virtual != nil {
		r.append(1)
		keys := virtual.keys()
		r.work(sorting(len(keys)) + len(keys)*len(ref)/4)
		for _, key := range keys {
			r.scoped(func() {
				r.planUnifyLocal(operand{isText, string(key.(ast.String))}, ref[i], func() {
					plugged := ref.Copy()
					plugged[i] = ast.NewTerm(key)
					r.planRefData(virtual, path, plugged, i, iter)
				})
			})
		}
		if len(keys) > 0 {
			r.append(1 + len(keys)) // the keys that the scan leaves out
			r.planRefRec(path, 0, func() {
				r.planScan(ref[i], func() {
					r.append(2)
					r.planRefData(nil, nil, ref, i+1, iter)
				})
			})
			return
		}
	}
	r.planRefRec(append(path, ref[i]), 0, func() { r.planRefData(nil, nil, ref, i+1, iter) })
}

func (r *rehearsal) planRefDataExtent(virtual *trie, path ast.Ref, base bool, iter func()) {
	r.enter()
	defer r.leave()
	if virtual != nil {
		r.append(1)
		keys := virtual.keys()
		r.work(sorting(len(keys)))
		for _, key := range keys {
			child := virtual.child(key)
			switch {
			case child.isFunction():
			case len(child.rules) == 0:
				r.planRefDataExtent(child, nil, false, func() { r.append(1) })
			default:
				r.planRules(child)
				r.work(r.arguments())
				r.append(3)
			}
		}
		if !base {
			r.target = operand{}
			iter()
			return
		}
	}
	r.planRefRec(path, 0, func() {
		if virtual != nil {
			r.append(1)
		}
		r.append(1)
	})
	r.append(3)
	r.target = operand{}
	iter()
}

// errDepths is what the planner does not notice.
var errDepths = errors.New("this refers to rules by a variable, and some of them have a variable in their own name where others go on with a constant; write the constant ones as one object, for instance `a.doc := {\"all\": true}` for `a.doc.all := true`")

// goesOn reports whether a step of a reference may lead to a child of a node.
func (r *rehearsal) goesOn(n *trie, step *ast.Term) bool {
	if _, ok := step.Value.(ast.Var); ok {
		return len(n.children) > 0
	}
	return n.child(step.Value) != nil
}

// optimizeLookup returns the nodes of the rules that a reference calls
// dynamically, and up to which part of it; not ok if it is not planned like
// that. Not ok is what the planner prints about at length.
func (r *rehearsal) optimizeLookup(t *trie, ref ast.Ref) (nodes []*trie, depth int, ok bool) {
	r.work(len(ref) / 8)
	nodes = []*trie{t}
	dynamic := false
descend:
	for i := 1; i < len(ref); i++ {
		depth = i
		var next []*trie
		for _, n := range nodes {
			if len(n.rules) > 0 {
				r.work(2 * len(n.rules))
			}
		}
		switch v := ref[i].Value.(type) {
		case ast.Var:
			if !r.isSeen(v) {
				return nil, 0, false
			}
			dynamic = true
			for _, n := range nodes {
				if len(n.rules) > 0 {
					return nil, 0, false
				}
				r.work(sorting(len(n.children)))
				for _, key := range n.keys() {
					next = append(next, n.child(key))
				}
			}
		case ast.String:
			for _, n := range nodes {
				if len(n.rules) > 0 {
					return nil, 0, false
				}
				if child := n.child(v); child != nil {
					next = append(next, child)
				}
			}
		default:
			return nil, 0, false
		}
		nodes = next
		r.work(len(nodes))

		relevant := 0
		if i < len(ref)-1 {
			for _, n := range nodes {
				if _, ok := ref[i+1].Value.(ast.Var); ok {
					relevant += len(n.children)
				} else if n.child(ref[i+1].Value) != nil {
					relevant++
				}
			}
		}
		if relevant == 0 {
			break
		}
		if i == len(ref)-2 {
			for _, n := range nodes {
				r.work(len(n.rules))
				for _, rule := range n.rules {
					if !rule.Ref().IsGround() {
						break descend
					}
				}
			}
		}
	}
	if !dynamic {
		return nil, 0, false
	}
	var withRules []*trie
	for _, n := range nodes {
		if depth < len(ref)-1 && len(n.rules) == 0 && r.goesOn(n, ref[depth+1]) {
			// The planner (v1.22.2) takes this one for data, and its rules for nothing.
			panic(&Unplannable{File: r.at.File, Line: r.at.Row, Err: errDepths})
		}
		if depth == len(ref)-1 && len(n.rules) == 0 && len(n.children) > 0 {
			return nil, 0, false
		}
		if len(n.rules) > 0 {
			withRules = append(withRules, n)
		}
	}
	return withRules, depth, true
}
