package live

import (
	"time"

	"github.com/microwall/microwall/policy"
)

// Event is something that happened to the state that decides: one of
// [Activated], [Refused], [NotKept] and [TrustChanged]. Events are delivered
// one at a time, in order, and must not block.
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

func (Activated) event()    {}
func (Refused) event()      {}
func (NotKept) event()      {}
func (TrustChanged) event() {}
