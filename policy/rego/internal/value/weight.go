package value

import "github.com/microwall/microwall/policy"

// Size is what a value amounts to.
type Size struct {
	// Values counts the value itself and all in it, keys included.
	Values int64
	// Text is how many bytes the strings take, and the numbers that have a spelling
	// of their own.
	Text int64
	// Depth is how many composites the deepest value is in.
	Depth int64
}

// Weight says how long it takes to look at all of a value of that size: 1 for each
// value, and 1 for as many bytes of text as are hashed or compared in that time.
func (s Size) Weight() int64 { return s.Values + s.Text/64 }

// Size counts, until the weight is over limit.
func (v Value) Size(limit int64) Size {
	w := weigher{left: limit}
	w.add(v)
	return Size{Values: w.values, Text: w.text, Depth: w.deepest}
}

// Weight is v.Size(limit).Weight().
func (v Value) Weight(limit int64) int64 {
	switch {
	case v.IsComposite():
		return v.Size(limit).Weight()
	case v.Kind() == String || v.form() == spelled:
		return 1 + int64(v.num/64)
	}
	return 1
}

// weigher adds up what a value amounts to.
type weigher struct {
	values, text   int64
	depth, deepest int64
	left           int64 // of the limit
}

func (w *weigher) over() bool { return w.left < 0 }

func (w *weigher) one(text int) {
	w.values++
	w.text += int64(text)
	w.left -= 1 + int64(text/64)
}

func (w *weigher) add(v Value) {
	if !v.IsComposite() {
		n := 0
		if v.Kind() == String || v.form() == spelled {
			n = int(v.num)
		}
		w.one(n)
		return
	}
	w.one(0)
	w.depth++
	w.deepest = max(w.deepest, w.depth)
	w.members(v)
	w.depth--
}

func (w *weigher) members(v Value) {
	switch v.form() {
	case built:
		if l, ok := v.ref.(*list); ok {
			w.all(l.elems)
		} else {
			t := v.ref.(*table)
			w.all(t.keys)
			w.all(t.vals)
		}
	case held:
		w.held(v)
	default:
		c := v.members()
		var key, val Value
		for !w.over() && c.Next(&key, &val) {
			if v.Kind() == Object {
				w.add(key)
			}
			w.add(val)
		}
	}
}

func (w *weigher) all(list []Value) {
	for i := range list {
		if w.over() {
			return
		}
		w.add(list[i])
	}
}

// held reads a composite of a request in whatever order it comes.
func (w *weigher) held(v Value) {
	switch ref := v.ref.(type) {
	case map[string]any:
		for name, x := range ref {
			if w.over() {
				return
			}
			w.one(len(name))
			w.add(fromGo(x))
		}
	case policy.Composite:
		if v.Kind() == Array {
			w.elems(v)
			return
		}
		for name := range ref.Names() {
			if w.over() {
				return
			}
			w.one(len(name))
			w.add(FromPolicy(ref.Get(name)))
		}
	default:
		w.elems(v)
	}
}

func (w *weigher) elems(v Value) {
	for i := 0; i < v.Len() && !w.over(); i++ {
		w.add(v.Elem(i))
	}
}
