package builtin

import "github.com/microwall/microwall/policy/rego/internal/value"

// What statements of a policy do with values is charged like what built-ins do.

// Look charges for one look at all of v, such as comparing it takes, or finding
// it as a key.
func (c *Call) Look(v value.Value) error { return c.look(v) }

// Ordered charges for going through the members of an object or a set in order.
func (c *Call) Ordered(v value.Value) error { return c.ordered(v) }

// Equal reports whether a and b are the same value.
func (c *Call) Equal(a, b value.Value) (bool, error) { return c.equal(a, b) }
