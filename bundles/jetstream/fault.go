package jetstream

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/microwall/microwall/policy"
)

// Fault is what stands between a process and the broker, or what it asks of the
// broker, as the events of [Connect] and of a [Follower] tell. The zero value has
// been told nothing. It is safe for concurrent use.
type Fault struct {
	mu sync.Mutex
	// up is true while there is a connection, and over once it was closed on
	// purpose.
	up, over bool
	// connection is why there is none.
	connection error
	// refused is the last thing that the broker did not permit since it was
	// connected to.
	refused error
	// unanswered are the namespaces whose head it does not hand out.
	unanswered map[policy.Namespace]error
	// deaf are the subjects that it permits nobody here to hear.
	deaf map[string]error
}

// Tell takes an event. It does not block.
func (f *Fault) Tell(e Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch e := e.(type) {
	case Connected:
		f.up, f.connection, f.refused, f.unanswered, f.deaf = true, nil, nil, nil, nil
	case Disconnected:
		f.up, f.over, f.connection = false, e.Err == nil, nil
		if e.Err != nil {
			f.connection = policy.Errorf(policy.Unavailable, "the connection to NATS was lost (%w); see that NATS runs there and can be reached", e.Err)
		}
	case BrokerError:
		if errors.Is(e.Err, nats.ErrPermissionViolation) {
			f.refused = e.Err
		} else if !f.up {
			f.connection = e.Err
		}
	case AskFailed:
		if e.Namespace != "" && !e.Beacon && f.up {
			if f.unanswered == nil {
				f.unanswered = make(map[policy.Namespace]error)
			}
			f.unanswered[e.Namespace] = e.Err
		}
	case Answered:
		delete(f.unanswered, e.Namespace)
	case Deaf:
		if e.Err == nil {
			delete(f.deaf, e.Subject)
		} else if f.up {
			if f.deaf == nil {
				f.deaf = make(map[string]error)
			}
			f.deaf[e.Subject] = e.Err
		}
	}
}

// errUnreached is the fault before anything has happened.
var errUnreached = policy.Errorf(policy.Unavailable, "no NATS server has answered yet; see that it runs there and can be reached")

// Err returns the fault, which says what to do about it: that there is no
// connection, which namespaces' releases are not handed out, or what may not be
// heard and so comes late. It is nil if nothing is wrong that is known here, or the connection was closed on purpose.
func (f *Fault) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.over:
		return nil
	case !f.up && f.connection == nil:
		return errUnreached
	case !f.up:
		return f.connection
	case len(f.unanswered) == 0 && len(f.deaf) == 0:
		return nil
	case len(f.unanswered) == 0:
		all := slices.Sorted(maps.Keys(f.deaf))
		return policy.Errorf(policy.Denied, "what is new on %s is not heard of before it is asked for: %w; it is subscribed to again on each poll", strings.Join(all, ", "), f.deaf[all[0]])
	}
	all := slices.Sorted(maps.Keys(f.unanswered))
	names := make([]string, len(all))
	for i, n := range all {
		names[i] = string(n)
	}
	return policy.Errorf(policy.Unavailable, "the release of %s is not handed out: %w", strings.Join(names, ", "), f.unanswered[all[0]])
}

// Refused returns the last thing that the broker has not permitted since it was
// connected to, nil if there is none. It may be what nobody needs, and it is known
// before a question that was not permitted is given up.
func (f *Fault) Refused() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refused
}

// explain says of an error of the connection what to do about it. Of several
// credentials, the message names those that were shown.
func (o ConnectOptions) explain(err error) error {
	who := "the credentials of " + o.Credentials.Principal()
	if o.Credentials.pair == nil {
		who = "whoever shows no credentials"
	}
	say := func(kind policy.Kind, next string) error {
		return policy.Errorf(kind, "%w; %s", err, next)
	}
	switch {
	case errors.Is(err, nats.ErrPermissionViolation):
		return say(policy.Denied, "NATS does not permit that to "+who+": "+askForMore)
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired):
		return say(policy.Denied, "NATS does not let in "+who+"; show credentials that `microwall nats-config` has made, of a principal that is in the server's list")
	case errors.Is(err, nats.ErrNkeysNotSupported):
		return say(policy.Denied, "this NATS server knows no credentials: "+makeAccounts)
	case errors.Is(err, nats.ErrSecureConnWanted):
		return say(policy.Unavailable, "this NATS server has no TLS: give it a certificate (`microwall nats-config --tls-cert`), or write nats:// for one on this machine")
	}
	return say(policy.Unavailable, "see that NATS runs there and can be reached")
}

const (
	askForMore   = "a PDP is of kind pdp, and a client lists its namespaces; their guardrails are those of the trust file that `microwall nats-config` was given; run it again"
	makeAccounts = "run it by the file that `microwall nats-config` writes"
)

// explainAsk says of the error of a question what to do about it.
func explainAsk(domain string, err error) error {
	switch {
	case errors.Is(err, nats.ErrPermissionViolation):
		return policy.Errorf(policy.Denied, "%w; these credentials may not read it: %s", err, askForMore)
	case errors.Is(err, nats.ErrNoResponders):
		return policy.Errorf(policy.Unavailable, "%w; this NATS server has no releases of %s: no PDP has been connected to it yet, or it has not Microwall's accounts; start one, or %s", err, domain, makeAccounts)
	case errors.Is(err, nats.ErrTimeout):
		return policy.Errorf(policy.Unavailable, "%w; no answer came: see that a PDP has been connected to this NATS server, and that the servers are well", err)
	}
	return fmt.Errorf("%w; it is asked again", err)
}
