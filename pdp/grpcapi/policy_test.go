package grpcapi_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// released is a PDP with three releases of shop.cart, the oldest first.
func released(t *testing.T) (*testkit.Domain, *testkit.PDP, []*bundles.Signed) {
	t.Helper()
	d := testkit.NewDomain(t)
	p := d.StartPDP(testkit.NATS(t, t.TempDir()).URL(), t.TempDir())
	d.Push(p, "center", "shop", "deny contains \"no\" if false")
	var all []*bundles.Signed
	for _, module := range []string{"allow := false", "allow if input.action.name == \"Add\"", "allow := true"} {
		all = append(all, d.Push(p, "cart", "shop.cart", module).Release)
	}
	return d, p, all
}

func TestReleasesAreListedPageByPage(t *testing.T) {
	_, p, all := released(t)
	c := microwallv1.NewPolicyServiceClient(p.Conn)
	slices.Reverse(all)
	for _, size := range []int32{0, 1, 2, 3, 1000} {
		var notes [][]byte
		for token := ""; ; {
			page, err := c.ListReleases(t.Context(), &microwallv1.ListReleasesRequest{Namespace: "shop.cart", PageSize: size, PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			if size > 0 && len(page.GetReleases()) > int(size) {
				t.Errorf("page of %d: %d releases", size, len(page.GetReleases()))
			}
			notes = append(notes, page.GetReleases()...)
			if token = page.GetNextPageToken(); token == "" {
				break
			}
		}
		if !slices.EqualFunc(notes, all, func(note []byte, s *bundles.Signed) bool { return bytes.Equal(note, s.Note()) }) {
			t.Errorf("pages of %d: %d releases, not the %d newest first", size, len(notes), len(all))
		}
	}
	for name, test := range map[string]struct {
		m    *microwallv1.ListReleasesRequest
		code codes.Code
		says string
	}{
		"a page of less than nothing": {&microwallv1.ListReleasesRequest{Namespace: "shop.cart", PageSize: -1}, codes.InvalidArgument, "page_size"},
		"a token of somebody else":    {&microwallv1.ListReleasesRequest{Namespace: "shop.cart", PageToken: "x"}, codes.InvalidArgument, "page_token"},
		"a token before the start":    {&microwallv1.ListReleasesRequest{Namespace: "shop.cart", PageToken: "-1"}, codes.InvalidArgument, "page_token"},
		"no namespace":                {&microwallv1.ListReleasesRequest{}, codes.InvalidArgument, "namespace"},
		"a wildcard":                  {&microwallv1.ListReleasesRequest{Namespace: "shop.>"}, codes.InvalidArgument, "namespace"},
		"nobody's namespace":          {&microwallv1.ListReleasesRequest{Namespace: "shop.pay"}, codes.NotFound, "microwall push"},
	} {
		if page, err := c.ListReleases(t.Context(), test.m); page != nil || status.Code(err) != test.code || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, %v", name, page, err)
		}
	}
	if page, err := c.ListReleases(t.Context(), &microwallv1.ListReleasesRequest{Namespace: "shop.cart", PageToken: "4711"}); err != nil || len(page.GetReleases()) != 0 || page.GetNextPageToken() != "" {
		t.Errorf("beyond the last page: %v, %v", page, err)
	}
}

func TestAReleaseAndItsBundleAreHandedOutAsTheyWereSigned(t *testing.T) {
	_, p, all := released(t)
	c := microwallv1.NewPolicyServiceClient(p.Conn)
	for name, test := range map[string]struct {
		epoch, revision uint64
		want            *bundles.Signed // nil is NOT_FOUND
	}{
		"the head":                          {0, 0, all[2]},
		"the head, whatever the epoch says": {7, 0, all[2]},
		"the first":                         {1, 1, all[0]},
		"the second":                        {1, 2, all[1]},
		"one that does not exist":           {1, 4, nil},
		"one of another epoch":              {2, 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			one, err := c.GetRelease(t.Context(), &microwallv1.GetReleaseRequest{Namespace: "shop.cart", Epoch: test.epoch, Revision: test.revision})
			stream, streamErr := c.GetBundle(t.Context(), &microwallv1.GetBundleRequest{Namespace: "shop.cart", Epoch: test.epoch, Revision: test.revision})
			if streamErr != nil {
				t.Fatal(streamErr)
			}
			var note, packed []byte
			var end error
			for end == nil {
				var m *microwallv1.GetBundleResponse
				m, end = stream.Recv()
				if r := m.GetRelease(); r != nil && (note != nil || packed != nil) {
					t.Error("the release does not come first, or comes twice")
				}
				note, packed = append(note, m.GetRelease()...), append(packed, m.GetChunk()...)
			}
			if test.want == nil {
				if status.Code(err) != codes.NotFound || status.Code(end) != codes.NotFound || note != nil || packed != nil {
					t.Errorf("%v, %v", err, end)
				}
				return
			}
			if err != nil || !bytes.Equal(one.GetRelease(), test.want.Note()) {
				t.Errorf("GetRelease: %q, %v", one.GetRelease(), err)
			}
			if !errors.Is(end, io.EOF) || !bytes.Equal(note, test.want.Note()) {
				t.Errorf("GetBundle: %q, %v", note, end)
			}
			if b, err := test.want.Unpack(bytes.NewReader(packed), bundles.Limits{}); err != nil || b.Digest() != test.want.Release().Bundle {
				t.Errorf("GetBundle: the bundle does not open: %v", err)
			}
		})
	}
}

