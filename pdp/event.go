package pdp

import (
	"time"

	"github.com/microwall/microwall/policy"
)

// Event is something that a [Service] or [Releases] did: one of [*Decided],
// [Pushed], [PushRefused] and
// [TrustPushed]. Events come from many goroutines at once and must
// not block.
type Event interface{ event() }

// Decided is one decision, or the error that took its place.
type Decided struct {
	// Request and Decision must not be changed.
	Request  *policy.Request
	Decision *policy.Decision
	Err      error
	// Took is the time since the decision was begun; in a batch, since the one
	// before it was made.
	Took time.Duration
}

// Pushed says that a release is durable and is the head.
type Pushed struct {
	Version policy.Version
	Signers []string
	Took    time.Duration
}

// PushRefused says that a release was not taken.
type PushRefused struct {
	// Namespace that it claims to be for, "" if that could not be read.
	Namespace policy.Namespace
	Err       error
}

// TrustPushed says that a version of the trust file is durable, announced, and in
// force here.
type TrustPushed struct {
	Version uint64
	Digest  policy.Digest
}

func (*Decided) event()    {}
func (Pushed) event()      {}
func (PushRefused) event() {}
func (TrustPushed) event() {}
