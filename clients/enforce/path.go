package enforce

import (
	"context"
	"strings"

	"github.com/microwall/microwall/policy"
)

// Header in which a peer says who called it, as HTTP header and as gRPC metadata.
const Header = "microwall-call-path"

// unreadable is the call path of a call that passed, as Config.ReportOnly has it,
// although its own could not be read. It is no SPIFFE ID: whoever is called next
// and enforces refuses it, as a shorter path would hide who called.
const unreadable = "unreadable"

type pathKey struct{}

// CallPath returns the SPIFFE IDs from the edge on by which the call was made that
// ctx belongs to, the caller of this service last; nil without a client
// certificate. Only the last one is proven. The slice must not be changed.
func CallPath(ctx context.Context) []string {
	path, _ := ctx.Value(pathKey{}).([]string)
	return path
}

// keepPath returns ctx with this path and no other, whoever made it: a handler may
// have lost the path, and a call within the process may bring another one's.
func keepPath(ctx context.Context, path []string) context.Context {
	if has := CallPath(ctx); len(has) != len(path) || len(path) > 0 && &has[0] != &path[0] {
		return context.WithValue(ctx, pathKey{}, path)
	}
	return ctx
}

// callPath returns who called, the peer last, and how many before it are only its
// claim. The path is empty without a certificate.
func (e *Enforcer) callPath(c *asked) (path []string, claimed int, err error) {
	id, err := identify(c.leaf, e.config.TrustDomain)
	if err != nil {
		return []string{unreadable}, 0, err
	}
	if id == "" {
		return nil, 0, nil
	}
	claims, err := readClaims(c.claims, e.config.MaxCallPath-1)
	if err != nil {
		return []string{unreadable}, 0, err
	}
	return append(claims, id), len(claims), nil
}

// readClaims reads the values of the header, with room for one element more.
func readClaims(values []string, most int) ([]string, error) {
	switch {
	case len(values) == 0:
		return make([]string, 0, 1), nil
	case len(values) > 1:
		return nil, policy.Errorf(policy.BadRequest, "%s is there %d times; send it once, SPIFFE IDs with commas between", Header, len(values))
	}
	// Counted before it is split: it is a stranger's.
	n := strings.Count(values[0], ",") + 1
	if n > most {
		return nil, policy.Errorf(policy.BadRequest, "%s has %d elements, and %d are taken; see that services do not call each other in a circle, or raise Config.MaxCallPath", Header, n, most)
	}
	claims := make([]string, 0, n+1)
	for i := range n {
		claim, rest, _ := strings.Cut(values[0], ",")
		values = []string{rest}
		if !validID(claim) {
			return nil, policy.Errorf(policy.BadRequest, "element %d of %s, %.300q, is no SPIFFE ID of a workload; send SPIFFE IDs with commas between", i, Header, claim)
		}
		claims = append(claims, claim)
	}
	return claims, nil
}

// writeClaims writes what [readClaims] reads: the path that this service was called
// by, "" if there is none.
func writeClaims(ctx context.Context) string { return strings.Join(CallPath(ctx), ",") }
