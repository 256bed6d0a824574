package reads

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ir"
)

// maxDepth is how long the paths of a set get; what is read below is read whole
// there.
const maxDepth = 32

// A node is one path of the input that came up.
type node struct {
	parent   *node // nil for the input
	key      Key
	depth    int
	children map[Key]*node
	value    value // that comes from here

	walked bool // some lookup came here
	whole  bool // and something reads all of it
	at     *ir.Location
	why    string
}

// child returns the node one step below n, nil if that is too deep.
func (n *node) child(k Key, s *sources) *node {
	if c, ok := n.children[k]; ok {
		return c
	}
	if n.depth == maxDepth {
		return nil
	}
	c := &node{parent: n, key: k, depth: n.depth + 1}
	c.value = s.only(source{kind: fromInput, node: c})
	if n.children == nil {
		n.children = map[Key]*node{}
	}
	n.children[k] = c
	return c
}

// covered reports whether n is below what is read whole, or is that.
func (n *node) covered() bool {
	for ; n != nil; n = n.parent {
		if n.whole {
			return true
		}
	}
	return false
}

func (n *node) path() Path {
	path := make(Path, n.depth)
	for ; n.parent != nil; n = n.parent {
		path[n.depth-1] = n.key
	}
	return path
}

// collect appends the topmost nodes that are read whole, and the ends of the
// walks that go no further. It reports whether there were any.
func (n *node) collect(p *ir.Policy, found []Read) []Read {
	if !n.whole {
		before := len(found)
		keys := make([]Key, 0, len(n.children))
		for k := range n.children {
			keys = append(keys, k)
		}
		slices.SortFunc(keys, Key.compare)
		for _, k := range keys {
			found = n.children[k].collect(p, found)
		}
		if len(found) > before || !n.walked {
			return found
		}
	}
	r := Read{Path: n.path(), Why: n.why, File: "<query>"}
	if n.at != nil {
		r.Row, r.Col = n.at.Row, n.at.Col
		if p.Static != nil && n.at.File >= 0 && n.at.File < len(p.Static.Files) {
			r.File = p.Static.Files[n.at.File].Value
		}
	}
	return append(found, r)
}
