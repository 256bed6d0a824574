package pdp_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/internal/pap"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

const (
	guardrail = `deny contains "never" if input.action.name == "Forbidden"`
	allowsAdd = `allow if input.action.name in {"Add", "Forbidden"}`
)

func startPDP(t testing.TB) (*testkit.Domain, *testkit.PDP) {
	d := testkit.NewDomain(t)
	return d, d.StartPDP(testkit.NATS(t, t.TempDir()).URL(), t.TempDir())
}

// ask returns "allow", "deny" or the kind of error.
func ask(t testing.TB, a policy.Authorizer, n policy.Namespace, action string) string {
	t.Helper()
	d, err := a.Authorize(t.Context(), testkit.Request(n, action))
	switch {
	case err != nil && d.Allowed:
		t.Error("allowed beside an error")
		return "?"
	case err != nil:
		return policy.KindOf(err).String()
	case d.Allowed:
		return "allow"
	}
	return "deny"
}

func TestAnAuthorReleases(t *testing.T) {
	d, p := startPDP(t)
	if got := ask(t, p.Service, "shop.cart", "Add"); got != "not found" {
		t.Errorf("before the first release: %s", got)
	}
	d.Push(p, "center", "shop", guardrail)
	one := d.Push(p, "cart", "shop.cart", allowsAdd)
	if got := ask(t, p.Service, "shop.cart", "Add"); got != "allow" { // at once: Push returns when it decides here
		t.Errorf("after the first release: %s", got)
	}
	again := d.Push(p, "cart", "shop.cart", allowsAdd)
	if !again.Unchanged || again.Release.Digest() != one.Release.Digest() {
		t.Errorf("the same bundle made a release: %+v", again)
	}
	two := d.Push(p, "cart", "shop.cart", "default allow := false")
	if r := two.Release.Release(); r.Revision != 2 || r.Previous != one.Release.Digest() {
		t.Errorf("second release: %+v", r)
	}
	author := d.PAP(p)
	old, err := author.Restore(t.Context(), pap.Draft{Namespace: "shop.cart", Signers: []note.Signer{d.Signer("cart")}, Created: testkit.Created}, 0, 1, bundles.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	back, err := author.Push(t.Context(), old)
	if err != nil || back.Release.Release().Revision != 3 || back.Release.Release().Bundle != one.Release.Release().Bundle {
		t.Fatalf("rollback: %+v, %v", back, err)
	}
	if got := ask(t, p.Service, "shop.cart", "Add"); got != "allow" {
		t.Errorf("after the rollback: %s", got)
	}
	gone, err := author.Push(t.Context(), pap.Draft{Namespace: "shop.cart", Signers: []note.Signer{d.Signer("cart")}, Created: testkit.Created})
	if err != nil || !gone.Release.Release().Retired() {
		t.Fatalf("retirement: %+v, %v", gone, err)
	}
	if got := ask(t, p.Service, "shop.cart", "Add"); got != "not found" {
		t.Errorf("after the retirement: %s", got)
	}
	history, err := author.History(t.Context(), "shop.cart")
	if err != nil || len(history) != 4 || history[0].Signed.Digest() != gone.Release.Digest() || history[3].Signed.Digest() != one.Release.Digest() {
		t.Errorf("history: %v, %v", history, err)
	}
	if _, err := author.History(t.Context(), "shop.other"); policy.KindOf(err) != policy.NotFound {
		t.Errorf("history of a namespace without releases: %v", err)
	}
}

// push sends a note and a bundle as they are, as somebody would who does not
// use the command.
func push(t testing.TB, p *testkit.PDP, signed, packed []byte) error {
	t.Helper()
	stream, err := microwallv1.NewPolicyServiceClient(p.Conn).Push(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.Send(&microwallv1.PushRequest{Part: &microwallv1.PushRequest_Release{Release: signed}})
	if packed != nil {
		_ = stream.Send(&microwallv1.PushRequest{Part: &microwallv1.PushRequest_Chunk{Chunk: packed}})
	}
	_, err = stream.CloseAndRecv()
	return err
}

func TestAPushThatIsRefusedChangesNothing(t *testing.T) {
	d, p := startPDP(t)
	d.Push(p, "center", "shop", guardrail)
	one := d.Push(p, "cart", "shop.cart", allowsAdd)
	two := d.Push(p, "cart", "shop.cart", allowsAdd+"\n# 2")
	evil := d.Rego("allow := true")
	withTest := func(test string) *bundles.Bundle {
		return d.Bundle(map[string]string{"authz.rego": allowsAdd, "authz_test.rego": "package authz_test\n" + test})
	}
	type pushed struct{ note, packed []byte }
	forge := func(key string, n policy.Namespace, previous *bundles.Signed, b *bundles.Bundle, change ...func(*bundles.Release)) pushed {
		signed, packed := d.Forge(key, n, previous, b, change...)
		return pushed{signed, packed}
	}
	good := forge("cart", "shop.cart", two.Release, d.Rego(allowsAdd+"\n# 3"))
	for name, test := range map[string]struct {
		push pushed
		code string
		want string
	}{
		"a stranger's key":             {forge("stranger", "shop.cart", two.Release, evil), "PermissionDenied", "cart"},
		"a key of another team":        {forge("pay", "shop.cart", two.Release, evil), "PermissionDenied", "cart"},
		"another domain":               {forge("cart", "other.cart", two.Release, evil), "PermissionDenied", "shop"},
		"a replay":                     {pushed{one.Release.Note(), good.packed}, "Aborted", ""},
		"a stale base":                 {forge("cart", "shop.cart", one.Release, evil), "Aborted", ""},
		"a revision left out":          {forge("cart", "shop.cart", two.Release, evil, func(r *bundles.Release) { r.Revision, r.Previous = 9, one.Release.Digest() }), "Aborted", "release 2"},
		"revisions used up":            {forge("cart", "shop.cart", two.Release, evil, func(r *bundles.Release) { r.Revision = 1<<63 - 1 }), "Aborted", "the next one is 3"},
		"a new epoch by an author":     {forge("cart", "shop.cart", nil, evil, func(r *bundles.Release) { r.Epoch = 2 }), "PermissionDenied", "epoch"},
		"a tampered bundle":            {pushed{good.note, append([]byte{0}, good.packed...)}, "InvalidArgument", ""},
		"another bundle":               {pushed{good.note, bundles.Pack(evil.Tar())}, "InvalidArgument", ""},
		"no bundle":                    {pushed{good.note, nil}, "InvalidArgument", ""},
		"no release":                   {pushed{nil, good.packed}, "InvalidArgument", "first message"},
		"Rego that does not compile":   {forge("cart", "shop.cart", two.Release, d.Rego("allow if http.send({})")), "InvalidArgument", "authz.rego:2:10"},
		"a test that fails":            {forge("cart", "shop.cart", two.Release, withTest("test_no if false")), "InvalidArgument", "authz_test.test_no"},
		"a test beside the rules":      {forge("cart", "shop.cart", two.Release, d.Rego(allowsAdd+"\ntest_no if false")), "InvalidArgument", "authz.test_no"},
		"a test that does not compile": {forge("cart", "shop.cart", two.Release, withTest("test_no if x")), "InvalidArgument", "authz_test.rego:2:"},
		"a bundle of nothing":          {forge("cart", "shop.cart", two.Release, d.Bundle(map[string]string{"a.rego": "other := 1"})), "InvalidArgument", "neither `allow` nor `deny`"},
	} {
		t.Run(name, func(t *testing.T) {
			err := push(t, p, test.push.note, test.push.packed)
			if err == nil || !strings.Contains(err.Error(), "code = "+test.code) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s with %q", err, test.code, test.want)
			}
			head, err := d.PAP(p).Head(t.Context(), "shop.cart")
			if err != nil || head.Digest() != two.Release.Digest() {
				t.Errorf("the head is %v, %v", head, err)
			}
			if got := ask(t, p.Service, "shop.cart", "Remove"); got != "deny" {
				t.Errorf("decides %s", got)
			}
		})
	}
}

func TestTwoAuthorsAtOnce(t *testing.T) {
	d, p := startPDP(t)
	d.Push(p, "center", "shop", guardrail)
	const authors = 8
	var group sync.WaitGroup
	errs := make([]error, authors)
	for i := range authors {
		draft := d.Draft("cart", "shop.cart", fmt.Sprintf("allow := true\n# %d", i))
		author := d.PAP(p)
		group.Go(func() { _, errs[i] = author.Push(t.Context(), draft) })
	}
	group.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case policy.KindOf(err) != policy.Conflict || !strings.Contains(err.Error(), "microwall history"):
			t.Errorf("a loser is told %v", err)
		}
	}
	history, err := d.PAP(p).History(t.Context(), "shop.cart")
	if err != nil || won == 0 || len(history) != won {
		t.Errorf("%d won, %d releases, %v", won, len(history), err)
	}
	for i, e := range history {
		if got := e.Signed.Release().Revision; got != uint64(won-i) {
			t.Errorf("revision %d at place %d", got, i)
		}
	}
}

