package wire

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/policy"
)

// Error reads the error of a call to server: a status becomes an error of
// package policy, the reverse of what the server made of it. A deadline or
// cancellation stays what it was, so that errors.Is finds it.
func Error(server string, err error) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	switch s.Code() {
	case codes.DeadlineExceeded:
		return policy.Errorf(policy.Unavailable, "%s did not answer in time: %w", server, context.DeadlineExceeded)
	case codes.Canceled:
		return policy.Errorf(policy.Unavailable, "call to %s was cancelled: %w", server, context.Canceled)
	case codes.Unavailable:
		return policy.Errorf(policy.Unavailable, "%s: %s", server, s.Message())
	}
	return policy.Errorf(Kind(s.Code()), "%s", s.Message())
}

// Kind returns the kind of error that a status code stands for.
func Kind(c codes.Code) policy.Kind {
	switch c {
	case codes.InvalidArgument:
		return policy.BadRequest
	case codes.NotFound:
		return policy.NotFound
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return policy.Unavailable
	case codes.FailedPrecondition:
		return policy.Failed
	case codes.Aborted:
		return policy.Conflict
	case codes.PermissionDenied, codes.Unauthenticated:
		return policy.Denied
	case codes.ResourceExhausted:
		return policy.Exhausted
	}
	return policy.Internal
}
