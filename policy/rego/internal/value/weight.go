package value

import "github.com/microwall/microwall/policy"

// Size is what a value amounts to.
type Size struct {
	// Values counts the value itself and all in it, keys included.
	Values int64
	// Text is how many bytes the strings take, and four times those of the numbers
	// that have a spelling of their own: these are calculated with.
	Text int64
	// Depth is how many composites the deepest value is in.
	Depth int64
}

// Weight says how long it takes to look at all of a value of that size: 1 for each
// value, and 1 for as many bytes of text as are hashed or compared in that time.
func (s Size) Weight() int64 { return s.Values + s.Text/64 }

// Weight is the weight of v's size; it stops counting soon after limit.
func (v Value) Weight(limit int64) int64 {
	switch {
	case v.IsComposite():
		w := weigher{left: limit}
		w.add(v)
		return w.size().Weight()
	case v.Kind() == String || v.form() == spelled:
		return 1 + int64(v.textSize()/64)
	}
	return 1
}

// portion is how much is measured between two charges.
const portion = 1 << 12

// Measure returns the size of v. It charges for measuring it, in portions of
// weight, and stops when charge returns an error, which it returns.
func (v Value) Measure(charge func(weight int64) error) (Size, error) {
	w := weigher{left: portion, charge: charge}
	if w.add(v); w.err == nil {
		w.err = charge(portion - w.left)
	}
	return w.size(), w.err
}

// weigher adds up what a value amounts to.
type weigher struct {
	values, text   int64
	depth, deepest int64
	left           int64 // of the limit, or the portion
	charge         func(weight int64) error
	err            error
}

func (w *weigher) size() Size { return Size{Values: w.values, Text: w.text, Depth: w.deepest} }

// over reports whether to stop.
func (w *weigher) over() bool {
	if w.left >= 0 {
		return false
	}
	if w.charge != nil && w.err == nil {
		w.err = w.charge(portion - w.left)
		w.left = portion
	}
	return w.charge == nil || w.err != nil
}

// textSize is what a value that is no composite adds to Size.Text.
func (v Value) textSize() int {
	switch {
	case v.Kind() == String:
		return int(v.num)
	case v.form() == spelled:
		return int(v.num) * 4
	}
	return 0
}

func (w *weigher) one(text int) {
	w.values++
	w.text += int64(text)
	w.left -= 1 + int64(text/64)
}

func (w *weigher) add(v Value) {
	if !v.IsComposite() {
		w.one(v.textSize())
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
