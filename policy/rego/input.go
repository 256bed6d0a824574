package rego

import (
	"time"

	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego/internal/value"
)

// Stamp is the time that a decision is made at, as policies see it in
// input.time: UTC, to the second. A caller cannot set it; whoever decides
// stamps once a decision or batch. Stamps are comparable.
type Stamp struct {
	unix int64
}

// NewStamp returns the stamp of t.
func NewStamp(t time.Time) Stamp { return Stamp{unix: t.Unix()} }

// Unix returns the time in seconds since 1970.
func (s Stamp) Unix() int64 { return s.unix }

// Time returns the stamped time in UTC.
func (s Stamp) Time() time.Time { return time.Unix(s.unix, 0).UTC() }

// Input is what policies read: one request and its stamp, in AuthZEN's JSON
// shape with `time` beside it. Required fields are never empty, and properties
// and context are {} when absent. It is read in place: the request must not
// change before the last evaluation with it has returned.
type Input struct {
	read value.Input
}

// Stamp returns the time that policies see.
func (in *Input) Stamp() Stamp { return Stamp{in.read.Unix} }

// NewInput returns the input for a request that policy.Limits has accepted.
func NewInput(r *policy.Request, stamp Stamp) *Input {
	return &Input{read: value.Input{Request: *r, Unix: stamp.unix}}
}
