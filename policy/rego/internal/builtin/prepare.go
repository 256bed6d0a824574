package builtin

import (
	"context"
	"errors"

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
	bound map[string]bound
}

// bound is what the constants of a call are prepared to, or why they are not.
type bound struct {
	f   Func
	err error
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
	p := &Preparation{bound: map[string]bound{}}
	p.meter.Reset(ctx, budget.Limits{Steps: prepareSteps, Bytes: prepareBytes})
	p.call = Call{Meter: &p.meter, preparing: true}
	return p
}

// Bind returns a Func for calls of b whose operands are known in part: consts has
// the undefined Value for those that are not. Equal constants are prepared once. It
// returns nil where there is nothing to prepare, where a constant is wrong, which
// is said when it is called, and where it would take too much.
func (p *Preparation) Bind(b *Builtin, consts []value.Value) Func {
	return p.bind(b, consts).f
}

// Check returns why no call of b with such constants can succeed: an [*Error], or
// the meter's where it would go over limits, too, to work the constants out when it
// is called; nil if there is no reason.
func (p *Preparation) Check(ctx context.Context, b *Builtin, consts []value.Value, limits budget.Limits) error {
	err := p.bind(b, consts).err
	if _, wrong := errors.AsType[*Error](err); err == nil || wrong {
		return err
	}
	m := new(budget.Meter)
	m.Reset(ctx, limits)
	_, err = b.bind(&Call{Meter: m}, consts)
	return err
}

func (p *Preparation) bind(b *Builtin, consts []value.Value) (result bound) {
	if b.bind == nil {
		return bound{}
	}
	for _, i := range b.binds {
		if !consts[i].Defined() {
			return bound{}
		}
	}
	key, ok := p.key(b, consts)
	if ok {
		if known, ok := p.bound[key]; ok {
			return known
		}
		defer func() { p.bound[key] = result }()
	}
	result.f, result.err = b.bind(&p.call, consts)
	return result
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
