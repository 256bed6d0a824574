package grpcapi

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

type authorization struct {
	microwallv1.UnimplementedAuthorizationServiceServer
	decide policy.Authorizer
	limits policy.Limits
}

func (a *authorization) Authorize(ctx context.Context, m *microwallv1.AuthorizeRequest) (*microwallv1.AuthorizeResponse, error) {
	r, err := wire.Request(m)
	if err != nil {
		return nil, err
	}
	d, err := a.decide.Authorize(ctx, r)
	if err != nil {
		return nil, err
	}
	decision, err := wire.DecisionProto(&d)
	if err != nil {
		return nil, err
	}
	return &microwallv1.AuthorizeResponse{Decision: decision, Versions: wire.VersionsProto(d.Versions)}, nil
}

func (a *authorization) AuthorizeBatch(ctx context.Context, m *microwallv1.AuthorizeBatchRequest) (*microwallv1.AuthorizeBatchResponse, error) {
	n := len(m.GetItems())
	if err := a.limits.CheckBatch(n); err != nil {
		return nil, err
	}
	batch := wire.ReadBatch(m)
	answer := &microwallv1.AuthorizeBatchResponse{Results: make([]*microwallv1.BatchResult, n)}
	// An item that cannot be read has its error; the others are asked.
	var rs []policy.Request
	var at []int
	for i, item := range m.GetItems() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r, err := readItem(batch, i, proto.Size(item), a.limits)
		if err != nil {
			answer.Results[i] = failed(err)
			continue
		}
		rs, at = append(rs, r), append(at, i)
	}
	if len(rs) == 0 {
		return answer, nil
	}
	results, err := a.decide.AuthorizeBatch(ctx, rs)
	if err != nil {
		return nil, err
	}
	places := make(map[policy.Namespace]uint32)
	for _, v := range distinct(results) {
		places[v.Namespace] = uint32(len(answer.GetVersions())) //nolint:gosec // no more than the batch has items times labels
		answer.Versions = append(answer.Versions, wire.VersionProto(v))
	}
	for j := range results {
		answer.Results[at[j]] = batchResult(&results[j], places)
	}
	return answer, nil
}

// readItem reads item i of a batch, which has so many bytes on the wire.
func readItem(batch *wire.Batch, i, size int, limits policy.Limits) (policy.Request, error) {
	if err := wire.CheckSize(size, limits); err != nil {
		return policy.Request{}, err
	}
	return batch.Request(i)
}

// distinct returns the versions that made decisions, each once, sorted by
// namespace. One batch has one snapshot, and a namespace one version in it.
func distinct(results []policy.Result) []policy.Version {
	all := make(map[policy.Namespace]policy.Version)
	for i := range results {
		for _, v := range results[i].Decision.Versions {
			all[v.Namespace] = v
		}
	}
	return slices.SortedFunc(maps.Values(all), func(v, w policy.Version) int { return cmp.Compare(v.Namespace, w.Namespace) })
}

func batchResult(r *policy.Result, places map[policy.Namespace]uint32) *microwallv1.BatchResult {
	if r.Err != nil {
		return failed(r.Err)
	}
	d, err := wire.DecisionProto(&r.Decision)
	if err != nil {
		return failed(err)
	}
	m := &microwallv1.BatchResult{Result: &microwallv1.BatchResult_Decision{Decision: d}}
	for _, v := range r.Decision.Versions {
		m.Path = append(m.Path, places[v.Namespace])
	}
	return m
}

func failed(err error) *microwallv1.BatchResult {
	s := Status(err)
	return &microwallv1.BatchResult{Result: &microwallv1.BatchResult_Error{
		Error: &microwallv1.BatchError{Code: int32(s.Code()), Message: s.Message()}, //nolint:gosec // status codes are below 17
	}}
}
