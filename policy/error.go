package policy

import (
	"context"
	"errors"
	"fmt"
)

// Kind says what sort of failure an error is, and with it what the caller can
// do. The zero value is [Internal].
type Kind uint8

// The kinds of failure. There are few on purpose: each one is a different next
// step for the caller.
const (
	// Internal is a failure of Microwall itself or of something below it.
	Internal Kind = iota
	// BadRequest is a question that cannot be put: mend it.
	BadRequest
	// NotFound is a namespace, or a version of it, that has no release.
	NotFound
	// Unavailable is not loaded yet, or behind what was asked for: ask again,
	// or ask another decision point.
	Unavailable
	// Failed is a policy that failed or went over its budget. The same
	// question fails again; it is never retried.
	Failed
	// Conflict is a push that lost against another author: look again.
	Conflict
	// Denied is a key that may not sign what it signed, or a peer that may
	// not do what it asks.
	Denied
	// Exhausted is too much load, or something over its limit.
	Exhausted
)

var kindNames = [...]string{"internal", "bad request", "not found", "unavailable", "policy failed", "conflict", "permission denied", "exhausted"}

// String returns the kind in words.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Error is a failure and its kind. Whoever gets one instead of a [Decision]
// has been allowed nothing.
type Error struct {
	// Kind of the failure.
	Kind Kind
	// Message says what is wrong and what to do next.
	Message string
	// Err is the failure underneath, if there is one. Its text is part of
	// Message where the user should see it.
	Err error
	// Versions that the failure comes from, if it is one of releases: all along the
	// path of a policy that failed, and the one that retired a namespace. Whoever is
	// told of it has seen them.
	Versions []Version
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the failure underneath.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an [*Error] of the given kind. An operand of the verb %w is
// kept as the failure underneath, as in [fmt.Errorf].
func Errorf(kind Kind, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Message: err.Error(), Err: errors.Unwrap(err)}
}

// KindOf returns the kind of the outermost [*Error] in err's chain. An error
// that has none is [Internal]. A context that ended is no kind of its own: test
// for it with [errors.Is] first where it matters.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// VersionsOf returns the versions that err comes from, nil if it comes from none.
func VersionsOf(err error) []Version {
	for e := (*Error)(nil); errors.As(err, &e); err = e.Err {
		if len(e.Versions) > 0 {
			return e.Versions
		}
	}
	return nil
}

// Ended reports whether err comes from a context that was cancelled or whose
// deadline passed, rather than from a failure of its own.
func Ended(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
