package pap

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// FollowTrust follows what was pushed to a server of the trust file, version by
// version from trust on, and returns the newest, and the bytes of its file; they
// are nil if that is trust. Each is verified by the one before it, so that a
// server can hold new ones back, and nothing else.
func FollowTrust(ctx context.Context, conn grpc.ClientConnInterface, server string, trust *bundles.Trust) (newest *bundles.Trust, file []byte, err error) {
	policies := microwallv1.NewPolicyServiceClient(conn)
	for {
		answer, err := policies.GetTrust(ctx, &microwallv1.GetTrustRequest{Version: trust.Version() + 1})
		switch {
		case status.Code(err) == codes.NotFound, status.Code(err) == codes.Unimplemented: // an older server has none
			return trust, file, nil
		case err != nil:
			return nil, nil, wire.Error(server, err)
		}
		next, err := trust.Next(answer.GetTrust())
		if err != nil {
			return nil, nil, fmt.Errorf("%s hands out a trust file that does not follow yours (--trust), which is version %d; find out which of the two is the right one: %w", server, trust.Version(), err)
		}
		if file, err = bundles.TrustFile(answer.GetTrust()); err != nil {
			return nil, nil, err
		}
		trust = next
	}
}

// PushTrust hands a signed trust file to the server, after it was verified here:
// it follows the client's own, or is the very same. It returns the version that is
// in force there then.
func (c *Client) PushTrust(ctx context.Context, signed []byte) (version uint64, err error) {
	version = c.trust.Version()
	if file, ferr := bundles.TrustFile(signed); ferr == nil && policy.DigestOf(file) == c.trust.Digest() {
		err = c.trust.Confirm(signed)
	} else {
		var next *bundles.Trust
		if next, err = c.trust.Next(signed); err == nil {
			version = next.Version()
		}
	}
	if err != nil {
		return 0, err
	}
	answer, err := c.policies.PushTrust(ctx, &microwallv1.PushTrustRequest{Trust: signed})
	if err != nil {
		return 0, wire.Error(c.server, err)
	}
	if got := answer.GetVersion(); got != version {
		return 0, policy.Errorf(policy.Failed, "%s was given version %d of the trust file and says that version %d is in force; see that it is a PDP", c.server, version, got)
	}
	return version, nil
}

// TrustInForce returns which version of the trust file is in force on the server,
// as it says; 0 if it does not.
func (c *Client) TrustInForce(ctx context.Context) uint64 {
	answer, err := c.policies.GetTrust(ctx, &microwallv1.GetTrustRequest{})
	if err != nil {
		return 0
	}
	return answer.GetInForce()
}

// Explain returns the error of something that does not verify here, with what is
// to be done about it if the server believes by a newer trust file than the
// client: that needs no new signature and no new epoch. It is err itself if that
// is not why.
func (c *Client) Explain(ctx context.Context, err error) error {
	unverified, ok := errors.AsType[*bundles.UnverifiedError](err)
	if !ok {
		return err
	}
	theirs, mine := c.TrustInForce(ctx), c.trust.Version()
	if theirs <= mine {
		return err
	}
	return &bundles.UnverifiedError{Release: unverified.Release, Reason: unverified.Reason, Next: Outdated(mine, c.server, theirs)}
}

// Outdated says that version mine of the trust file is older than what the server
// says is in force there, and how to get that.
func Outdated(mine uint64, server string, theirs uint64) string {
	return fmt.Sprintf("your trust file (--trust) is version %d, and version %d is in force on %s, as it says: get that one, with `microwall trust pull` if every version since yours was pushed, else from where your team keeps it", mine, theirs, server)
}

// PullTrust is [FollowTrust], but for a server that has a newer version in force
// than can be followed: that is an error of kind policy.Conflict.
func PullTrust(ctx context.Context, conn grpc.ClientConnInterface, server string, trust *bundles.Trust) (newest *bundles.Trust, file []byte, err error) {
	if newest, file, err = FollowTrust(ctx, conn, server, trust); err != nil {
		return nil, nil, err
	}
	if theirs := New(conn, server, newest).TrustInForce(ctx); theirs > newest.Version() {
		return nil, nil, policy.Errorf(policy.Conflict, "version %d of the trust file is in force on %s, as it says, but version %d, which would come after yours, was not pushed there, so that nothing proves the newer one from yours; take it from where your team keeps it, and put it into place by hand", theirs, server, newest.Version()+1)
	}
	return newest, file, nil
}
