package front

import "github.com/open-policy-agent/opa/v1/ast"

func (r *rehearsal) planUnify(a, b *ast.Term, iter func()) {
	switch va := a.Value.(type) {
	case ast.Null, ast.Boolean, ast.Number, ast.String, ast.Ref, ast.Set, *ast.SetComprehension, *ast.ArrayComprehension, *ast.ObjectComprehension:
		r.planTerm(a, func() { r.planUnifyLocal(r.target, b, iter) })
		return
	case ast.Var:
		r.planUnifyVar(va, b, iter)
		return
	case *ast.Array:
		switch vb := b.Value.(type) {
		case ast.Var:
			r.planUnifyVar(vb, a, iter)
			return
		case ast.Ref, *ast.ArrayComprehension:
			r.planTerm(b, func() { r.planUnifyLocalArray(va, iter) })
			return
		case *ast.Array:
			if va.Len() == vb.Len() {
				r.planUnifyArrays(va, vb, 0, iter)
			}
			return
		}
	case ast.Object:
		switch vb := b.Value.(type) {
		case ast.Var:
			r.planUnifyVar(vb, a, iter)
			return
		case ast.Ref:
			r.planTerm(b, func() { r.planUnifyLocalObject(va, iter) })
			return
		case ast.Object:
			r.planUnifyObjects(va, vb, iter)
			return
		}
	}
	panic(unplannable{at: r.at})
}

func (r *rehearsal) planUnifyVar(a ast.Var, b *ast.Term, iter func()) {
	if r.isSeen(a) {
		r.planUnifyLocal(operand{}, b, iter)
		return
	}
	r.planTerm(b, func() {
		if !r.isSeen(a) {
			r.see(a)
		}
		r.append(1)
		iter()
	})
}

func (r *rehearsal) planUnifyLocal(a operand, b *ast.Term, iter func()) {
	switch vb := b.Value.(type) {
	case ast.String:
		if a.kind == isText {
			if a.text != string(vb) {
				r.append(1)
			}
			iter()
			return
		}
	case ast.Boolean:
		if a.kind == isBool {
			if a != boolean(vb) {
				r.append(1)
			}
			iter()
			return
		}
	}
	switch vb := b.Value.(type) {
	case ast.Null, ast.Boolean, ast.Number, ast.String, ast.Ref, ast.Set, *ast.SetComprehension, *ast.ArrayComprehension, *ast.ObjectComprehension:
		r.planTerm(b, func() {
			r.append(1)
			iter()
		})
	case ast.Var:
		if !r.isSeen(vb) {
			r.see(vb)
		}
		r.append(1)
		iter()
	case *ast.Array:
		r.planUnifyLocalArray(vb, iter)
	case ast.Object:
		r.planUnifyLocalObject(vb, iter)
	default:
		panic(unplannable{at: r.at})
	}
}

func (r *rehearsal) planUnifyLocalArray(b *ast.Array, iter func()) {
	r.append(5)
	r.planUnifyLocalArrayRec(b, 0, iter)
}

func (r *rehearsal) planUnifyLocalArrayRec(b *ast.Array, i int, iter func()) {
	if i == b.Len() {
		iter()
		return
	}
	r.enter()
	defer r.leave()
	r.append(2)
	r.planUnifyLocal(operand{}, b.Elem(i), func() { r.planUnifyLocalArrayRec(b, i+1, iter) })
}

func (r *rehearsal) planUnifyLocalObject(b ast.Object, iter func()) {
	r.append(4)
	r.planUnifyLocalObjectRec(b.Keys(), 0, b, iter)
}

func (r *rehearsal) planUnifyLocalObjectRec(keys []*ast.Term, i int, b ast.Object, iter func()) {
	if i == len(keys) {
		iter()
		return
	}
	r.planTerm(keys[i], func() {
		r.append(1)
		r.planUnifyLocal(operand{}, b.Get(keys[i]), func() { r.planUnifyLocalObjectRec(keys, i+1, b, iter) })
	})
}

func (r *rehearsal) planUnifyArrays(a, b *ast.Array, i int, iter func()) {
	if i == a.Len() {
		iter()
		return
	}
	r.enter()
	defer r.leave()
	r.planUnify(a.Elem(i), b.Elem(i), func() { r.planUnifyArrays(a, b, i+1, iter) })
}

