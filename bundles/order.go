package bundles

import (
	"cmp"
	"fmt"

	"github.com/microwall/microwall/policy"
)

// ErrSame says that a release is the one that is held already: there is
// nothing to do. Its kind is Conflict.
var ErrSame = policy.Errorf(policy.Conflict, "this release is the head already")

// OldError says that a release is older than the one that is held. It is what
// a replay looks like, and a copy that lags behind.
type OldError struct {
	Held, Next *Signed
}

// Error says which is older than which.
func (e *OldError) Error() string {
	return fmt.Sprintf("%s is older than revision %d of epoch %d, which is held; to go back, release the old bundle again (microwall rollback)", e.Next.release, e.Held.release.Revision, e.Held.release.Epoch)
}

// Unwrap returns an error of kind Conflict.
func (e *OldError) Unwrap() error {
	return &policy.Error{Kind: policy.Conflict, Message: e.Error()}
}

// ForkError says that two properly signed releases contradict each other: two
// of one revision, or a next one that does not follow the one that is held. It
// carries both as evidence. Either two authors released at once through
// different servers, or somebody else has an author's key.
type ForkError struct {
	Held, Next *Signed
}

// Error names both releases and who signed them.
func (e *ForkError) Error() string {
	return fmt.Sprintf("fork: %s (%s, signed by %v) does not follow revision %d (%s, signed by %v), which is held and stays; find out who signed both, and release again on top of one of them",
		e.Next.release, e.Next.digest, e.Next.signers, e.Held.release.Revision, e.Held.digest, e.Held.signers)
}

// Unwrap returns an error of kind Conflict.
func (e *ForkError) Unwrap() error {
	return &policy.Error{Kind: policy.Conflict, Message: e.Error()}
}

// Follow returns nil if next may take the place of held: it has a higher
// (epoch, revision), and if it is the very next revision it names held as its
// previous one. Revisions may be missing in between: what is held may have
// been overtaken. A nil held is followed by anything.
//
// Otherwise it returns [ErrSame], an [*OldError] or a [*ForkError], or a
// BadRequest error if the two are of different namespaces.
func Follow(held, next *Signed) error {
	if next == nil || next.note == nil {
		return policy.Errorf(policy.BadRequest, "there is no release that could follow")
	}
	if held == nil {
		return nil
	}
	h, n := held.release, next.release
	if h.Namespace != n.Namespace {
		return policy.Errorf(policy.BadRequest, "a release of %s cannot follow one of %s", n.Namespace, h.Namespace)
	}
	switch cmp.Or(cmp.Compare(n.Epoch, h.Epoch), cmp.Compare(n.Revision, h.Revision)) {
	case 0:
		if next.digest == held.digest {
			return ErrSame
		}
		return &ForkError{held, next}
	case -1:
		return &OldError{held, next}
	}
	if n.Epoch == h.Epoch && n.Revision == h.Revision+1 && n.Previous != held.digest {
		return &ForkError{held, next}
	}
	return nil
}
