package rego_test

import (
	"slices"
	"time"

	"github.com/microwall/microwall/policy"
)

// parts of an input that hold what a caller wants, and those that are texts.
var (
	openParts = []policy.ReadPath{
		{{Name: "action"}, {Name: "properties"}}, {{Name: "context"}}, {{Name: "resource"}, {Name: "properties"}}, {{Name: "subject"}, {Name: "properties"}},
	}
	textParts = []policy.ReadPath{
		{{Name: "action"}, {Name: "name"}}, {{Name: "resource"}, {Name: "id"}}, {{Name: "resource"}, {Name: "type"}}, {{Name: "subject"}, {Name: "id"}}, {{Name: "subject"}, {Name: "type"}},
	}
)

// some of the values: one that is absent, and then one of each type.
var some = []any{absent{}, nil, true, "x", 1, 1.5, []any{1}, map[string]any{"a": 1}}

// below reports whether a path is another one or below it.
func below(p, above policy.ReadPath) bool {
	return len(p) >= len(above) && slices.Equal(p[:len(above)], above)
}

// bases are requests to be changed: one that says next to nothing, one that has
// something wherever the policy reads, and one that has something everywhere.
func (w *wall) bases() []document {
	bare := document{map[string]any{
		"subject": map[string]any{"type": "x", "id": "x"}, "action": map[string]any{"name": "x"}, "resource": map[string]any{"type": "x", "id": "x"},
	}, moment.Unix()}
	full := bare
	for _, p := range w.open() {
		if d := full.with(p, "x"); valid(d) {
			full = d
		}
	}
	rich := full
	for _, p := range openParts {
		for name, v := range map[string]any{"trace": "4bf92f3577b34da6", "list": []any{1, map[string]any{"x": nil}}, "deep": map[string]any{"er": map[string]any{"est": 1}}} {
			rich = rich.with(step(p, policy.Step{Name: name}), v)
		}
	}
	return []document{bare, full, rich}
}

func step(p policy.ReadPath, s ...policy.Step) policy.ReadPath { return append(slices.Clip(p), s...) }

// open returns the places for values that are read; below one that is read whole, a
// member.
func (w *wall) open() (all []policy.ReadPath) {
	for _, p := range w.reads {
		for _, part := range openParts {
			switch {
			case below(part, p):
				all = append(all, step(part, policy.Step{Name: "v"}))
			case below(p, part):
				all = append(all, p)
			}
		}
	}
	return all
}

// reading reports whether a path is read, whole or in a part, or leads to what is.
func (w *wall) reading(p policy.ReadPath) bool {
	return slices.ContainsFunc(w.reads, func(q policy.ReadPath) bool { return below(p, q) || below(q, p) })
}

// inside are documents that differ from one in what is read: every value there, and
// in every place on the way.
func (w *wall) inside(base document) (all []document) {
	add := func(d document) {
		if _, err := d.request(); err == nil {
			all = append(all, d)
		}
	}
	for _, p := range w.open() {
		for n := len(p); n > 1; n-- {
			if slices.ContainsFunc(openParts, func(part policy.ReadPath) bool { return below(part, p[:n]) }) {
				break
			}
			for _, v := range values {
				add(base.with(p[:n], v))
			}
			for _, v := range some {
				add(base.with(step(p[:n], policy.Step{Name: "below"}), v))
				add(base.with(step(p[:n], policy.Step{Element: true, Index: 1}), v))
			}
		}
	}
	for _, p := range textParts {
		if w.reading(p) {
			for _, text := range []string{"x", "y", "xx", "X", " x", "1", "null", "\x00", "é", "e\u0301"} {
				add(base.with(p, text))
			}
		}
	}
	for _, d := range moments {
		add(document{base.in, moment.Add(d).Unix()})
	}
	return all
}