func (r *rehearsal) planUnifyObjects(a, b ast.Object, iter func()) {
	if a.Len() != b.Len() {
		return
	}
	ofA, ofB := ast.NewSet(a.Keys()...), ast.NewSet(b.Keys()...)
	different := ofA.Diff(ofB).Slice()
	r.planUnifyObjectsRec(a, b, ofA.Intersect(ofB).Slice(), 0, func() {
		if len(different) == 0 {
			iter()
			return
		}
		r.planObject(a, func() {
			r.planObject(b, func() { r.planUnifyObjectLocals(different, 0, iter) })
		})
	})
}

func (r *rehearsal) planUnifyObjectsRec(a, b ast.Object, keys []*ast.Term, i int, iter func()) {
	if i == len(keys) {
		iter()
		return
	}
	valueA, valueB := a.Get(keys[i]), b.Get(keys[i])
	if valueA == nil || valueB == nil {
		return
	}
	r.enter()
	defer r.leave()
	r.planUnify(valueA, valueB, func() { r.planUnifyObjectsRec(a, b, keys, i+1, iter) })
}

func (r *rehearsal) planUnifyObjectLocals(keys []*ast.Term, i int, iter func()) {
	if i == len(keys) {
		iter()
		return
	}
	r.planTerm(keys[i], func() {
		r.append(3)
		r.planUnifyObjectLocals(keys, i+1, iter)
	})
}

func (r *rehearsal) planTerm(t *ast.Term, iter func()) {
	r.enter()
	defer r.leave()
	switch v := t.Value.(type) {
	case ast.Null, ast.Number:
		r.append(1)
		r.target = operand{}
		iter()
	case ast.Boolean:
		r.target = boolean(v)
		iter()
	case ast.String:
		r.target = operand{isText, string(v)}
		iter()
	case ast.Var:
		if !r.isSeen(v) {
			r.see(v)
		}
		r.target = operand{}
		iter()
	case ast.Ref:
		r.planRef(v, iter)
	case *ast.Array:
		r.append(1)
		r.planElements(v.Len(), v.Elem, 0, iter)
	case ast.Object:
		r.planObject(v, iter)
	case ast.Set:
		r.append(1)
		elements := v.Slice()
		r.planElements(len(elements), func(i int) *ast.Term { return elements[i] }, 0, iter)
	case *ast.SetComprehension:
		r.planComprehension(t, v.Body, []*ast.Term{v.Term}, iter)
	case *ast.ArrayComprehension:
		r.planComprehension(t, v.Body, []*ast.Term{v.Term}, iter)
	case *ast.ObjectComprehension:
		r.planComprehension(t, v.Body, []*ast.Term{v.Key, v.Value}, iter)
	default:
		panic(unplannable{at: r.at})
	}
}

// planElements is planArrayRec and planSetRec.
func (r *rehearsal) planElements(n int, element func(int) *ast.Term, i int, iter func()) {
	if i == n {
		r.target = operand{}
		iter()
		return
	}
	r.planTerm(element(i), func() {
		r.append(1)
		r.planElements(n, element, i+1, iter)
	})
}

func (r *rehearsal) planObject(o ast.Object, iter func()) {
	r.append(1)
	r.planObjectRec(o, o.Keys(), 0, iter)
}

func (r *rehearsal) planObjectRec(o ast.Object, keys []*ast.Term, i int, iter func()) {
	if i == len(keys) {
		r.target = operand{}
		iter()
		return
	}
	r.planTerm(keys[i], func() {
		r.planTerm(o.Get(keys[i]), func() {
			r.append(1)
			r.planObjectRec(o, keys, i+1, iter)
		})
	})
}

func (r *rehearsal) planComprehension(t *ast.Term, body ast.Body, head []*ast.Term, iter func()) {
	r.append(2) // what makes the collection, and the block
	r.at = t.Loc()
	at := r.at
	r.scoped(func() {
		r.planQuery(body, 0, func() {
			r.planTermSlice(head, 0, func() { r.append(1) })
		})
	})
	r.at = at
	r.target = operand{}
	iter()
}
