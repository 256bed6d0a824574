package grpcapi

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
)

// Status turns an error into a gRPC status. An error that has no kind is
// INTERNAL and its text stays here: it was not written for a stranger.
func Status(err error) *status.Status {
	var known *policy.Error
	written := errors.As(err, &known) && code(known.Kind) != codes.Internal
	switch {
	case err == nil:
		return status.New(codes.OK, "")
	case errors.Is(err, context.DeadlineExceeded) && written:
		return status.New(codes.DeadlineExceeded, wire.Message(err.Error())) // it says what was waited for
	case errors.Is(err, context.DeadlineExceeded):
		return status.New(codes.DeadlineExceeded, "the call's deadline passed before there was an answer")
	case errors.Is(err, context.Canceled):
		return status.New(codes.Canceled, "the call was cancelled")
	case written:
		return status.New(code(known.Kind), wire.Message(err.Error()))
	}
	// gRPC's own services, and a peer that is gone, have a status already.
	if s, ok := status.FromError(err); ok {
		return status.New(s.Code(), wire.Message(s.Message()))
	}
	return status.New(codes.Internal, "internal error; the server's log has more")
}

func code(k policy.Kind) codes.Code {
	switch k {
	case policy.BadRequest:
		return codes.InvalidArgument
	case policy.NotFound:
		return codes.NotFound
	case policy.Unavailable:
		return codes.Unavailable
	case policy.Failed:
		return codes.FailedPrecondition
	case policy.Conflict:
		return codes.Aborted
	case policy.Denied:
		return codes.PermissionDenied
	case policy.Exhausted:
		return codes.ResourceExhausted
	}
	return codes.Internal
}