func TestANewEpochBeginsAgainAfterADisaster(t *testing.T) {
	d, p := startPDP(t)
	d.Push(p, "center", "shop", guardrail)
	d.Push(p, "cart", "shop.cart", allowsAdd)
	d.Push(p, "cart", "shop.cart", allowsAdd+"\n# 2")
	// The key is stolen: a new one, and a new epoch.
	d.AddKey("cart")
	d.WriteTrust(testkit.TrustOptions{Version: 2, Epoch: 2})
	if err := p.Live.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, p.Service, "shop.cart", "Add"); got != "unavailable" {
		t.Errorf("what the old key signed: %s", got)
	}
	fresh := d.Push(p, "cart", "shop.cart", allowsAdd)
	if r := fresh.Release.Release(); r.Epoch != 2 || r.Revision != 1 {
		t.Errorf("release: %+v", r)
	}
	if got := ask(t, p.Service, "shop.cart", "Add"); got != "allow" {
		t.Errorf("after the push: %s", got)
	}
}

func TestAStoreThatWasEmptiedTakesANewEpochOnly(t *testing.T) {
	d, p := startPDP(t)
	d.Push(p, "center", "shop", guardrail)
	d.Push(p, "cart", "shop.cart", `allow := false`)
	d.Push(p, "cart", "shop.cart", allowsAdd)
	api, err := jetstream.New(p.NATSConn)
	if err != nil {
		t.Fatal(err)
	}
	if err := api.DeleteStream(t.Context(), "KV_policy"); err != nil {
		t.Fatal(err)
	}
	_, err = d.PAP(p).Push(t.Context(), d.Draft("cart", "shop.cart", `allow := true`))
	if policy.KindOf(err) != policy.Conflict || !strings.Contains(err.Error(), "the store has no release of shop.cart any more, or NATS is another one; this PDP decides on by revision 2 of epoch 1, which it has on disk: raise the epoch in the trust file, and push again") {
		t.Errorf("the author is told %v", err)
	}
	if got := ask(t, p.Service, "shop.cart", "Add"); got != "allow" {
		t.Errorf("what decided before: %s", got)
	}
}

