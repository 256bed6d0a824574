package enforce

import (
	"context"
	"crypto/x509"
	"maps"
	"net/http"

	"github.com/microwall/microwall/policy"
)

// asked is a call with what its protocol says of who makes it.
type asked struct {
	Call
	next   http.Handler      // of an HTTP request: what it is for
	leaf   *x509.Certificate // of the peer, verified; nil if there is none
	claims []string          // each value of the header
}

// Members that are set here and by nobody else.
const (
	callPath        = "call_path"
	callPathClaimed = "call_path_claimed"
	routePath       = "path"
)

// request makes the request. The path is that of [Enforcer.callPath], empty
// without a certificate.
func (e *Enforcer) request(ctx context.Context, c *asked, path []string, claimed int) (r policy.Request, err error) {
	r.Namespace = e.config.Namespace
	var asked string
	if c.HTTP != nil {
		r.Action.Name, r.Resource, asked, err = e.route(c)
	} else {
		r.Action.Name, r.Resource, err = method(c.FullMethod)
	}
	if err != nil {
		return r, err
	}
	if r.Subject, err = e.subject(ctx, c, path); err != nil {
		return r, err
	}
	var more Properties
	if e.config.Describe != nil {
		if more, err = e.config.Describe(ctx, c.Call); err != nil {
			return r, policy.Errorf(policy.Denied, "the call could not be described: %w", err)
		}
	}
	r.Freshness = more.Freshness
	if len(more.Subject) > 0 {
		if r.Subject.Properties.Len() > 0 {
			return r, policy.Errorf(policy.Denied, "the subject has properties by Config.Subject and by Config.Describe; set them in one place")
		}
		if r.Subject.Properties, err = policy.NewProperties(more.Subject); err != nil {
			return r, err
		}
	}
	if r.Action.Properties, err = policy.NewProperties(more.Action); err != nil {
		return r, err
	}
	for _, own := range [...]struct {
		where, name string
		of          map[string]any
	}{{"context", callPath, more.Context}, {"context", callPathClaimed, more.Context}, {"resource", routePath, more.Resource}} {
		if _, ok := own.of[own.name]; ok && (own.name != routePath || c.HTTP != nil) {
			return r, policy.Errorf(policy.Denied, "Config.Describe sets %q of the %s, which only the call itself says", own.name, own.where)
		}
	}
	if c.HTTP != nil {
		more.Resource = with(more.Resource, routePath, asked)
	}
	if r.Resource.Properties, err = policy.NewProperties(more.Resource); err != nil {
		return r, err
	}
	if len(path) > 0 {
		more.Context = with(more.Context, callPath, path)
		more.Context[callPathClaimed] = claimed
	}
	r.Context, err = policy.NewProperties(more.Context)
	return r, err
}

// with returns m with one member more. It does not change m, which the callback
// that returned it may use for all calls.
func with(m map[string]any, name string, value any) map[string]any {
	if m = maps.Clone(m); m == nil {
		m = make(map[string]any, 2)
	}
	m[name] = value
	return m
}

func (e *Enforcer) subject(ctx context.Context, c *asked, path []string) (policy.Entity, error) {
	switch {
	case len(path) > 0:
		return policy.Entity{Type: "workload", ID: path[len(path)-1]}, nil
	case e.config.Subject == nil:
		return policy.Entity{}, policy.Errorf(policy.Denied,
			"nobody knows who calls: no client certificate was verified; set tls.Config.ClientAuth to RequireAndVerifyClientCert, or Config.Subject for another authentication")
	}
	s, err := e.config.Subject(ctx, c.Call)
	if err != nil {
		return policy.Entity{}, policy.Errorf(policy.Denied, "nobody knows who calls: %w", err)
	}
	return s, nil
}
