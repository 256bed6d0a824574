package live

import (
	"time"

	"github.com/microwall/microwall/policy"
)

// Event is something that happened to the state that decides: one of
// [Activated], [Refused], [NotKept], [TrustChanged], [Proven], [Outpaced], [Behind],
// [BeaconRefused] and [BeaconsNotKept]. Events are delivered one at a time, in order, and must not
// block.
type Event interface{ event() }

// Activated says that a release decides from now on.
type Activated struct {
	Version policy.Version
	// Bundle that was released; none if the namespace was retired.
	Bundle policy.Digest
	// FromDisk is true for a release that was kept from an earlier run.
	FromDisk bool
	// Took is the time from its arrival on: verifying, fetching, compiling.
	Took time.Duration
}

// Refused says that a release was not accepted. What decided before still does.
type Refused struct {
	// Namespace it was meant for, "" if that could not be read.
	Namespace policy.Namespace
	// Err says why. errors.As finds a fork's evidence in it.
	Err error
}

// NotKept says that a release decides but could not be written to disk: after
// a restart without network, an older one would.
type NotKept struct {
	Version policy.Version
	Err     error
}

// TrustChanged says that another trust file is in force.
type TrustChanged struct {
	Version uint64
	// Dropped are the namespaces whose releases it does not open any more.
	Dropped []policy.Namespace
	// NotKept is why its version could not be remembered on disk: after a
	// restart, an older file would be taken. Nil if it was.
	NotKept error
}

// Proven says that a beacon has proven a release to be the head: for the first
// time, or again after it was stale.
type Proven struct {
	Version policy.Version
	// Time is the beacon's.
	Time time.Time
}

// Outpaced says that a release which decides from now on will be stale again and
// again, or for good, by the way that beacons come here.
type Outpaced struct {
	Version policy.Version
	// Err says how, and what to do about it.
	Err error
}

// Behind says that a beacon names a head which is not held yet. It is told once
// for each head.
type Behind struct {
	// Held is what decides until then; its Revision is 0 if nothing does.
	Held policy.Version
	Head policy.Version
}

// BeaconRefused says that a beacon was not believed. It is told at most once a
// minute for each namespace.
type BeaconRefused struct {
	// Namespace that it contradicts what is held of; "" if the beacon as a
	// whole was refused.
	Namespace policy.Namespace
	// Err says why. A [*BeaconForkError] is an alarm.
	Err error
	// More is how many others were refused since the last such event.
	More int
}

// BeaconsNotKept says that what was proven could not be written to disk: after a
// restart it would look older. It is told once until it succeeds again.
type BeaconsNotKept struct{ Err error }

func (BeaconsNotKept) event() {}
func (Activated) event()      {}
func (Refused) event()        {}
func (NotKept) event()        {}
func (TrustChanged) event()   {}
func (Proven) event()         {}
func (Outpaced) event()       {}
func (Behind) event()         {}
func (BeaconRefused) event()  {}