func TestAPDPThatIsNotThere(t *testing.T) {
	d, p := startPDP(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	_, err = d.PAP(p).Push(t.Context(), d.Draft("center", "shop", guardrail))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.PAP(p).Push(ctx, d.Draft("center", "shop", guardrail+"\n# 2")); policy.KindOf(err) != policy.Unavailable {
		t.Errorf("a cancelled push: %v", err)
	}
}

func TestAnAuthorWhoNeverSendsTheBundleHoldsNobodyUp(t *testing.T) {
	d := testkit.NewDomain(t)
	p := d.StartPDP(testkit.NATS(t, t.TempDir()).URL(), t.TempDir(), func(c *pdp.ReleasesConfig) {
		c.ReceiveTimeout, c.Receiving, c.Pushes = time.Second, 3, 1
	})
	begin := func() grpc.ClientStreamingClient[microwallv1.PushRequest, microwallv1.PushResponse] {
		t.Helper()
		signed, _ := d.Forge("cart", "shop.cart", nil, d.Rego(allowsAdd))
		stream, err := microwallv1.NewPolicyServiceClient(p.Conn).Push(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&microwallv1.PushRequest{Part: &microwallv1.PushRequest_Release{Release: signed}}); err != nil {
			t.Fatal(err)
		}
		return stream
	}
	slow := begin()
	d.Push(p, "center", "shop", guardrail) // somebody else is served meanwhile
	err := slow.RecvMsg(new(microwallv1.PushResponse))
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "did not arrive") {
		t.Errorf("got %v", err)
	}
	// More than may be on their way at once: one of four is refused at once.
	streams := []grpc.ClientStreamingClient[microwallv1.PushRequest, microwallv1.PushResponse]{begin(), begin(), begin(), begin()}
	refused := 0
	for _, s := range streams {
		if err := s.RecvMsg(new(microwallv1.PushResponse)); strings.Contains(fmt.Sprint(err), "on their way") {
			refused++
		}
	}
	if refused == 0 {
		t.Error("four bundles may be on their way, the limit is three")
	}
}