func TestAPushThatIsNotOneReleaseAndItsBundleIsRefused(t *testing.T) {
	d, p, all := released(t)
	next := d.Release("cart", "shop.cart", all[2], d.Rego("allow := false\n# next"))
	release := &microwallv1.PushRequest{Part: &microwallv1.PushRequest_Release{Release: next.Note()}}
	chunk := &microwallv1.PushRequest{Part: &microwallv1.PushRequest_Chunk{Chunk: next.Packed}}
	half := &microwallv1.PushRequest{Part: &microwallv1.PushRequest_Chunk{Chunk: next.Packed[:len(next.Packed)/2]}}
	for name, test := range map[string]struct {
		messages []*microwallv1.PushRequest
		says     string
	}{
		"nothing":                      {nil, "before its release"},
		"a message without a part":     {[]*microwallv1.PushRequest{{}}, "first message"},
		"a bundle before the release":  {[]*microwallv1.PushRequest{chunk, release}, "first message"},
		"an empty release":             {[]*microwallv1.PushRequest{{Part: &microwallv1.PushRequest_Release{}}, chunk}, "first message"},
		"two releases":                 {[]*microwallv1.PushRequest{release, release, chunk}, "one release"},
		"a release after its bundle":   {[]*microwallv1.PushRequest{release, chunk, release}, "one release"},
		"half of a bundle":             {[]*microwallv1.PushRequest{release, half}, ""},
		"a bundle and a half":          {[]*microwallv1.PushRequest{release, chunk, half}, ""},
		"a bundle twice":               {[]*microwallv1.PushRequest{release, chunk, chunk}, ""},
		"a release without its bundle": {[]*microwallv1.PushRequest{release}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := microwallv1.NewPolicyServiceClient(p.Conn).Push(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range test.messages {
				if err := stream.Send(m); err != nil && !errors.Is(err, io.EOF) { // refused meanwhile
					t.Fatal(err)
				}
			}
			answer, err := stream.CloseAndRecv()
			if answer != nil || status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, %v", answer, err)
			}
			unchanged(t, d, p, all[2])
		})
	}
	t.Run("an author who hangs up", func(t *testing.T) {
		ctx, hangUp := context.WithCancel(t.Context())
		stream, err := microwallv1.NewPolicyServiceClient(p.Conn).Push(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(stream.Send(release), stream.Send(half)); err != nil {
			t.Fatal(err)
		}
		hangUp()
		if answer, err := stream.CloseAndRecv(); answer != nil || err == nil {
			t.Errorf("%v, %v", answer, err)
		}
		unchanged(t, d, p, all[2])
	})
	// The same release, sent as it should be, is taken.
	stream, err := microwallv1.NewPolicyServiceClient(p.Conn).Push(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.Send(release), stream.Send(chunk)); err != nil {
		t.Fatal(err)
	}
	if answer, err := stream.CloseAndRecv(); err != nil || answer.GetVersion().GetRevision() != 4 || answer.GetVersion().GetDigest() != next.Digest().String() {
		t.Errorf("%v, %v", answer, err)
	}
}

// unchanged fails unless head is the head, and decides.
func unchanged(t *testing.T, d *testkit.Domain, p *testkit.PDP, head *bundles.Signed) {
	t.Helper()
	got, err := d.PAP(p).Head(t.Context(), "shop.cart")
	if err != nil || got.Digest() != head.Digest() {
		t.Errorf("the head is %v, %v", got, err)
	}
	decision, err := p.Service.Authorize(t.Context(), testkit.Request("shop.cart", "Remove"))
	if err != nil || !decision.Allowed || !slices.ContainsFunc(decision.Versions, func(v policy.Version) bool { return v.Digest == head.Digest() }) {
		t.Errorf("%+v, %v", decision, err)
	}
}