// outside are documents that differ from one in nothing that is read.
func (w *wall) outside(base document) (all []document) {
	add := func(p policy.ReadPath, v any) {
		if d := base.with(p, v); !w.reading(p) {
			if _, err := d.request(); err == nil {
				all = append(all, d)
			}
		}
	}
	for _, p := range textParts {
		add(p, "another")
		add(p, "1")
	}
	for _, part := range openParts {
		for _, p := range append(w.onTheWay(part), part) {
			if there := leadsTo(base.in, p); there != nil {
				if _, ok := (*there).(map[string]any); !ok {
					continue
				}
			} else if len(p) > len(part) {
				continue // to add a member would add what it is a member of
			}
			for _, v := range values {
				add(step(p, policy.Step{Name: "trace"}), v)
			}
			for _, name := range []string{"", "0", "a", "list", "deep", "v", "below", "two  words"} {
				for _, v := range some {
					add(step(p, policy.Step{Name: name}), v)
				}
			}
		}
		w.elements(base, part, add)
	}
	for _, p := range openParts {
		add(p, map[string]any{"trace": 1})
	}
	for _, d := range moments {
		if at := moment.Add(d); w.sameTime(time.Unix(base.unix, 0).UTC(), at) {
			all = append(all, document{base.in, at.Unix()})
		}
	}
	return all
}

// onTheWay returns the places below a part that lead to what is read.
func (w *wall) onTheWay(part policy.ReadPath) (all []policy.ReadPath) {
	for _, p := range w.reads {
		for n := len(part); n < len(p) && below(p, part); n++ {
			all = append(all, p[:n])
		}
	}
	return all
}

// elements changes those of arrays on the way that are not read, and adds one.
func (w *wall) elements(base document, part policy.ReadPath, change func(policy.ReadPath, any)) {
	for _, p := range w.onTheWay(part) {
		at := leadsTo(base.in, p)
		if at == nil {
			continue
		}
		if list, ok := (*at).([]any); ok {
			for i := range len(list) + 1 {
				for _, v := range some[1:] {
					change(step(p, policy.Step{Element: true, Index: int64(i)}), v)
				}
			}
		}
	}
}

// sameTime reports whether the parts of the time that are read are the same.
func (w *wall) sameTime(a, b time.Time) bool {
	parts := map[string]func(time.Time) string{
		"unix": func(t time.Time) string { return t.String() }, "hour": func(t time.Time) string { return t.Format("15") }, "minute": func(t time.Time) string { return t.Format("04") },
		"date": func(t time.Time) string { return t.Format(time.DateOnly) }, "weekday": func(t time.Time) string { return t.Weekday().String() },
	}
	for name, of := range parts {
		if p := (policy.ReadPath{{Name: "time"}, {Name: name}}); slices.ContainsFunc(w.reads, func(q policy.ReadPath) bool { return below(p, q) }) && of(a) != of(b) {
			return false
		}
	}
	return true
}

// changed is a document with one change, anywhere. choose returns a number below n.
func (w *wall) changed(d document, choose func(n int) int) document {
	switch choose(10) {
	case 0:
		return document{d.in, moment.Add(moments[choose(len(moments))]).Unix()}
	case 1:
		return d.with(textParts[choose(len(textParts))], []string{"x", "y", "ann", "reader", "Add"}[choose(5)])
	}
	var p policy.ReadPath
	if open := w.open(); len(open) > 0 && choose(2) == 0 {
		p = open[choose(len(open))]
		p = p[:max(2, len(p)-choose(3))]
	} else {
		p = openParts[choose(len(openParts))]
	}
	names := []string{"v", "a", "b", "c", "k", "ann", "x", "s", "n", "list", "texts", "roles", "m", "trace", ""}
	for range choose(3) {
		if choose(4) == 0 {
			p = step(p, policy.Step{Element: true, Index: int64(choose(3))})
		} else {
			p = step(p, policy.Step{Name: names[choose(len(names))]})
		}
	}
	if changed := d.with(p, values[choose(len(values))]); valid(changed) {
		return changed
	}
	return d
}

func valid(d document) bool {
	_, err := d.request()
	return err == nil
}