func TestAKeyThatIsTakenOutWhileItsBundleIsOnTheWayGetsNothingStored(t *testing.T) {
	d, p := startPDP(t)
	d.Push(p, "center", "shop", guardrail)
	one := d.Push(p, "cart", "shop.cart", "default allow := false")
	signed, packed := d.Forge("cart", "shop.cart", one.Release, d.Rego("allow := true"))
	stream, err := microwallv1.NewPolicyServiceClient(p.Conn).Push(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&microwallv1.PushRequest{Part: &microwallv1.PushRequest_Release{Release: signed}}); err != nil {
		t.Fatal(err)
	}
	d.AddKey("cart")
	d.WriteTrust(testkit.TrustOptions{Version: 2})
	if err := p.Live.SetTrust(d.Trust()); err != nil {
		t.Fatal(err)
	}
	_ = stream.Send(&microwallv1.PushRequest{Part: &microwallv1.PushRequest_Chunk{Chunk: packed}})
	if _, err := stream.CloseAndRecv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v", err)
	}
	head, err := p.Store.Head(t.Context(), "shop.cart")
	if err != nil || string(head.Note) != string(one.Release.Note()) {
		t.Errorf("the head in the store is %s, %v", head.Note, err)
	}
}

func TestAReleaseThatTheStoreHasLostCanBePushedAgain(t *testing.T) {
	d, p := startPDP(t)
	d.Push(p, "center", "shop", guardrail)
	one := d.Push(p, "cart", "shop.cart", "default allow := false")
	two, packed := d.Forge("cart", "shop.cart", one.Release, d.Rego(allowsAdd))
	// The process decides by it, the store does not have it: as after a
	// backup was played back.
	if err := p.Live.Offer(t.Context(), two, func(context.Context) ([]byte, error) { return packed, nil }); err != nil {
		t.Fatal(err)
	}
	if err := push(t, p, two, packed); err != nil {
		t.Fatal(err)
	}
	head, err := p.Store.Head(t.Context(), "shop.cart")
	if err != nil || string(head.Note) != string(two) {
		t.Errorf("the head in the store is %s, %v", head.Note, err)
	}
	if err := push(t, p, two, nil); err != nil { // and once more, when it is the head
		t.Error(err)
	}
}

// Whoever may write to the head stream can put something there that nobody can
// read. It may be released over, but nobody can use up the revisions by that.
func TestAReleaseOverAHeadThatCannotBeReadIsTheNextOne(t *testing.T) {
	d := testkit.NewDomain(t)
	url := testkit.NATS(t, t.TempDir()).URL()
	p := d.StartPDP(url, t.TempDir())
	one := d.Push(p, "cart", "shop.cart", allowsAdd)
	two := d.Push(p, "cart", "shop.cart", allowsAdd+" ")
	damage := func() {
		t.Helper()
		if _, err := p.NATSConn.Request("$KV.policy.shop.shop_cart.head", []byte("\x00evil"), patience); err != nil {
			t.Fatal(err)
		}
	}
	damage()
	bundle := d.Rego(allowsAdd + "  ")
	for _, revision := range []uint64{1<<63 - 1, 4} {
		signed, packed := d.Forge("cart", "shop.cart", two.Release, bundle, func(r *bundles.Release) { r.Revision = revision })
		if err := push(t, p, signed, packed); err == nil || !strings.Contains(err.Error(), "code = Aborted") {
			t.Errorf("revision %d: %v", revision, err)
		}
	}
	// A PDP that holds nothing of it cannot tell which one is next.
	empty := d.StartPDP(url, t.TempDir())
	signed, packed := d.Forge("cart", "shop.cart", two.Release, bundle)
	if err := push(t, empty, signed, packed); err == nil || !strings.Contains(err.Error(), "this PDP holds no release of it that revision 3 could follow") {
		t.Error(err)
	}
	if err := push(t, p, signed, packed); err != nil {
		t.Error(err)
	}
	if err := push(t, p, one.Release.Note(), nil); err == nil {
		t.Error("an older one was taken")
	}
	// What decides here may be stored again.
	damage()
	if err := push(t, p, signed, packed); err != nil {
		t.Error(err)
	}
}

// A guardrail that the trust file names and nobody has pushed stops all below it:
// whoever pushes there is told, and so is whoever looks at the state.
func TestAReleaseThatDecidesNothingIsWarnedOf(t *testing.T) {
	d, p := startPDP(t)
	result := d.Push(p, "cart", "shop.cart", `allow := true`)
	if len(result.Warnings) != 1 || !strings.Contains(result.Warnings[0], "cannot be decided without its guardrail shop, which is not loaded; push the guardrail") {
		t.Errorf("warnings: %q", result.Warnings)
	}
	undecided := func() error {
		for _, s := range p.Live.Status() {
			if s.Namespace == "shop.cart" {
				return s.Undecided
			}
		}
		return nil
	}
	if err := undecided(); policy.KindOf(err) != policy.Unavailable {
		t.Errorf("status: %v", err)
	}
	if result := d.Push(p, "center", "shop", `deny contains "no" if false`); len(result.Warnings) != 0 {
		t.Errorf("warnings: %q", result.Warnings)
	}
	if err := undecided(); err != nil {
		t.Errorf("status: %v", err)
	}
}
