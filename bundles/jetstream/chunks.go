package jetstream

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/microwall/microwall/policy"
)

// DefaultMaxPacked is how large a packed bundle may be unless configured.
const DefaultMaxPacked = 128 << 20

// chunksAtOnce is how many chunks of one bundle are asked for at the same time,
// so that a long way to the broker does not cost a round trip each.
const chunksAtOnce = 4

// sums returns the sums of packed's chunks in order.
func sums(packed []byte) []policy.Digest {
	var all []policy.Digest
	for ; len(packed) > ChunkSize; packed = packed[ChunkSize:] {
		all = append(all, policy.DigestOf(packed[:ChunkSize]))
	}
	return append(all, policy.DigestOf(packed))
}

// collect puts a packed bundle together. get returns the bytes of one chunk,
// checked by checkChunk.
func collect(ctx context.Context, chunks []policy.Digest, limit int64, get func(context.Context, int) ([]byte, error)) ([]byte, error) {
	// All chunks but the last are full, so this is what it has at least.
	if least := int64(len(chunks)-1)*ChunkSize + 1; least > limit {
		return nil, policy.Errorf(policy.Exhausted, "bundle has %d chunks, over %d bytes packed; the limit is %d, raise it if the bundle is meant to be that large", len(chunks), least-1, limit)
	}
	packed := make([]byte, len(chunks)*ChunkSize)
	last := 0
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(chunksAtOnce)
	for i := range chunks {
		g.Go(func() error {
			chunk, err := get(ctx, i)
			if err != nil {
				return err
			}
			n := copy(packed[i*ChunkSize:], chunk)
			if i == len(chunks)-1 {
				last = n
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	packed = packed[:(len(chunks)-1)*ChunkSize+last]
	if int64(len(packed)) > limit {
		return nil, policy.Errorf(policy.Exhausted, "bundle is %d bytes packed, the limit is %d; raise it if the bundle is meant to be that large", len(packed), limit)
	}
	return packed, nil
}

// checkChunk reports whether these are the bytes of chunk i.
func checkChunk(chunks []policy.Digest, i int, chunk []byte) error {
	full := i < len(chunks)-1
	if policy.DigestOf(chunk) != chunks[i] || len(chunk) == 0 || len(chunk) > ChunkSize || full && len(chunk) != ChunkSize {
		return policy.Errorf(policy.Unavailable, "the broker holds other bytes under chunk %s (%d of %d) than were stored there; purge the subject and push the bundle again", chunks[i], i+1, len(chunks))
	}
	return nil
}
