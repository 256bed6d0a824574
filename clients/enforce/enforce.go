package enforce

import (
	"context"
	"iter"
	"maps"
	"net/http"
	"slices"
	"sync/atomic"

	"github.com/microwall/microwall/policy"
)

// Config of an [Enforcer]. Authorizer and Namespace are required.
//
// The callbacks are called by many calls at once. One that panics has its call
// refused.
type Config struct {
	// Authorizer decides, for instance an embedded or a remote client.
	Authorizer policy.Authorizer
	// Namespace of this service.
	Namespace policy.Namespace
	// TrustDomain that callers' certificates must be of, for instance
	// "boutique.example". "" leaves that to the policy.
	TrustDomain string
	// Subject names who calls where no client certificate was verified, by some
	// other authentication. It is never asked about a peer that has one. An error
	// refuses the call. Nil refuses all such calls.
	Subject func(context.Context, Call) (policy.Entity, error)
	// Route names the route of an HTTP request where a router other than
	// [http.ServeMux] has found it. "" is no route, and refuses the call. Nil asks
	// the ServeMux.
	Route func(*http.Request) string
	// Describe adds properties to the request, and how fresh the decision must be.
	// An error refuses the call. Nil adds none.
	Describe func(context.Context, Call) (Properties, error)
	// Obligations are the handlers of what a policy may demand before a call
	// passes, by name. One that is not here refuses the call.
	Obligations map[string]Obligation
	// MaxCallPath is how many elements a call path has at most, the subject
	// included. Zero is 32.
	MaxCallPath int
	// ReportOnly lets every call pass, whatever is decided or fails; what would
	// have been refused is counted and is an event. Obligations are met as far as
	// they can be. It is for the first days of a policy: nothing else sets it.
	ReportOnly bool
	// Explain tells the peer why it was refused: the reasons of a denial, the
	// text of an error. Policies and errors may say what is not for strangers.
	Explain bool
	// Events is told of what was refused. It must not block. Nil tells nobody.
	Events func(Event)
}

// Call is what somebody asks this service to do.
type Call struct {
	// FullMethod of a gRPC call, "/hipstershop.CartService/AddItem"; "" for HTTP.
	FullMethod string
	// Message of a unary gRPC call; nil for a stream, which has none yet.
	Message any
	// HTTP request; nil for gRPC. Its body must not be read.
	HTTP *http.Request
}

// Properties are what a request says beside what is taken from the call. Values
// are as [policy.NewProperties] takes them. What this package sets itself, such as
// the context's call_path, cannot be set.
type Properties struct {
	Subject, Action, Resource, Context map[string]any
	// Freshness that is asked for, for instance by the token that is kept beside what
	// the call is about. It is no property: policies do not see it.
	Freshness policy.Freshness
}

// Obligation does what a policy demands before a call passes, and returns the
// context that the call goes on with: its own, or one made from it. An error
// refuses the call.
type Obligation func(ctx context.Context, c Call, value policy.Value) (context.Context, error)

// Event is something that an [Enforcer] did: [Refused].
type Event interface{ event() }

// Refused says that a call was refused, or would have been.
type Refused struct {
	Call Call
	// Request as far as it was made.
	Request policy.Request
	// Decision is the zero one if there is none.
	Decision policy.Decision
	// Err is why there is no decision, or why a decision that allows is not
	// enough: an obligation. Nil is a denial.
	Err error
	// Passed is true if the call passed all the same, by Config.ReportOnly.
	Passed bool
}

func (Refused) event() {}

// Stats counts calls since the start. Each call is counted once.
type Stats struct {
	// Allowed passed.
	Allowed uint64
	// Denied were refused by a decision, or as an obligation was not met.
	Denied uint64
	// Failed were refused as there was no decision.
	Failed uint64
	// DeniedAndPassed and FailedAndPassed would have been Denied and Failed, and
	// passed by Config.ReportOnly.
	DeniedAndPassed, FailedAndPassed uint64
}

// Outcomes yields the counts by name, as collectors of metrics ask for them.
func (s Stats) Outcomes() iter.Seq2[string, uint64] {
	return func(yield func(string, uint64) bool) {
		_ = yield("allowed", s.Allowed) && yield("denied", s.Denied) && yield("failed", s.Failed) &&
			yield("denied_and_passed", s.DeniedAndPassed) && yield("failed_and_passed", s.FailedAndPassed)
	}
}

// Enforcer stands before the calls of a service. It is safe for concurrent use.
type Enforcer struct {
	config Config
	// Of those that were denied or failed, the second are those that passed.
	allowed        atomic.Uint64
	denied, failed [2]atomic.Uint64
}

