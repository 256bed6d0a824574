package pdp

import (
	"time"

	"github.com/microwall/microwall/policy"
)

// Event is something that a [Service], [Releases] or an [Issuer] did: one of
// [*Decided], [Pushed], [PushRefused], [TrustPushed], [Issuing], [StandingBy],
// [Issued], [IssueFailed], [ClockOff] and [HeadDoubted]. Events come from many goroutines at
// once and must not block.
type Event interface{ event() }

// Decided is one decision, or the error that took its place.
type Decided struct {
	// Request and Decision must not be changed.
	Request  *policy.Request
	Decision *policy.Decision
	Err      error
	// Took is the time since the decision was begun.
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

// Issuing says that this process issues the domain's beacons from now on.
type Issuing struct{}

// StandingBy says that another process issues them from now on.
type StandingBy struct {
	// Issuer is its name, by its own word.
	Issuer string
}

// Issued says that beacons were issued.
type Issued struct {
	// Time that the beacons name.
	Time time.Time
	// Namespaces is of how many: all of which the head is known, or those that
	// were new.
	Namespaces int
	// Took is the time from then on, until the broker had them all.
	Took time.Duration
}

// IssueFailed says that no beacons were issued, and why. It is told once as long
// as that does not change; it is tried again all the time.
type IssueFailed struct{ Err error }

// ClockOff says that the clock here, by which beacons are issued, is far from that
// of the broker. It is told once as long as it is so.
type ClockOff struct {
	// Ahead is how far ahead, less than 0 if it is behind.
	Ahead time.Duration
}

// HeadDoubted is an alarm: what the store has as the head of a namespace cannot
// be it, or cannot be known to be it. Beacons name the head before it if that must
// be the head, or say nothing of the namespace.
// errors.As finds a fork's evidence in Err.
type HeadDoubted struct {
	Namespace policy.Namespace
	Err       error
}

func (*Decided) event()    {}
func (Pushed) event()      {}
func (PushRefused) event() {}
func (TrustPushed) event() {}
func (Issuing) event()     {}
func (StandingBy) event()  {}
func (Issued) event()      {}
func (IssueFailed) event() {}
func (ClockOff) event()    {}
func (HeadDoubted) event() {}
