package pdp

import (
	"context"
	"slices"

	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/policy"
)

// fresh returns the snapshot by which requests are decided, as fresh as all of
// them ask for together; nil if they ask for nothing: then it is the newest one
// when they are decided. Whoever waits here takes no slot from those who can be
// decided.
func (s *Service) fresh(ctx context.Context, rs []policy.Request) (*live.Snapshot, error) {
	if !slices.ContainsFunc(rs, func(r policy.Request) bool { return !r.Freshness.IsZero() }) {
		return nil, nil
	}
	n := waitsFor(rs)
	defer s.patient.Add(-n)
	if s.patient.Add(n) > int64(s.config.Queue) {
		return nil, policy.Errorf(policy.Exhausted, "releases of %d namespaces may be waited for here at once, which leaves no room for %d more; ask again later, ask another PDP, or split the batch", s.config.Queue, n)
	}
	return live.Fresh(ctx, s.config.Source, rs, s.config.Confirm)
}

// waitsFor returns of how many namespaces the heads may have to be confirmed: each of
// a batch may name another one. What was only seen is not waited for.
func waitsFor(rs []policy.Request) int64 {
	waits := func(r policy.Request) bool { return r.Freshness.IsHead() || len(r.Freshness.Tokens()) > 0 }
	if !slices.ContainsFunc(rs, waits) {
		return 0
	}
	all := make(map[policy.Namespace]struct{}, 1)
	for i := range rs {
		all[rs[i].Namespace] = struct{}{}
	}
	return int64(len(all))
}
