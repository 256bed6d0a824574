package pap_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

const allows = "allow := true"

// between is a connection to a real PDP on which somebody interferes: with the
// answers of calls, and with what streams receive.
type between struct {
	grpc.ClientConnInterface
	answer  func(method string, answer any, err error) error
	receive func(method string, message any, err error) error
	before  func(method string) error
}

func (b *between) Invoke(ctx context.Context, method string, in, out any, o ...grpc.CallOption) error {
	err := b.ClientConnInterface.Invoke(ctx, method, in, out, o...)
	if b.answer != nil {
		return b.answer(method, out, err)
	}
	return err
}

func (b *between) NewStream(ctx context.Context, d *grpc.StreamDesc, method string, o ...grpc.CallOption) (grpc.ClientStream, error) {
	if b.before != nil {
		if err := b.before(method); err != nil {
			return nil, err
		}
	}
	s, err := b.ClientConnInterface.NewStream(ctx, d, method, o...)
	if err != nil || b.receive == nil {
		return s, err
	}
	return &stream{s, func(m any, err error) error { return b.receive(method, m, err) }}, nil
}

type stream struct {
	grpc.ClientStream
	receive func(message any, err error) error
}

func (s *stream) RecvMsg(m any) error { return s.receive(m, s.ClientStream.RecvMsg(m)) }

func start(t *testing.T) (*testkit.Domain, *testkit.PDP) {
	d := testkit.NewDomain(t)
	return d, d.StartPDP(testkit.NATS(t, t.TempDir()).URL(), t.TempDir())
}

func history(t *testing.T, d *testkit.Domain, p *testkit.PDP) []uint64 {
	t.Helper()
	entries, err := d.PAP(p).History(t.Context(), "shop.cart")
	if err != nil && policy.KindOf(err) != policy.NotFound {
		t.Fatal(err)
	}
	var revisions []uint64
	for _, e := range entries {
		revisions = append(revisions, e.Signed.Release().Revision)
	}
	return revisions
}

func TestAnAnswerThatIsLostIsASuccessAndNotASecondRelease(t *testing.T) {
	d, p := start(t)
	lost := 0
	conn := &between{ClientConnInterface: p.Conn, receive: func(method string, _ any, err error) error {
		if strings.HasSuffix(method, "/Push") && err == nil {
			lost++
			return status.Error(codes.Unavailable, "the connection broke")
		}
		return err
	}}
	result, err := pap.New(conn, "pdp", d.Trust()).Push(t.Context(), d.Draft("cart", "shop.cart", allows))
	if err != nil || result.Release.Release().Revision != 1 || lost != 1 {
		t.Errorf("got %+v, %v after %d lost answers", result, err, lost)
	}
	if got := history(t, d, p); !slices.Equal(got, []uint64{1}) {
		t.Errorf("history is %v", got)
	}
}

// Others build upon a release before its author, whose answer was lost, looks.
func TestAnAnswerThatIsLostIsASuccessEvenIfOthersHaveFollowed(t *testing.T) {
	for _, tt := range []struct {
		name      string
		followers int
		kind      policy.Kind
		says      string
	}{
		{"and it is kept", 1, policy.Internal, "release 3 by cart has followed already"},
		{"and it is not kept any more", 2, policy.Unavailable, "whether release 2 of shop.cart was taken is not known"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, p := start(t)
			if _, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: p.NATSConn, Domain: "shop", Keep: 2}); err != nil {
				t.Fatal(err)
			}
			d.Push(p, "cart", "shop.cart", allows)
			lost := false
			conn := &between{ClientConnInterface: p.Conn, receive: func(method string, _ any, err error) error {
				if !strings.HasSuffix(method, "/Push") || err != nil || lost {
					return err
				}
				lost = true
				for i := range tt.followers {
					d.Push(p, "cart", "shop.cart", fmt.Sprint(allows, "\n# follower ", i))
				}
				return status.Error(codes.Unavailable, "the connection broke")
			}}
			result, err := pap.New(conn, "pdp", d.Trust()).Push(t.Context(), d.Draft("cart", "shop.cart", allows+"\n# mine"))
			switch {
			case !lost:
				t.Error("no answer was lost")
			case tt.kind != policy.Internal:
				if policy.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "microwall history shop.cart") {
					t.Errorf("got %+v, %v", result, err)
				}
			case err != nil || result.Release.Release().Revision != 2 || len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], tt.says):
				t.Errorf("got %+v, %v", result, err)
			}
		})
	}
}

