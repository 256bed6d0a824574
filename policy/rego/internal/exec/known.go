package exec

import (
	"github.com/open-policy-agent/opa/v1/ir"

	"github.com/microwall/microwall/policy/rego/internal/value"
)

// numbers are the numbers that locals have at the place that is being compiled.
type numbers struct {
	known map[ir.Local]known
	// blocks are those that the place stands in.
	blocks []span
}

// known is a number that a local is set to.
type known struct {
	number value.Value
	at     int // the position of what sets it
	in     span
	depth  int // of the blocks that it stands in, the last of which is in
}

func (n *numbers) open(b span) { n.blocks = append(n.blocks, b) }

func (n *numbers) close() { n.blocks = n.blocks[:len(n.blocks)-1] }

// know notes that a local has a number from a position on.
func (n *numbers) know(l ir.Local, number value.Value, at int) {
	if n.known == nil {
		n.known = map[ir.Local]known{}
	}
	depth := len(n.blocks)
	n.known[l] = known{number, at, n.blocks[depth-1], depth}
}

// knows returns the number that a local has at a position: what it was set to
// before, in this block or one around it, if nothing else has set it since. What is
// between may be a loop, and come back with another value: then nothing in it may
// set the local, before or after.
func (r *region) knows(l ir.Local, at int) (value.Value, bool) {
	k, ok := r.known[l]
	if !ok || len(r.blocks) < k.depth || r.blocks[k.depth-1] != k.in {
		return value.Value{}, false
	}
	since := span{k.at + 1, at}
	if len(r.blocks) > k.depth {
		since.to = r.blocks[k.depth].to
	}
	return k.number, !within(r.of(l).sets, since)
}
