package builtin

import "github.com/microwall/microwall/policy/rego/internal/value"

// What statements of a policy do with values is charged like what built-ins do.

// Look charges for one look at all of v, such as comparing it takes, or finding
// it as a key.
func (c *Call) Look(v value.Value) error { return c.look(v) }

// Scan returns a cursor over a composite in order, and charges for putting its
// members in order.
func (c *Call) Scan(v value.Value) (value.Cursor, error) { return c.scan(v) }

// Equal reports whether a and b are the same value.
func (c *Call) Equal(a, b value.Value) (bool, error) { return c.equal(a, b) }
