package grpcapi

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

const (
	chunkSize   = 256 << 10
	pageSize    = 100
	hintNoStore = "this server decides by folders and takes no releases; edit the folder, or start `microwall serve` without --dir"
)

type policies struct {
	microwallv1.UnimplementedPolicyServiceServer
	releases *pdp.Releases   // nil where folders decide
	watch    *pdp.Service    // nil if nothing can be watched
	stopping context.Context //nolint:containedctx // it is the server's life, which no call's context knows
	limits   bundles.Limits
	requests policy.Limits
	// confirm is nil where heads cannot be confirmed.
	confirm    func(context.Context, policy.Namespace) (*bundles.SignedBeacon, error)
	confirming atomic.Int64  // namespaces that are being confirmed
	handOuts   chan struct{} // one for each bundle, or list of statuses, that is handed out
	timeout    time.Duration // of a hand-out
}

func (p *policies) store() (*pdp.Releases, error) {
	if p.releases == nil {
		return nil, policy.Errorf(policy.Unavailable, hintNoStore)
	}
	return p.releases, nil
}

// Push asks for the bundle only once the release was found worth having.
func (p *policies) Push(stream grpc.ClientStreamingServer[microwallv1.PushRequest, microwallv1.PushResponse]) error {
	releases, err := p.store()
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return policy.Errorf(policy.BadRequest, "push ended before its release: %w", err)
	}
	note := first.GetRelease()
	if len(note) == 0 {
		return policy.Errorf(policy.BadRequest, "the first message of a push carries the signed release")
	}
	receipt, err := releases.Push(stream.Context(), note, func(context.Context) ([]byte, error) { return p.receive(stream) })
	if err != nil {
		return err
	}
	return stream.SendAndClose(&microwallv1.PushResponse{Version: wire.VersionProto(receipt.Version), Warnings: receipt.Warnings, Token: string(receipt.Version.Token())})
}

// receive takes the chunks of a bundle, growing with what really arrives.
func (p *policies) receive(stream grpc.ClientStreamingServer[microwallv1.PushRequest, microwallv1.PushResponse]) ([]byte, error) {
	most := p.limits.WithDefaults().Packed
	var packed []byte
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return packed, nil
		case err != nil:
			return nil, policy.Errorf(policy.BadRequest, "push ended in the middle of its bundle: %w", err)
		case m.GetRelease() != nil:
			return nil, policy.Errorf(policy.BadRequest, "a push carries one release, in its first message")
		case int64(len(packed)+len(m.GetChunk())) > most:
			return nil, policy.Errorf(policy.Exhausted, "packed bundle is over the limit of %d bytes; raise --max-bundle-packed", most)
		}
		packed = append(packed, m.GetChunk()...)
	}
}

func (p *policies) GetBundle(m *microwallv1.GetBundleRequest, stream grpc.ServerStreamingServer[microwallv1.GetBundleResponse]) error {
	releases, err := p.store()
	if err != nil {
		return err
	}
	n, err := policy.ParseNamespace(m.GetNamespace())
	if err != nil {
		return err
	}
	select {
	case p.handOuts <- struct{}{}:
		defer func() { <-p.handOuts }()
	default:
		return policy.Errorf(policy.Exhausted, "%d bundles are handed out already; ask again later, or ask another PDP", cap(p.handOuts))
	}
	ctx, cancel := context.WithTimeout(stream.Context(), p.timeout)
	defer cancel()
	head, err := releases.Get(ctx, n, m.GetEpoch(), m.GetRevision())
	if err != nil {
		return p.handOutEnded(ctx, stream.Context(), err)
	}
	packed, err := releases.Bundle(ctx, head)
	if err != nil {
		return p.handOutEnded(ctx, stream.Context(), err)
	}
	// A send waits until the peer reads, for ever if need be, and only the end
	// of the call interrupts it; that is why another goroutine sends.
	done := make(chan error, 1)
	go func() { done <- handOut(stream, head.Note, packed) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return p.handOutEnded(ctx, stream.Context(), ctx.Err())
	}
}

// handOutEnded says whose end it was: that of the hand-out's deadline, of the
// call, or another.
func (p *policies) handOutEnded(ctx, call context.Context, err error) error {
	if ctx.Err() == nil || call.Err() != nil {
		return err
	}
	return policy.Errorf(policy.Exhausted, "what was asked for was not handed out within %s; ask again, and read as it comes", p.timeout)
}

func handOut(stream grpc.ServerStreamingServer[microwallv1.GetBundleResponse], note, packed []byte) error {
	if err := stream.Send(&microwallv1.GetBundleResponse{Part: &microwallv1.GetBundleResponse_Release{Release: note}}); err != nil {
		return err
	}
	for len(packed) > 0 {
		k := min(len(packed), chunkSize)
		if err := stream.Send(&microwallv1.GetBundleResponse{Part: &microwallv1.GetBundleResponse_Chunk{Chunk: packed[:k]}}); err != nil {
			return err
		}
		packed = packed[k:]
	}
	return nil
}

func (p *policies) GetRelease(ctx context.Context, m *microwallv1.GetReleaseRequest) (*microwallv1.GetReleaseResponse, error) {
	releases, err := p.store()
	if err != nil {
		return nil, err
	}
	n, err := policy.ParseNamespace(m.GetNamespace())
	if err != nil {
		return nil, err
	}
	head, err := releases.Get(ctx, n, m.GetEpoch(), m.GetRevision())
	if err != nil {
		return nil, err
	}
	return &microwallv1.GetReleaseResponse{Release: head.Note}, nil
}

// ListReleases pages by position from the newest. A push between two pages
// moves the positions by one, so that a release is then listed twice, never
// left out.
func (p *policies) ListReleases(ctx context.Context, m *microwallv1.ListReleasesRequest) (*microwallv1.ListReleasesResponse, error) {
	releases, err := p.store()
	if err != nil {
		return nil, err
	}
	n, err := policy.ParseNamespace(m.GetNamespace())
	if err != nil {
		return nil, err
	}
	size := int(m.GetPageSize())
	if size < 0 {
		return nil, policy.Errorf(policy.BadRequest, "page_size is %d; it is 0 for the default or more", size)
	}
	if size == 0 || size > pageSize {
		size = pageSize
	}
	from := 0
	if token := m.GetPageToken(); token != "" {
		if from, err = strconv.Atoi(token); err != nil || from < 0 {
			return nil, policy.Errorf(policy.BadRequest, "page_token %q is not one that this server gave out", token)
		}
	}
	notes, err := releases.List(ctx, n)
	if err != nil {
		return nil, err
	}
	from = min(from, len(notes))
	to := min(from+size, len(notes))
	answer := &microwallv1.ListReleasesResponse{Releases: notes[from:to]}
	if to < len(notes) {
		answer.NextPageToken = strconv.Itoa(to)
	}
	return answer, nil
}
