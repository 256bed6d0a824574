package exec

import (
	"cmp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// indexFrom is the number of rules from which on they are found, not tried.
const indexFrom = 8

// test is a comparison of a value of the request with constants: it holds for one
// of them, or for none.
type test struct {
	path  string // of names, as pathKey has it
	names []string
	is    []value.Value
}

// scalar is a constant as a key of a map. Equal values have equal keys.
type scalar struct {
	kind value.Kind
	num  int64
	text string
}

func scalarOf(v value.Value) (scalar, bool) {
	switch v.Kind() {
	case value.String:
		return scalar{kind: value.String, text: v.Text()}, true
	case value.Bool:
		if v.IsTrue() {
			return scalar{kind: value.Bool, num: 1}, true
		}
		return scalar{kind: value.Bool}, true
	case value.Null:
		return scalar{kind: value.Null}, true
	case value.Number:
		i, ok := v.Int64()
		return scalar{kind: value.Number, num: i}, ok
	}
	return scalar{}, false
}

// Tried is a rule that is tried for every request, although its function has many
// rules.
type Tried struct {
	// File and Row of the rule.
	File string
	Row  int
	// Why says why an index cannot find it.
	Why string
}

// requested is a value of the request: the request itself, or what has a name in
// the value above.
type requested struct {
	above *requested
	name  string
	depth int
	// names that lead here, and their key, once they are asked for.
	names []string
	key   string
}

func (r *requested) path() (names []string, key string) {
	if r.names == nil {
		r.names = make([]string, r.depth)
		for at := r; at.above != nil; at = at.above {
			r.names[at.depth-1] = at.name
		}
		r.key = pathKey(r.names)
	}
	return r.names, r.key
}

const noTest = "it compares no value of the request with a constant"

// tests returns the comparisons with constants that a rule makes before anything
// that can fail or has an effect, and what ended the search for them.
func (c *compiler) tests(b *ir.Block) (tests []test, why string) {
	paths := map[ir.Local]*requested{ir.Input: {}}
	add := func(l ir.Local, is ...value.Value) {
		of, ok := paths[l]
		if !ok || of.above == nil {
			return
		}
		for _, v := range is {
			if _, ok := scalarOf(v); !ok {
				return
			}
		}
		names, key := of.path()
		tests = append(tests, test{path: key, names: names, is: is})
	}
	members := map[ir.Local]test{} // results of `x in {...}`
	for _, s := range b.Stmts {
		switch s := s.(type) {
		case *ir.ResetLocalStmt, *ir.NotEqualStmt, *ir.IsArrayStmt, *ir.IsObjectStmt, *ir.IsSetStmt, *ir.IsDefinedStmt,
			*ir.MakeNullStmt, *ir.MakeNumberIntStmt, *ir.MakeNumberRefStmt, *ir.AssignIntStmt, *ir.LenStmt:
			if s, ok := s.(*ir.NotEqualStmt); ok {
				if l, ok := s.A.Value.(ir.Local); ok && s.B.Value == ir.Bool(false) && members[l].path != "" {
					tests = append(tests, members[l])
				}
			}
		case *ir.MakeSetStmt, *ir.MakeArrayStmt, *ir.MakeObjectStmt, *ir.SetAddStmt, *ir.ArrayAppendStmt, *ir.ObjectInsertStmt:
			if _, ok := c.region.constants[composed(s)]; !ok {
				return tests, noTest
			}
		case *ir.DotStmt:
			source, ok := s.Source.Value.(ir.Local)
			above, known := paths[source]
			key, constant := s.Key.Value.(ir.StringIndex)
			delete(paths, s.Target)
			if ok && known && constant {
				paths[s.Target] = &requested{above: above, name: c.strings[key], depth: above.depth + 1}
			}
		case *ir.AssignVarStmt:
			source, ok := s.Source.Value.(ir.Local)
			delete(paths, s.Target)
			if of, known := paths[source]; ok && known {
				paths[s.Target] = of
			}
		case *ir.EqualStmt:
			for _, o := range [][2]ir.Operand{{s.A, s.B}, {s.B, s.A}} {
				if l, ok := o[0].Value.(ir.Local); ok {
					if k, ok := c.constantOf(o[1]); ok {
						add(l, k)
					}
				}
			}
		case *ir.CallStmt:
			if f, ok := c.program.byName[s.Func]; ok {
				if f.fails {
					return tests, "what it refers to first can fail"
				}
				continue
			}
			if b, ok := c.options.Find(s.Func); !ok || !b.Total {
				return tests, s.Func + " comes before any such comparison, and can fail"
			}
			if s.Func != "internal.member_2" {
				continue
			}
			l, ok := s.Args[0].Value.(ir.Local)
			set, isLocal := s.Args[1].Value.(ir.Local)
			if k, constant := c.region.constants[set]; ok && isLocal && constant {
				before := len(tests)
				var is []value.Value
				for _, v := range k.All() {
					is = append(is, v)
				}
				if add(l, is...); len(tests) > before {
					members[s.Result] = tests[before]
					tests = tests[:before]
				}
			}
		default:
			return tests, noTest
		}
	}
	return tests, noTest
}

// index finds rules by what they test. It is a tree: each node looks at one value
// of the request.
type index struct {
	names []string
	look  expr
	found map[scalar]*index
	// rest are the rules that do not test this value; at a leaf, all that are left.
	rest []int32
}

// index returns an index over units, nil if it would find nothing.
func (c *compiler) index(units []unit) *index {
	all := make([]int32, len(units))
	for i := range all {
		all[i] = int32(i)
	}
	room := len(units)
	for i := range units {
		for _, t := range units[i].tests {
			room += len(t.is)
		}
	}
	root := c.indexOf(units, all, nil, roomFor*room)
	if root.look == nil {
		return nil
	}
	return root
}

// roomFor is how much of an index there may be for each constant that is compared:
// places in it, and tests that are looked at to make it. A rule stands in an index
// once for each way in which its tests can hold; where these are too many, what is
// left is tried.
const roomFor = 8

func (c *compiler) indexOf(units []unit, among []int32, looked []string, room int) *index {
	if len(among) < indexFrom {
		return &index{rest: among}
	}
	places := map[string]int{}
	for _, i := range among {
		room -= len(units[i].tests)
		for _, t := range units[i].tests {
			places[t.path] += len(t.is)
		}
	}
	// The value that tells most of them apart.
	apart := map[string]map[scalar]bool{}
	names := map[string][]string{}
	for _, i := range among {
		for _, t := range units[i].tests {
			if slices.Contains(looked, t.path) || places[t.path] > room {
				continue
			}
			if apart[t.path] == nil {
				apart[t.path], names[t.path] = map[scalar]bool{}, t.names
			}
			for _, v := range t.is {
				k, _ := scalarOf(v)
				apart[t.path][k] = true
			}
		}
	}
	best := ""
	for path, values := range apart {
		if best == "" || cmp.Or(cmp.Compare(len(values), len(apart[best])), strings.Compare(best, path)) > 0 {
			best = path
		}
	}
	if best == "" || len(apart[best]) < 2 {
		return &index{rest: among}
	}
	node := &index{names: names[best], look: c.pathExpr(int(ir.Input), names[best], inValue), found: map[scalar]*index{}}
	groups := map[scalar][]int32{}
	for _, i := range among {
		at := slices.IndexFunc(units[i].tests, func(t test) bool { return t.path == best })
		if at < 0 {
			node.rest = append(node.rest, i)
			continue
		}
		for _, v := range units[i].tests[at].is {
			k, _ := scalarOf(v)
			if g := groups[k]; len(g) == 0 || g[len(g)-1] != i {
				groups[k] = append(g, i)
			}
		}
	}
	looked = append(slices.Clip(looked), best)
	for k, g := range groups {
		// Shares, so that an index is the same whatever the order of a map.
		share := (room - places[best]) * len(g) / places[best]
		node.found[k] = c.indexOf(units, g, looked, share)
	}
	return node
}

// find appends the rules that may do something, and adds up the lengths of the
// texts that it looks up.
func (x *index) find(l []value.Value, to []int32, long *int) []int32 {
	to = append(to, x.rest...)
	if x.look == nil {
		return to
	}
	if k, ok := scalarOf(x.look(l)); ok {
		*long += len(k.text)
		if below, ok := x.found[k]; ok {
			return below.find(l, to, long)
		}
	}
	return to
}

func (x *index) op(units []unit, result int) op {
	return func(m *machine, l []value.Value) int {
		start := len(m.found)
		long := 0
		m.found = x.find(l, m.found, &long)
		if err := m.meter.Step(int64(long / longText)); err != nil {
			return m.fail(err)
		}
		found := m.found[start:]
		if !slices.IsSorted(found) {
			slices.Sort(found)
		}
		if err := m.meter.Step(int64(len(found) + 1)); err != nil {
			return m.fail(err)
		}
		for i := range found {
			u := &units[m.found[start+i]]
			if u.idle && l[result].Defined() {
				continue
			}
			if err := m.meter.Step(u.weight); err != nil {
				return m.fail(err)
			}
			if r := u.body(m, l); r < 0 {
				return r
			}
		}
		m.found = m.found[:start]
		return next
	}
}
