package builtin

import "github.com/microwall/microwall/policy/rego/internal/value"

var graphs = []*Builtin{
	{Name: "graph.reachable", Func: reachable},
	{Name: "graph.reachable_paths", Func: reachablePaths},
}

// A graph is an object whose keys are nodes, and whose values are the nodes that
// these have edges to, in an array or a set. What is no key is no node.

func isNodes(v value.Value) bool { return v.Kind() == value.Array || v.Kind() == value.Set }

func graphOperands(name string, args []value.Value) error {
	switch {
	case args[0].Kind() != value.Object:
		return wrongType(name, 1, args[0], "object")
	case !isNodes(args[1]):
		return wrongType(name, 2, args[1], "{array, set}")
	}
	return nil
}

func reachable(c *Call, args []value.Value) (value.Value, error) {
	if err := graphOperands("graph.reachable", args); err != nil {
		return value.Value{}, err
	}
	graph, err := c.positioned(args[0])
	if err != nil {
		return value.Value{}, err
	}
	n := graph.Len()
	if err := c.Work(int64(n/64), int64(n/8)); err != nil {
		return value.Value{}, err
	}
	r := reach{c: c, graph: graph, cost: inTable(n), reached: make([]uint64, (n+63)/64)}
	if err := r.meet(args[1]); err != nil {
		return value.Value{}, err
	}
	for i := 0; i < len(r.queue); i++ {
		_, edges := graph.Member(int(r.queue[i]))
		if err := r.meet(edges); err != nil {
			return value.Value{}, err
		}
	}
	return r.result()
}

// positioned returns an object whose members have positions.
func (c *Call) positioned(object value.Value) (value.Value, error) {
	if object.HasPositions() {
		return object, nil
	}
	built := value.NewObject(0)
	members, err := c.scan(object)
	if err != nil {
		return value.Value{}, err
	}
	for key, val := range members.All() {
		if err := c.insert(built, key, val); err != nil {
			return value.Value{}, err
		}
	}
	return built, nil
}

// reach is a search from node to node, which it knows by their positions.
type reach struct {
	c       *Call
	graph   value.Value
	cost    int64         // of finding a node
	reached []uint64      // a bit for each node
	queue   []int32       // nodes in the order in which they were reached
	nodes   []value.Value // the same as they were named, if that can differ from the graph's keys
}

// meet puts nodes into the queue that were not reached yet.
func (r *reach) meet(nodes value.Value) error {
	switch nodes.Kind() {
	case value.Array:
		if err := r.c.Step(int64(nodes.Len()) * r.cost); err != nil {
			return err
		}
		if value.InOneDocument(r.graph, nodes) {
			n := len(r.queue)
			r.queue = r.graph.MarkElems(nodes, r.reached, r.queue)
			return r.charge(len(r.queue) - n)
		}
		for i := range nodes.Len() {
			node := nodes.Elem(i)
			if err := r.c.look(node); err != nil {
				return err
			}
			if err := r.mark(node); err != nil {
				return err
			}
		}
	case value.Set:
		members, err := r.c.scan(nodes)
		if err != nil {
			return err
		}
		if err := r.c.Step(int64(nodes.Len()) * r.cost); err != nil {
			return err
		}
		var key, node value.Value
		for members.Next(&key, &node) {
			if err := r.c.look(node); err != nil {
				return err
			}
			if err := r.mark(node); err != nil {
				return err
			}
		}
	}
	return nil
}

// mark puts a node into the queue, if it is one, and for the first time.
func (r *reach) mark(node value.Value) error {
	p := r.graph.Find(node)
	if p < 0 || r.reached[p/64]>>(p%64)&1 != 0 {
		return nil
	}
	r.reached[p/64] |= 1 << (p % 64)
	r.queue = append(r.queue, int32(p))
	if !r.graph.IsPacked() {
		r.nodes = append(r.nodes, node)
	}
	return r.charge(1)
}

// charge charges for nodes that were reached for the first time.
func (r *reach) charge(n int) error {
	return r.c.Work(int64(n)*(4+2*r.cost), int64(n)*(memberBytes+elemBytes))
}

// result gives the set of the nodes that were reached.
func (r *reach) result() (value.Value, error) {
	if r.graph.IsPacked() {
		return r.graph.MarkedKeys(r.reached, len(r.queue)), nil
	}
	set := value.NewSet(len(r.queue))
	for _, node := range r.nodes {
		if err := r.c.look(node); err != nil {
			return value.Value{}, err
		}
		set.Add(node)
	}
	return set, nil
}

func reachablePaths(c *Call, args []value.Value) (value.Value, error) {
	if err := graphOperands("graph.reachable_paths", args); err != nil {
		return value.Value{}, err
	}
	p := paths{c: c, graph: args[0], found: value.NewSet(0)}
	members, err := c.scan(args[1])
	if err != nil {
		return value.Value{}, err
	}
	var key, node value.Value
	for members.Next(&key, &node) {
		edges, err := c.get(p.graph, node)
		if err == nil && edges.Defined() {
			p.path = append(p.path[:0], node)
			err = p.follow(edges, p.enter) // OPA sees no circle in the first edge
		}
		if err != nil {
			return value.Value{}, err
		}
	}
	return p.found, nil
}

// paths is a search for all paths that cannot be made longer without going in a
// circle.
type paths struct {
	c     *Call
	graph value.Value
	path  []value.Value // to where the search is
	found value.Value
}

// follow goes on from the last node of the path, along edges.
func (p *paths) follow(edges value.Value, step func(node value.Value) error) error {
	if !isNodes(edges) || edges.Len() == 0 {
		return p.end()
	}
	members, err := p.c.scan(edges)
	if err != nil {
		return err
	}
	var key, node value.Value
	for members.Next(&key, &node) {
		if err := step(node); err != nil {
			return err
		}
	}
	return nil
}

// step enters a node unless the path leads through it.
func (p *paths) step(node value.Value) error {
	for _, before := range p.path {
		if same, err := p.c.equal(before, node); err != nil {
			return err
		} else if same {
			return p.end()
		}
	}
	return p.enter(node)
}

// enter goes to a node, to all that is beyond it, and back.
func (p *paths) enter(node value.Value) error {
	edges, err := p.c.get(p.graph, node)
	if err != nil {
		return err
	}
	if !edges.Defined() {
		return p.end()
	}
	p.path = append(p.path, node)
	err = p.follow(edges, p.step)
	p.path = p.path[:len(p.path)-1]
	return err
}

// end adds the path to those that were found.
func (p *paths) end() error {
	n := int64(len(p.path))
	if err := p.c.Work(10+2*n, n*elemBytes); err != nil {
		return err
	}
	return p.c.add(p.found, value.NewArray(append([]value.Value(nil), p.path...)...))
}
