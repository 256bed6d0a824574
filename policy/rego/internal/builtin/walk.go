package builtin

import "github.com/microwall/microwall/policy/rego/internal/value"

var walking = []*Builtin{{Name: "walk", Func: walk, Total: true}}

// walk is a relation: it gives the array of [path, value] of its operand and of
// all that is in it, each before what is in it.
func walk(c *Call, args []value.Value) (value.Value, error) {
	w := walker{c: c, found: value.NewArray()}
	err := w.visit(args[0])
	return w.found, err
}

type walker struct {
	c     *Call
	path  []value.Value
	found value.Value
}

func (w *walker) visit(v value.Value) error {
	if err := w.c.Work(4, int64(len(w.path)+5)*elemBytes); err != nil {
		return err
	}
	path := value.NewArray(append([]value.Value(nil), w.path...)...)
	w.found.Append(value.NewArray(path, v))
	if !v.IsComposite() {
		return nil
	}
	members, err := w.c.scan(v)
	if err != nil {
		return err
	}
	var key, elem value.Value
	for members.Next(&key, &elem) {
		w.path = append(w.path, key)
		err := w.visit(elem)
		w.path = w.path[:len(w.path)-1]
		if err != nil {
			return err
		}
	}
	return nil
}
