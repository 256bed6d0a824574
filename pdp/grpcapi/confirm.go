package grpcapi

import (
	"context"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// maxConfirming is how many namespaces are confirmed at once, for all who ask: as
// many as an issuer has waiting. Each is a question to it, and waits for seconds
// where none issues.
const maxConfirming = 4096

// Confirm asks for all at once, so that they share a tick.
func (p *policies) Confirm(ctx context.Context, m *microwallv1.ConfirmRequest) (*microwallv1.ConfirmResponse, error) {
	if p.confirm == nil {
		return nil, policy.Errorf(policy.Unavailable, "this server cannot confirm heads; it decides by folders")
	}
	namespaces, err := p.namespaces(m.GetNamespaces())
	if err != nil {
		return nil, err
	}
	some := int64(len(namespaces))
	defer p.confirming.Add(-some)
	if p.confirming.Add(some) > maxConfirming {
		return nil, policy.Errorf(policy.Exhausted, "%d heads may be confirmed here at once, which leaves no room for %d more; ask again later, or ask another PDP", maxConfirming, some)
	}
	answer := &microwallv1.ConfirmResponse{Heads: make([]*microwallv1.ConfirmedHead, len(namespaces))}
	group, ctx := errgroup.WithContext(ctx)
	for i, n := range namespaces {
		group.Go(func() error {
			beacon, err := p.confirm(ctx, n)
			if err != nil {
				return err
			}
			head, ok := beacon.Head(n)
			if !ok {
				return policy.Errorf(policy.Unavailable, "the beacon that confirms %s does not speak of it; ask again", n)
			}
			answer.Heads[i] = &microwallv1.ConfirmedHead{Version: wire.VersionProto(head), Time: timestamppb.New(beacon.Time()), Beacon: beacon.Note()}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return answer, nil
}

// namespaces reads the names in a request.
func (p *policies) namespaces(names []string) ([]policy.Namespace, error) {
	if len(names) == 0 {
		return nil, policy.Errorf(policy.BadRequest, "no namespace is named; name at least one")
	}
	if err := p.requests.CheckBatch(len(names)); err != nil {
		return nil, err
	}
	all := make([]policy.Namespace, len(names))
	for i, text := range names {
		n, err := policy.ParseNamespace(text)
		if err != nil {
			return nil, err
		}
		all[i] = n
	}
	return all, nil
}
