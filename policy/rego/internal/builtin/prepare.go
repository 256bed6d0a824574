package builtin

import (
	"context"

	"github.com/microwall/microwall/policy/rego/internal/budget"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// Preparation prepares the constants of one policy, such as its patterns, before
// anybody calls. What that takes is bounded for all of the policy together: once
// it is used up, calls are left as they are, and are charged for the same work
// when they are made. A Preparation belongs to one goroutine.
type Preparation struct {
	call  Call
	meter budget.Meter
	bound map[string]Func
}

// What preparing a policy may take: about a second, and memory that lives as long
// as the policy.
const (
	prepareSteps = 100 * maxBlock
	prepareBytes = 64 << 20
	longKey      = 32 << 10
)

// NewPreparation returns a Preparation that prepares nothing once ctx has ended.
func NewPreparation(ctx context.Context) *Preparation {
	p := &Preparation{bound: map[string]Func{}}
	p.meter.Reset(ctx, budget.Limits{Steps: prepareSteps, Bytes: prepareBytes})
	p.call = Call{Meter: &p.meter, preparing: true}
	return p
}

// Bind returns a Func for calls of b whose operands are known in part: consts has
// the undefined Value for those that are not. Equal constants are prepared once. It
// returns nil where there is nothing to prepare, where a constant is wrong, which
// is said when it is called, and where it would take too much.
func (p *Preparation) Bind(b *Builtin, consts []value.Value) Func {
	if b.bind == nil {
		return nil
	}
	for _, i := range b.binds {
		if !consts[i].Defined() {
			return nil
		}
	}
	key, ok := p.key(b, consts)
	if !ok {
		return b.bind(&p.call, consts)
	}
	f, known := p.bound[key]
	if !known {
		f = b.bind(&p.call, consts)
		p.bound[key] = f
	}
	return f
}

// key returns a text that only calls with equal constants have, spelled alike; none
// if it were long.
func (p *Preparation) key(b *Builtin, consts []value.Value) (string, bool) {
	text := []byte(b.Name)
	for _, i := range b.binds {
		size, err := p.call.measure(consts[i])
		if err != nil || size.Values*8+size.Text > longKey {
			return "", false
		}
		if text, err = p.call.appendText(append(text, 0), consts[i]); err != nil {
			return "", false
		}
	}
	return string(text), true
}