func TestAPushThatNeverArrivedIsSentAgain(t *testing.T) {
	d, p := start(t)
	failures := 2
	conn := &between{ClientConnInterface: p.Conn, before: func(method string) error {
		if strings.HasSuffix(method, "/Push") && failures > 0 {
			failures--
			return status.Error(codes.Unavailable, "no connection")
		}
		return nil
	}}
	if _, err := pap.New(conn, "pdp", d.Trust()).Push(t.Context(), d.Draft("cart", "shop.cart", allows)); err != nil {
		t.Error(err)
	}
	if got := history(t, d, p); !slices.Equal(got, []uint64{1}) {
		t.Errorf("history is %v", got)
	}
}

func TestAPushThatLostIsToldWhoWon(t *testing.T) {
	d, p := start(t)
	d.Push(p, "cart", "shop.cart", allows)
	other := false
	conn := &between{ClientConnInterface: p.Conn, before: func(method string) error {
		if strings.HasSuffix(method, "/Push") && !other {
			other = true // somebody else, between this author's look at the head and the push
			d.Push(p, "cart", "shop.cart", allows+"\n# other")
		}
		return nil
	}}
	_, err := pap.New(conn, "pdp", d.Trust()).Push(t.Context(), d.Draft("cart", "shop.cart", allows+"\n# mine"))
	if policy.KindOf(err) != policy.Conflict || !strings.Contains(err.Error(), "release 2 by cart") || !strings.Contains(err.Error(), "microwall history") {
		t.Errorf("got %v", err)
	}
	if got := history(t, d, p); !slices.Equal(got, []uint64{2, 1}) {
		t.Errorf("history is %v", got)
	}
}

func TestAPushWhoseFateIsUnknownSaysSo(t *testing.T) {
	d, p := start(t)
	gone := false
	conn := &between{ClientConnInterface: p.Conn,
		receive: func(_ string, _ any, err error) error {
			gone = true
			return status.Error(codes.Unavailable, fmt.Sprint("the connection broke: ", err))
		},
		answer: func(_ string, _ any, err error) error {
			if gone {
				return status.Error(codes.Unavailable, "no connection")
			}
			return err
		},
	}
	_, err := pap.New(conn, "pdp", d.Trust()).Push(t.Context(), d.Draft("cart", "shop.cart", allows))
	if policy.KindOf(err) != policy.Unavailable || !strings.Contains(err.Error(), "not known") || !strings.Contains(err.Error(), "push again") {
		t.Errorf("got %v", err)
	}
}

