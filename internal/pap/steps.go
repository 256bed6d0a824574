package pap

import (
	"bytes"
	"context"
	"fmt"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/policy"
)

// Where the trust file asks for several signatures, a release is made in steps:
// [Client.Sign], then [Client.Review] and [bundles.Cosign] by each of the others,
// then [Client.Release].

// Sign makes the release that [Client.Push] would make, and does not release it.
// If the head says the same already, there is none: the proposal is nil.
func (c *Client) Sign(ctx context.Context, d Draft) (head *bundles.Signed, _ *bundles.Proposal, _ bundles.Sealed, err error) {
	head, proposal, packed, err := c.propose(ctx, d)
	if err != nil || proposal == nil {
		return head, nil, bundles.Sealed{}, err
	}
	return head, proposal, bundles.Sealed{Note: proposal.Note(), Packed: packed}, nil
}

// Review returns the head that a proposal follows, nil if there is none. If the
// proposal does not follow the head any more, the error is of kind
// policy.Conflict and says what does.
func (c *Client) Review(ctx context.Context, p *bundles.Proposal) (*bundles.Signed, error) {
	r := p.Release()
	if r.Epoch != c.trust.Epoch() {
		return nil, policy.Errorf(policy.Conflict, "it was signed in epoch %d, the trust file is at %d; sign it again: microwall push --sign-only", r.Epoch, c.trust.Epoch())
	}
	head, err := c.Head(ctx, r.Namespace)
	if err != nil {
		return nil, err
	}
	next := uint64(1)
	if head != nil && head.Release().Epoch == r.Epoch {
		next = head.Release().Revision + 1
	}
	if r.Previous != digest(head) || r.Revision != next {
		return nil, policy.Errorf(policy.Conflict, "the head of %s moved since revision %d was signed: it is now %s (%s), and the revision was signed to follow %s; look at it (`microwall history %s`), then sign again: microwall push --sign-only",
			r.Namespace, r.Revision, describe(head), digest(head), r.Previous, r.Namespace)
	}
	return head, nil
}

// Release releases what was signed in steps. Nothing is sent before all
// signatures are there, its bundle is the one that was signed, and it follows the
// head; if it does not any more, the error is of kind policy.Conflict and says
// what does. What is the head already is Unchanged.
func (c *Client) Release(ctx context.Context, s bundles.Sealed, limits bundles.Limits) (Result, error) {
	signed, err := c.whole(s.Note)
	if err != nil {
		return Result{}, c.Explain(ctx, err)
	}
	r := signed.Release()
	if r.Retired() != (len(s.Packed) == 0) {
		return Result{}, policy.Errorf(policy.BadRequest, "%s and what is in the file beside it do not belong together; sign again: microwall push --sign-only", r)
	}
	if !r.Retired() {
		if _, err := signed.Unpack(bytes.NewReader(s.Packed), limits); err != nil {
			return Result{}, fmt.Errorf("the file holds another bundle than the one that was signed: %w", err)
		}
	}
	head, err := c.Head(ctx, r.Namespace)
	if err != nil {
		return Result{}, err
	}
	if head != nil && head.Digest() == signed.Digest() {
		return Result{Release: head, Unchanged: true}, nil
	}
	p, err := c.trust.Propose(s.Note)
	if err != nil {
		return Result{}, err
	}
	if head, err = c.Review(ctx, p); err != nil {
		return Result{}, err
	}
	return c.deliver(ctx, head, signed, s.Packed)
}
