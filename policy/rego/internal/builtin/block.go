package builtin

import "github.com/microwall/microwall/policy/rego/internal/budget"

// maxBlock is how many steps a call may take without a look at the meter: some
// ten milliseconds' worth. What is prepared of a policy's constants before any
// call may take more at once.
const (
	maxBlock   = 1_000_000
	maxPrepare = 20 * maxBlock
)

// block charges for steps that cannot be interrupted once they have begun. Too
// many are refused, however large the budget is, if there is one.
func (c *Call) block(steps int64) error {
	most := int64(maxBlock)
	if c.preparing {
		most = maxPrepare
	}
	if steps > most && (c.preparing || c.Limited()) {
		return budget.ErrSteps
	}
	return c.Step(steps)
}
