package main

import (
	"context"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// newLocal returns a snapshot in which the policy in a folder decides for a
// namespace, bound by the guardrails in others. They must compile.
func newLocal(ctx context.Context, own *policyFolder, n policy.Namespace, guardrails []*policyFolder) (*live.Snapshot, error) {
	if n == "" {
		return nil, policy.Errorf(policy.BadRequest, "nothing says which namespace %s is; write metadata.microwall.namespace into its .manifest, or give --namespace", own.dir)
	}
	all := map[policy.Namespace]*bundles.Bundle{n: own.bundle}
	var binding []policy.Namespace
	for _, g := range guardrails {
		above := g.bundle.Namespace()
		switch {
		case above == n && g.bundle.Digest() == own.bundle.Digest():
			continue // guardrails that are asked or tested themselves
		case above == n:
			return nil, policy.Errorf(policy.BadRequest, "--guardrail %s is another policy of %s itself; name guardrails of a namespace above", g.dir, n)
		case !n.Within(above):
			return nil, policy.Errorf(policy.BadRequest, "--guardrail %s is of namespace %s, which is not above %s and does not bind it; name one above, and say so in its .manifest", g.dir, orDash(string(above)), n)
		case all[above] != nil:
			return nil, policy.Errorf(policy.BadRequest, "two folders with guardrails are namespace %s; give each once", above)
		}
		all[above] = g.bundle
		binding = append(binding, above)
	}
	return live.NewLocal(ctx, all, binding, rego.Options{})
}
