package jetstream_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/policy"
)

func TestNothingAcknowledgedIsMissingAfterSIGKILL(t *testing.T) {
	dir := t.TempDir()
	sizes := []int{0, 100, jetstream.MaxInline, jetstream.MaxInline + 1, jetstream.ChunkSize + 1000}
	type acknowledged struct {
		seq  uint64
		note string
		size int
		seed uint64
	}
	heads := map[policy.Namespace]acknowledged{}
	for kill := range 3 {
		url, sigkill := child(t, dir)
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		acks := 0
		for author := range 4 {
			ns := policy.Namespace(fmt.Sprintf("boutique.team-%d", author))
			mu.Lock()
			last := heads[ns]
			mu.Unlock()
			s := openStore(t, url)
			// What was in flight when the server died may have become the head.
			after := headSeq(t, s, ns)
			wg.Go(func() {
				for i := 0; ; i++ {
					a := acknowledged{note: fmt.Sprintf("%s %d %d", ns, kill, i), size: sizes[i%len(sizes)], seed: uint64(kill*1000 + i)}
					seq, err := s.Put(ctx, ns, []byte(a.note), random(a.seed, a.size), after)
					if err != nil {
						if ctx.Err() == nil {
							t.Error(err)
						}
						break
					}
					a.seq = seq
					after, last = seq, a
					mu.Lock()
					// In the middle of what the other authors are putting.
					if acks++; acks == 25 {
						sigkill()
						cancel()
					}
					mu.Unlock()
				}
				mu.Lock()
				heads[ns] = last
				mu.Unlock()
			})
		}
		wg.Wait()
		cancel()

		url, sigkill = child(t, dir)
		s := openStore(t, url)
		for ns, want := range heads {
			if want.note == "" {
				continue
			}
			history, err := s.History(t.Context(), ns)
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, h := range history {
				if h.Seq != want.seq || string(h.Note) != want.note {
					continue
				}
				found = true
				got, err := s.Bundle(t.Context(), h)
				if want.size > 0 && (err != nil || !bytes.Equal(got, random(want.seed, want.size))) {
					t.Errorf("the bundle of %q has %d bytes, want %d: %v", want.note, len(got), want.size, err)
				}
			}
			if !found {
				t.Errorf("%q was acknowledged as %d and is missing", want.note, want.seq)
			}
			// Nothing is half there.
			for _, h := range history {
				if _, err := s.Bundle(t.Context(), h); err != nil && policy.KindOf(err) != policy.NotFound {
					t.Errorf("%q: %v", h.Note, err)
				}
			}
		}
		sigkill()
	}
}

func TestSIGKILLBetweenBlobAndHeadLeavesNoHead(t *testing.T) {
	dir := t.TempDir()
	url, sigkill := child(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	p := newProxy(t, url, aHead, func() bool {
		sigkill()
		cancel()
		return false
	})
	packed := random(1, 3*jetstream.ChunkSize+5)
	_, err := openStore(t, p.url()).Put(ctx, cart, []byte("note"), packed, 0)
	wantKind(t, err, policy.Unavailable, "not known whether")

	url, _ = child(t, dir)
	s := openStore(t, url)
	_, err = s.Head(t.Context(), cart)
	wantKind(t, err, policy.NotFound)
	if all, err := s.Namespaces(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("namespaces are %v, %v", all, err)
	}
	stream, err := admin(t, url).Stream(t.Context(), "BLOBS")
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n != 4 {
		t.Fatalf("%d chunks were stored before the kill, want 4", n)
	}

	mustPut(t, s, cart, "note", packed, 0)
	h, err := s.Head(t.Context(), cart)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Bundle(t.Context(), h); err != nil || !bytes.Equal(got, packed) {
		t.Errorf("bundle has %d bytes, %v", len(got), err)
	}
	if info, err := stream.Info(t.Context()); err != nil || info.State.Msgs != 4 {
		t.Errorf("the chunks were stored twice: %+v, %v", info, err)
	}
}
