package grpcapi

import (
	"context"

	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

func (p *policies) PushTrust(ctx context.Context, m *microwallv1.PushTrustRequest) (*microwallv1.PushTrustResponse, error) {
	releases, err := p.store()
	if err != nil {
		return nil, err
	}
	if len(m.GetTrust()) == 0 {
		return nil, policy.Errorf(policy.BadRequest, "a push of the trust file carries it, signed")
	}
	version, err := releases.PushTrust(ctx, m.GetTrust())
	if err != nil {
		return nil, err
	}
	return &microwallv1.PushTrustResponse{Version: version}, nil
}

func (p *policies) GetTrust(ctx context.Context, m *microwallv1.GetTrustRequest) (*microwallv1.GetTrustResponse, error) {
	releases, err := p.store()
	if err != nil {
		return nil, err
	}
	note, err := releases.Trust(ctx, m.GetVersion())
	if err != nil && (m.GetVersion() != 0 || policy.KindOf(err) != policy.NotFound) {
		return nil, err
	}
	return &microwallv1.GetTrustResponse{Trust: note, InForce: releases.TrustInForce()}, nil
}

func (p *policies) ListNamespaces(ctx context.Context, _ *microwallv1.ListNamespacesRequest) (*microwallv1.ListNamespacesResponse, error) {
	releases, err := p.store()
	if err != nil {
		return nil, err
	}
	all, err := releases.Namespaces(ctx)
	if err != nil {
		return nil, err
	}
	answer := &microwallv1.ListNamespacesResponse{Namespaces: make([]string, len(all))}
	for i, n := range all {
		answer.Namespaces[i] = string(n)
	}
	return answer, nil
}
