package front

import (
	"math/bits"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// A trie holds rules by the constant parts of their references, as OPA's planner
// does: each node has rules or children. A child's last element stands for it;
// nil is a child that `with` has replaced.
type trie struct {
	children map[ast.Value][]*trie
	rules    []*ast.Rule
	made     *ruleSet // of the rules; nil until it is asked for
}

// A ruleSet is what the planner finds out about rules each time that something
// refers to them.
type ruleSet struct {
	path         string // of the function that is planned for the rules
	pieces       int    // parts of the path
	buildsObject bool   // their references go on after the path
	effort       int    // to find it out
	calls        int    // how often that was
}

func newTrie(modules map[string]*ast.Module) *trie {
	root := &trie{children: map[ast.Value][]*trie{}}
	for _, module := range modules {
		if len(module.Rules) == 0 {
			root.insert(module.Package.Path)
			continue
		}
		for _, rule := range module.Rules {
			n := root.insert(rule.Ref().StringPrefix())
			n.rules = append(n.descendants(), rule)
			n.children = nil
		}
	}
	return root
}

// insert returns the node that the rules at a path belong to: the first one on
// the way that has rules, or the one at its end.
func (t *trie) insert(path ast.Ref) *trie {
	for _, part := range path {
		child := t.child(part.Value)
		if child == nil {
			child = &trie{children: map[ast.Value][]*trie{}}
			t.children[part.Value] = append(t.children[part.Value], child)
		}
		if t = child; len(t.rules) > 0 {
			break
		}
	}
	return t
}

func (t *trie) descendants() []*ast.Rule {
	rules := t.rules
	for _, versions := range t.children {
		for _, child := range versions {
			rules = append(rules, child.descendants()...)
		}
	}
	return rules
}

func (t *trie) child(key ast.Value) *trie {
	if t == nil || len(t.children[key]) == 0 {
		return nil
	}
	versions := t.children[key]
	return versions[len(versions)-1]
}

func (t *trie) lookup(path ast.Ref) *trie {
	for _, part := range path {
		if t = t.child(part.Value); t == nil {
			return nil
		}
	}
	return t
}

// keys of the children, sorted.
func (t *trie) keys() []ast.Value {
	if t == nil {
		return nil
	}
	keys := make([]ast.Value, 0, len(t.children))
	for key := range t.children {
		if t.child(key) != nil {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, ast.Value.Compare)
	return keys
}

func (t *trie) isFunction() bool {
	return t != nil && len(t.rules) > 0 && len(t.rules[0].Head.Args) > 0
}

// hide replaces what is at a path by nothing, until show is called with it.
func (t *trie) hide(path ast.Ref) {
	if parent, last := t.lookup(path[:len(path)-1]), path[len(path)-1].Value; parent != nil {
		parent.children[last] = append(parent.children[last], nil)
	}
}

func (t *trie) show(path ast.Ref) {
	if parent, last := t.lookup(path[:len(path)-1]), path[len(path)-1].Value; parent != nil {
		parent.children[last] = parent.children[last][:len(parent.children[last])-1]
	}
}

// set of the node's rules, of which there must be one.
func (t *trie) set() *ruleSet {
	if t.made != nil {
		return t.made
	}
	var longest ast.Ref
	refs := make([]ast.Ref, len(t.rules))
	differ := false
	for i, rule := range t.rules {
		refs[i] = rule.Ref()
		differ = differ || len(refs[i]) != len(refs[0])
		if len(refs[i]) > len(longest) {
			longest = refs[i]
		}
	}
	pieces := len(longest)
	for _, ref := range refs {
		for i := 1; i < min(len(ref), pieces); i++ {
			if _, constant := ref[i].Value.(ast.String); !constant {
				pieces = i
			}
		}
	}
	t.made = &ruleSet{path: longest[:pieces].String(), pieces: pieces, buildsObject: pieces != len(longest), effort: len(refs)}
	if differ || t.made.buildsObject {
		t.made.effort = sorting(len(refs))
	}
	t.made.effort *= 1 + len(longest)/16
	return t.made
}

// sorting is the effort of sorting n references.
func sorting(n int) int { return 2 * n * bits.Len(uint(n)) }

// mostSorted returns the node on whose rules the planner spends most effort;
// nil if nothing refers to any.
func (t *trie) mostSorted() (most *trie) {
	spent := func(t *trie) int { return t.made.effort * t.made.calls }
	var walk func(*trie)
	walk = func(t *trie) {
		if t == nil {
			return
		}
		if t.made != nil && (most == nil || spent(t) > spent(most) || spent(t) == spent(most) && t.made.path < most.made.path) {
			most = t
		}
		for _, versions := range t.children {
			for _, child := range versions {
				walk(child)
			}
		}
	}
	walk(t)
	return most
}
