package builtin

import (
	"context"

	"github.com/microwall/microwall/policy/rego/internal/budget"
)

// maxBlock is how many steps a call may take without a look at the meter: some
// ten milliseconds' worth.
const maxBlock = 1_000_000

// block charges for steps that cannot be interrupted once they have begun. More
// than maxBlock are refused, however large the budget is.
func (c *Call) block(steps int64) error {
	if steps > maxBlock {
		return budget.ErrSteps
	}
	return c.Step(steps)
}

// unmetered returns a Call without a budget, for what is prepared of a policy's
// constants: what block refuses is left to the calls.
func unmetered() *Call {
	m := new(budget.Meter)
	m.Reset(context.Background(), budget.Limits{})
	return &Call{Meter: m}
}