// New returns an enforcer. An error is about config.
func New(config Config) (*Enforcer, error) {
	if config.Authorizer == nil {
		return nil, policy.Errorf(policy.BadRequest, "nobody decides: set Config.Authorizer, for instance to an embedded or a remote client")
	}
	if _, err := policy.ParseNamespace(string(config.Namespace)); err != nil {
		return nil, err
	}
	if config.TrustDomain != "" && !validDomain(config.TrustDomain) {
		return nil, policy.Errorf(policy.BadRequest, "%.300q is no trust domain; it is what stands behind spiffe://, for instance boutique.example", config.TrustDomain)
	}
	if config.MaxCallPath < 0 {
		return nil, policy.Errorf(policy.BadRequest, "Config.MaxCallPath is %d; it is how many elements a call path has, and zero is 32", config.MaxCallPath)
	}
	config.MaxCallPath = policy.Limits{CallPath: config.MaxCallPath}.WithDefaults().CallPath
	for name, handler := range config.Obligations {
		if handler == nil {
			return nil, policy.Errorf(policy.BadRequest, "handler of obligation %q is nil; leave it out to have calls refused that demand it", name)
		}
	}
	config.Obligations = maps.Clone(config.Obligations)
	return &Enforcer{config: config}, nil
}

// Stats returns what was counted.
func (e *Enforcer) Stats() Stats {
	return Stats{
		Allowed: e.allowed.Load(), Denied: e.denied[0].Load(), Failed: e.failed[0].Load(),
		DeniedAndPassed: e.denied[1].Load(), FailedAndPassed: e.failed[1].Load(),
	}
}

// admit returns the context that a call goes on with, or why it does not.
func (e *Enforcer) admit(ctx context.Context, c *asked) (context.Context, *Refused) {
	r := Refused{Call: c.Call}
	ctx, allowed, err := e.decide(ctx, c, &r)
	if allowed && err == nil {
		e.allowed.Add(1)
		return ctx, nil
	}
	refused := r
	refused.Err, refused.Passed = err, e.config.ReportOnly
	counts, passed := &e.denied, 0
	if err != nil && !refused.Decision.Allowed {
		counts = &e.failed
	}
	if refused.Passed {
		passed = 1
	}
	counts[passed].Add(1)
	e.tell(refused)
	if refused.Passed {
		return ctx, nil
	}
	return ctx, &refused
}

// tell reports what is settled already. Whoever listens cannot change it any more,
// nor take the process down with all its calls.
func (e *Enforcer) tell(event Event) {
	if e.config.Events != nil {
		defer func() { _ = recover() }()
		e.config.Events(event)
	}
}

// decide asks whether a call may pass. It may only if allowed is true and err is
// nil. What was found out on the way stands in r and in next.
func (e *Enforcer) decide(ctx context.Context, c *asked, r *Refused) (next context.Context, allowed bool, err error) {
	defer func() {
		if next == nil {
			next = ctx
		}
		if p := recover(); p != nil {
			allowed, err = false, policy.Errorf(policy.Internal, "deciding a call crashed: %v; mend the callback, or the Authorizer", p)
		}
	}()
	path, claimed, err := e.callPath(c)
	next = keepPath(ctx, path)
	if err != nil {
		return next, false, err
	}
	if r.Request, err = e.request(next, c, path, claimed); err != nil {
		return next, false, err
	}
	d, err := e.config.Authorizer.Authorize(next, r.Request)
	if err != nil {
		return next, false, err
	}
	r.Decision = d
	if !d.Allowed {
		return next, false, nil
	}
	met, err := e.meet(next, c.Call, d.Obligations)
	if err != nil {
		return next, false, err
	}
	return keepPath(met, path), true, nil
}

// meet hands the obligations to their handlers, in the order of their names, and
// none of them if one has no handler.
func (e *Enforcer) meet(ctx context.Context, c Call, obligations policy.Properties) (context.Context, error) {
	if obligations.Len() == 0 {
		return ctx, nil
	}
	names := slices.Sorted(obligations.Value().Names())
	for _, name := range names {
		if e.config.Obligations[name] == nil {
			return nil, policy.Errorf(policy.Denied, "the policy allows this if obligation %q is met, which nothing here does; add a handler to Config.Obligations", name)
		}
	}
	for _, name := range names {
		value, _ := obligations.Get(name)
		next, err := e.config.Obligations[name](ctx, c, value)
		switch {
		case err != nil:
			return nil, policy.Errorf(policy.Denied, "obligation %q was not met: %w", name, err)
		case next == nil:
			return nil, policy.Errorf(policy.Denied, "obligation %q was not met: its handler returned no context; return the one that it was given", name)
		}
		ctx = next //nolint:fatcontext // each goes on from what the one before it made
	}
	return ctx, nil
}