// A server that lies gets nothing signed.
func TestNothingIsSignedOnTheWordOfAServer(t *testing.T) {
	d, p := start(t)
	d.Push(p, "center", "shop", "deny contains \"x\" if false")
	first := d.Push(p, "cart", "shop.cart", allows)
	d.Push(p, "cart", "shop.cart", "default allow := false")
	forged, _ := d.Forge("stranger", "shop.cart", nil, d.Rego(allows))
	guardrail, err := d.PAP(p).Head(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	evil := bundles.Pack(d.Rego("allow := true\n# evil").Tar())
	release := func(with []byte) func(string, any, error) error {
		return func(_ string, answer any, err error) error {
			switch m := answer.(type) {
			case *microwallv1.GetReleaseResponse:
				m.Release = with
			case *microwallv1.ListReleasesResponse:
				m.Releases = [][]byte{with}
			}
			return err
		}
	}
	draft := d.Draft("cart", "shop.cart", allows+"\n# next")
	pushes := func(c *pap.Client) error { _, err := c.Push(t.Context(), draft); return err }
	rollback := func(c *pap.Client) error {
		_, err := c.Restore(t.Context(), pap.Draft{Namespace: "shop.cart", Signers: []note.Signer{d.Signer("cart")}, Created: testkit.Created}, 0, 1, bundles.Limits{})
		return err
	}
	for name, test := range map[string]struct {
		conn between
		do   func(*pap.Client) error
		want string
	}{
		"a forged head":                  {between{answer: release(forged)}, pushes, "does not verify"},
		"another namespace's head":       {between{answer: release(guardrail.Note())}, pushes, "shop.cart"},
		"garbage for a head":             {between{answer: release([]byte("head"))}, pushes, "does not verify"},
		"an older head":                  {between{answer: release(first.Release.Note())}, pushes, ""},
		"a forged release to go back to": {between{answer: release(forged)}, rollback, "does not verify"},
		"another bundle to go back to": {between{receive: func(_ string, m any, err error) error {
			if m, ok := m.(*microwallv1.GetBundleResponse); ok && len(m.GetChunk()) > 0 {
				m.Part = &microwallv1.GetBundleResponse_Chunk{Chunk: evil}
			}
			return err
		}}, rollback, "not the one that release 1 names"},
	} {
		t.Run(name, func(t *testing.T) {
			test.conn.ClientConnInterface = p.Conn
			if err := test.do(pap.New(&test.conn, "pdp", d.Trust())); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if got := history(t, d, p); !slices.Equal(got, []uint64{2, 1}) {
				t.Errorf("history is %v", got)
			}
		})
	}
}

func TestStalenessIsCarried(t *testing.T) {
	d, p := start(t)
	draft := d.Draft("cart", "shop.cart", allows)
	draft.MaxStaleness, draft.WhenStale = bundles.MinMaxStaleness, bundles.Deny
	result, err := d.PAP(p).Push(t.Context(), draft)
	if err != nil {
		t.Fatal(err)
	}
	if r := result.Release.Release(); r.MaxStaleness != bundles.MinMaxStaleness || r.WhenStale != bundles.Deny {
		t.Errorf("got %+v", r)
	}
	draft.WhenStale = bundles.Serve // the same bundle, but another rule
	if result, err = d.PAP(p).Push(t.Context(), draft); err != nil || result.Unchanged || result.Release.Release().Revision != 2 {
		t.Errorf("got %+v, %v", result, err)
	}
	draft.MaxStaleness = 1
	if _, err := d.PAP(p).Push(t.Context(), draft); policy.KindOf(err) != policy.BadRequest {
		t.Errorf("too short a time: %v", err)
	}
}

func TestAKeyIsChangedBySigningTheSameOnceMore(t *testing.T) {
	d, p := start(t)
	d.WriteTrust(testkit.TrustOptions{Version: 2, CartSigners: []string{"cart", "pay"}})
	if err := p.Live.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	d.Push(p, "cart", "shop.cart", allows)
	if again := d.Push(p, "cart", "shop.cart", allows); !again.Unchanged {
		t.Error("the same by the same key made a release")
	}
	next := d.Push(p, "pay", "shop.cart", allows)
	if r := next.Release.Release(); next.Unchanged || r.Revision != 2 || !slices.Equal(next.Release.Signers(), []string{"pay"}) {
		t.Errorf("got %+v by %v", r, next.Release.Signers())
	}
}

func TestAHeadWhoseKeyIsGoneSaysHowToGoOn(t *testing.T) {
	d, p := start(t)
	d.Push(p, "cart", "shop.cart", allows)
	d.AddKey("cart")
	d.WriteTrust(testkit.TrustOptions{Version: 2})
	if err := p.Live.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.PAP(p).Push(t.Context(), d.Draft("cart", "shop.cart", allows)); err == nil || !strings.Contains(err.Error(), "raise the epoch") {
		t.Errorf("got %v", err)
	}
	d.WriteTrust(testkit.TrustOptions{Version: 3, Epoch: 2})
	if err := p.Live.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	if r := d.Push(p, "cart", "shop.cart", allows).Release.Release(); r.Epoch != 2 || r.Revision != 1 {
		t.Errorf("got %+v", r)
	}
}
