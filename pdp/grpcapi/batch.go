package grpcapi

import (
	"cmp"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// encoded is an answer that is bytes already.
type encoded []byte

// batchAnswer is an AuthorizeBatchResponse that is encoded result by result.
// Most results of a batch are a bare yes or no, and those on one path are the
// same bytes.
type batchAnswer struct {
	bytes    encoded
	versions []policy.Version  // each once, sorted by namespace
	made     policy.Evaluation // of all decisions
	bare     map[bareResult]encoded
	last     bareResult // what is encoded as lastRaw, if that is there
	lastRaw  encoded
}

// bareResult is a decision without reasons and obligations that is not stale.
type bareResult struct {
	allowed bool
	path    path
}

// path is a slice of versions, known again by where it is: nobody changes the
// versions of a decision, and all decisions of a snapshot on one path share them.
type path struct {
	first *policy.Version
	n     int
}

func pathOf(versions []policy.Version) path {
	if len(versions) == 0 {
		return path{}
	}
	return path{&versions[0], len(versions)}
}

// madeBy returns the versions that a result comes from.
func madeBy(r *policy.Result) []policy.Version {
	if r.Err != nil {
		return policy.VersionsOf(r.Err)
	}
	return r.Decision.Versions
}

// newBatchAnswer begins an answer of so many results, of which those that were
// asked for are given.
func newBatchAnswer(n int, results []policy.Result) *batchAnswer {
	const usual = 16 // bytes of a result
	return &batchAnswer{bytes: make(encoded, 0, n*usual), versions: distinct(results), bare: make(map[bareResult]encoded)}
}

// distinct returns the versions that made decisions, each once, sorted by
// namespace. One batch has one snapshot, and a namespace one version in it.
func distinct(results []policy.Result) []policy.Version {
	all := make(map[policy.Namespace]policy.Version)
	var last path
	for i := range results {
		versions := madeBy(&results[i])
		if p := pathOf(versions); p != last {
			last = p
			for _, v := range versions {
				all[v.Namespace] = v
			}
		}
	}
	return slices.SortedFunc(maps.Values(all), func(v, w policy.Version) int { return cmp.Compare(v.Namespace, w.Namespace) })
}

// add adds the next result.
func (b *batchAnswer) add(r *policy.Result) error {
	d := &r.Decision
	if r.Err == nil {
		b.made = d.Evaluation
	}
	if r.Err != nil || len(d.Reasons) > 0 || d.Obligations.Len() > 0 || len(d.Stale) > 0 {
		raw, err := proto.Marshal(b.result(r))
		b.append(1, raw)
		return err
	}
	if known := (bareResult{d.Allowed, pathOf(d.Versions)}); known != b.last || b.lastRaw == nil {
		raw, ok := b.bare[known]
		if !ok {
			var err error
			if raw, err = proto.Marshal(b.result(r)); err != nil {
				return err
			}
			b.bare[known] = raw
		}
		b.last, b.lastRaw = known, raw
	}
	b.append(1, b.lastRaw)
	return nil
}

// encoded ends the answer.
func (b *batchAnswer) encoded() (encoded, error) {
	for _, v := range b.versions {
		raw, err := proto.Marshal(wire.VersionProto(v))
		if err != nil {
			return nil, err
		}
		b.append(2, raw)
	}
	if made := wire.EvaluationProto(b.made); made != nil {
		raw, err := proto.Marshal(made)
		if err != nil {
			return nil, err
		}
		b.append(3, raw)
	}
	return b.bytes, nil
}

// append adds an element of a field of AuthorizeBatchResponse: 1 are its
// results, 2 its versions, 3 is its evaluation.
func (b *batchAnswer) append(field protowire.Number, element []byte) {
	b.bytes = protowire.AppendBytes(protowire.AppendTag(b.bytes, field, protowire.BytesType), element)
}

func (b *batchAnswer) result(r *policy.Result) *microwallv1.BatchResult {
	var m *microwallv1.BatchResult
	if r.Err != nil {
		m = failed(r.Err)
	} else {
		d, err := wire.DecisionProto(&r.Decision)
		if err != nil {
			return failed(err)
		}
		m = &microwallv1.BatchResult{Result: &microwallv1.BatchResult_Decision{Decision: d}}
	}
	for _, v := range madeBy(r) {
		place, _ := slices.BinarySearchFunc(b.versions, v.Namespace, func(v policy.Version, n policy.Namespace) int { return cmp.Compare(v.Namespace, n) })
		m.Path = append(m.Path, uint32(place)) //nolint:gosec // no more than the batch has items times labels
	}
	return m
}

func failed(err error) *microwallv1.BatchResult {
	s := Status(err)
	return &microwallv1.BatchResult{Result: &microwallv1.BatchResult_Error{
		Error: &microwallv1.BatchError{Code: int32(s.Code()), Message: s.Message()}, //nolint:gosec // status codes are below 17
	}}
}
