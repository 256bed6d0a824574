package wire

import (
	"context"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
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
	message := Message(s.Message())
	switch kind := Kind(s.Code()); {
	case s.Code() == codes.DeadlineExceeded:
		return policy.Errorf(policy.Unavailable, "%s did not answer in time: %w", server, context.DeadlineExceeded)
	case s.Code() == codes.Canceled:
		return policy.Errorf(policy.Unavailable, "call to %s was cancelled: %w", server, context.Canceled)
	case kind == policy.Unavailable && lost(message):
		return policy.Errorf(policy.Unavailable, "%s cannot be reached: %s; see that a PDP runs there (--server) and which certificates it wants (--ca, --cert, --cert-key)", server, message)
	case kind == policy.Unavailable || kind == policy.Internal:
		return policy.Errorf(kind, "%s: %s", server, message)
	default:
		return policy.Errorf(kind, "%s", message)
	}
}

// lost reports whether gRPC says that there is no connection, rather than the
// server that it has no answer yet. Only the text tells the two apart; all that
// hangs on it is the advice that is given.
func lost(message string) bool {
	for _, text := range []string{"connection error", "error reading from server", "write tcp", "name resolver error"} {
		if strings.Contains(message, text) {
			return true
		}
	}
	return false
}

// Answered is the name of the trailer that a server sets on errors of its own:
// whoever finds it knows that the server lives, whatever the error is.
const Answered = "microwall-answered"

// By is the name of the trailer that says which versions an error comes from: the
// token of each.
const By = "microwall-by"

// maxBy is how many versions an error comes from at most: those of a path.
const maxBy = policy.MaxLabels

// ByProto returns the versions that an error comes from as they are told.
func ByProto(err error) []string {
	versions := policy.VersionsOf(err)
	told := make([]string, 0, 2*len(versions))
	for _, v := range versions {
		told = append(told, By, string(v.Token()))
	}
	return told
}

// ReadBy reads the versions that an error is told to come from, none if they make no
// sense.
func ReadBy(tokens []string) []policy.Version {
	if len(tokens) > maxBy {
		return nil
	}
	versions := make([]policy.Version, len(tokens))
	for i, t := range tokens {
		var err error
		if versions[i], err = policy.Token(t).Version(); err != nil {
			return nil
		}
	}
	return versions
}

// BatchError reads the error of one item of a batch that server answered. It is
// never nil.
func BatchError(server string, m *microwallv1.BatchError) error {
	kind := Kind(codes.Code(m.GetCode())) //nolint:gosec // a negative code is as unknown as a large one
	message := Message(m.GetMessage())
	if kind == policy.Internal || kind == policy.Unavailable {
		return policy.Errorf(kind, "%s: %s", server, message)
	}
	return policy.Errorf(kind, "%s", message)
}

// maxMessage is how much of an error's message is told to the peer, or taken
// from it, in bytes: a long list of what is wrong with a bundle, but not whatever
// somebody put into a request.
const maxMessage = 64 << 10

// Message returns the message of an error as it may go over the wire: valid
// UTF-8, and not too much of it.
func Message(message string) string {
	if len(message) > maxMessage {
		message = message[:maxMessage] + "..."
	}
	return strings.ToValidUTF8(message, "\ufffd")
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
