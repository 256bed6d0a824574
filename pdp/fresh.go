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
	defer s.patient.Add(-1)
	if s.patient.Add(1) > int64(s.config.Queue) {
		return nil, policy.Errorf(policy.Exhausted, "%d requests wait already for releases that they ask for; ask again later, or ask another PDP", s.config.Queue)
	}
	return live.Fresh(ctx, s.config.Source, rs, s.config.Confirm)
}
