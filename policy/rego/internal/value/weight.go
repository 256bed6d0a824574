package value

import "github.com/microwall/microwall/policy"

// How much of a text counts as much as a value does: as many bytes as are hashed
// or compared in the time that a step is.
const (
	textWeight    = 64
	numeralWeight = 16
)

// Weight says how long it takes to look at all of v: 1 for each value in it, keys
// included, and more for long texts and for numbers of many digits. It stops
// counting soon after limit.
func (v Value) Weight(limit int64) int64 {
	switch v.Kind() {
	case String:
		return 1 + int64(v.num/textWeight)
	case Number:
		if v.form() == spelled {
			return 1 + int64(v.num/numeralWeight)
		}
		return 1
	case Array, Object, Set:
		w := weigher{limit: limit}
		w.add(v)
		return w.sum
	}
	return 1
}

// weigher adds weights up.
type weigher struct {
	sum, limit int64
}

func (w *weigher) add(v Value) {
	if !v.IsComposite() {
		w.sum += v.Weight(0)
		return
	}
	w.sum++
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
		for w.sum <= w.limit && c.Next(&key, &val) {
			if v.Kind() == Object {
				w.add(key)
			}
			w.add(val)
		}
	}
}

func (w *weigher) all(list []Value) {
	for i := range list {
		if w.sum > w.limit {
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
			if w.sum > w.limit {
				return
			}
			w.sum += 1 + int64(len(name)/textWeight)
			w.add(fromGo(x))
		}
	case policy.Composite:
		if v.Kind() == Array {
			w.elems(v)
			return
		}
		for name := range ref.Names() {
			if w.sum > w.limit {
				return
			}
			w.sum += 1 + int64(len(name)/textWeight)
			w.add(FromPolicy(ref.Get(name)))
		}
	default:
		w.elems(v)
	}
}

func (w *weigher) elems(v Value) {
	for i := 0; i < v.Len() && w.sum <= w.limit; i++ {
		w.add(v.Elem(i))
	}
}
