package policy

import "context"

// Decision is the answer to a [Request]. Its zero value denies.
//
// A Decision may be shared with other callers that asked the same question:
// its slices must not be changed. Obligations cannot be.
type Decision struct {
	// Allowed is true only if the namespace's policy allows and neither it
	// nor a guardrail denies.
	Allowed bool
	// Reasons, sorted by namespace and text. Of a denial: every deny message
	// on the path; none means that no rule allowed it. Of an allow: the
	// reasons of the namespace, if it gives any.
	Reasons []Reason
	// Obligations that the enforcement point (PEP) must meet before it lets
	// the call pass, by name. Empty when denied.
	Obligations Properties
	// Versions of the policies that decided: guardrails from the outermost
	// in, then the namespace.
	Versions []Version
	// Stale names those of Versions of which it has not been proven for longer
	// than they are believed without, that no newer release is there, in the
	// same order. Where one of them says "deny" then, this is a denial, and
	// its reasons say so. It is true of the moment: it is never cached.
	Stale []Namespace
	// StaleDenied is true if this is a denial because of that, whatever the
	// policies say.
	StaleDenied bool
	// Evaluation says how the decision came about.
	Evaluation Evaluation
}

// Evaluation is what a [Decision] depends on beside the request and the versions.
type Evaluation struct {
	// Time that the policies saw as input.time, in seconds since 1970. Of a
	// decision that was remembered it is earlier than the question; it differs then
	// in no part that the policies read.
	Time int64
	// Engine that evaluated, with its version.
	Engine string
	// Trust is the version of the trust file that was in force, which says whose
	// releases decide and which guardrails bind; 0 where folders decide.
	Trust uint64
}

// Reason is one message, and the namespace whose policy gave it.
type Reason struct {
	Namespace Namespace `json:"namespace"`
	Text      string    `json:"reason"`
}

// String returns "namespace: text".
func (r Reason) String() string { return string(r.Namespace) + ": " + r.Text }

// Result is the answer to one request of a batch: a decision, or the error
// that took its place. With an error the Decision is the zero one, which
// denies.
type Result struct {
	Decision Decision
	Err      error
}

// Authorizer decides. Implementations are safe for concurrent use.
//
// An error means that nothing was decided, so nothing is allowed; [KindOf] says
// what to do about it.
type Authorizer interface {
	// Authorize decides one request.
	Authorize(ctx context.Context, r Request) (Decision, error)
	// AuthorizeBatch decides many requests by one snapshot and one time
	// stamp. The results have the order of the requests. The error is about
	// the batch as a whole, for instance that it is too large; what is wrong
	// with one request stands in its own result.
	AuthorizeBatch(ctx context.Context, rs []Request) ([]Result, error)
}
