package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// tarOf is a tar that is none of ours.
func tarOf(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o644, Format: tar.FormatUSTAR})
		if err == nil {
			_, err = w.Write([]byte(content))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// An author who may sign for a namespace, and does not use our command, still
// gets nothing in that is no bundle; what decides stays.
func TestAnAuthorWithTheRightKeyCannotReleaseWhatIsNoBundle(t *testing.T) {
	s := newSite(t, "--max-bundle-packed", "100000", "--max-bundle-unpacked", "1000000")
	s.push("center", "shop", neverForbidden, "released revision 1")
	s.push("cart", "shop.cart", allowsGet, "released revision 1")
	before := s.head("shop.cart")
	b := s.Rego(allowsPut)
	// signs says what is signed; the zero value is b itself.
	type signs struct {
		tar  []byte
		size int64
	}
	escaping := tarOf(t, map[string]string{"../../authz.rego": "package authz\nallow := true\n"})
	absolute := tarOf(t, map[string]string{"/authz.rego": "package authz\nallow := true\n"})
	text := []byte("this is no tar")
	zeros := make([]byte, 900_000)
	header := bundles.Pack(b.Tar())
	header[3] |= 4 // an extra field, of a length that is not there
	trailer := bundles.Pack(b.Tar())
	copy(trailer[len(trailer)-4:], "\xff\xff\xff\xff") // a size of 4 GiB
	for name, test := range map[string]struct {
		signs  signs
		packed []byte
		code   codes.Code
		says   string
	}{
		"text":                                {signs{tar: text}, bundles.Pack(text), codes.InvalidArgument, "shop.cart revision 2"},
		"a path that escapes":                 {signs{tar: escaping}, bundles.Pack(escaping), codes.InvalidArgument, "shop.cart revision 2"},
		"a path from the root":                {signs{tar: absolute}, bundles.Pack(absolute), codes.InvalidArgument, "shop.cart revision 2"},
		"zeros":                               {signs{tar: zeros}, bundles.Pack(zeros), codes.InvalidArgument, "shop.cart revision 2"},
		"no gzip":                             {signs{}, b.Tar(), codes.InvalidArgument, "gzip"},
		"a forged gzip header":                {signs{}, header, codes.InvalidArgument, "gzip"},
		"a forged gzip trailer":               {signs{}, trailer, codes.InvalidArgument, "checksum"},
		"half of it":                          {signs{}, bundles.Pack(b.Tar())[:40], codes.InvalidArgument, "EOF"},
		"more than was signed":                {signs{}, bundles.Pack(append(bytes.Clone(b.Tar()), 0)), codes.InvalidArgument, "larger than"},
		"a bomb":                              {signs{}, bomb(t, 5_000_000), codes.InvalidArgument, "larger than"},
		"a bomb that is signed":               {signs{tar: b.Tar(), size: 5_000_000}, bomb(t, 5_000_000), codes.ResourceExhausted, "--max-bundle-unpacked"},
		"more packed than the limit":          {signs{}, make([]byte, 100_001), codes.ResourceExhausted, "--max-bundle-packed"},
		"nothing":                             {signs{}, nil, codes.InvalidArgument, "EOF"},
		"the bundle of somebody else":         {signs{}, bundles.Pack(s.Rego(allowsGet).Tar()), codes.InvalidArgument, ""},
		"a policy that does not compile":      {signs{tar: s.Rego("allow if http.send({})").Tar()}, bundles.Pack(s.Rego("allow if http.send({})").Tar()), codes.InvalidArgument, "authz.rego:2:10"},
		"a bundle that names somebody else's": {signs{tar: s.named("shop.pay").Tar()}, bundles.Pack(s.named("shop.pay").Tar()), codes.InvalidArgument, "names the namespace shop.pay"},
	} {
		t.Run(name, func(t *testing.T) {
			note, _ := s.Forge("cart", "shop.cart", before, b, func(r *bundles.Release) {
				if test.signs.tar != nil {
					r.Bundle, r.Size = policy.DigestOf(test.signs.tar), int64(len(test.signs.tar))
				}
				if test.signs.size > 0 {
					r.Size = test.signs.size
				}
			})
			err := pushRawly(t, s.conn, note, test.packed)
			if status.Code(err) != test.code || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want %s with %q", err, test.code, test.says)
			}
			if got := s.head("shop.cart"); got.Digest() != before.Digest() {
				t.Errorf("the head is %v", got.Release())
			}
		})
	}
	s.decides("Get", exitYes)
	s.decides("Put", exitNo)
}

func (s *site) named(n policy.Namespace) *bundles.Bundle {
	return s.Bundle(map[string]string{"authz.rego": allowsPut, ".manifest": fmt.Sprintf(`{"metadata": {"microwall": {"namespace": %q}}}`, n)})
}

// bomb is a small gzip of many zeros.
func bomb(t testing.TB, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	zeros := make([]byte, 1<<20)
	var err error
	for left := size; left > 0 && err == nil; left -= int64(len(zeros)) {
		_, err = w.Write(zeros[:min(left, int64(len(zeros)))])
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pushRawly sends what somebody sends who does not use our command.
func pushRawly(t testing.TB, conn *grpc.ClientConn, note, packed []byte) error {
	t.Helper()
	stream, err := microwallv1.NewPolicyServiceClient(conn).Push(t.Context())
	if err != nil {
		return err
	}
	_ = stream.Send(&microwallv1.PushRequest{Part: &microwallv1.PushRequest_Release{Release: note}}) // the answer says what happened
	_ = stream.Send(&microwallv1.PushRequest{Part: &microwallv1.PushRequest_Chunk{Chunk: packed}})
	_, err = stream.CloseAndRecv()
	return err
}

// Whoever has a PDP's credentials can put another bundle behind a release's note.
// Nobody signs it again, nobody decides by it.
func TestABundleThatTheBrokerExchangedIsNeitherSignedAgainNorDecides(t *testing.T) {
	args, stolen := insider(t)
	s := newSite(t, args...)
	s.push("center", "shop", neverForbidden, "released revision 1")
	s.push("cart", "shop.cart", allowsGet, "released revision 1")
	broker, err := jetstream.Connect(t.Context(), s.NATS, jetstream.ConnectOptions{Credentials: stolen})
	s.must(err)
	defer broker.Close()
	evil := bundles.Pack(s.Rego("allow := true").Tar())
	message := append(append(bytes.Clone(s.head("shop.cart").Note()), 0, 'I'), evil...)
	_, err = broker.Request("$KV.policy.shop.shop_cart.head", message, patience)
	s.must(err)

	s.decides("Get", exitYes)
	s.decides("Put", exitNo)
	s.expect("cart", exitError, "no release of namespace shop.cart could be loaded", "authorize", "--nats", s.NATS, "--namespace", "shop.cart", "--subject", "workload:x", "--resource", "grpc:Cart", "--action", "Put")
	s.push("cart", "shop.cart", allowsPut, "released revision 2")
	s.expect("cart", exitError, s.GRPC+" handed out a bundle that is not the one that release 1 names", "rollback", "shop.cart", "--to", "1")
	s.decides("Put", exitYes)
	if r := s.head("shop.cart").Release(); r.Revision != 2 {
		t.Errorf("the head is %v", r)
	}
}

// between is a PolicyService between an author and a server: one that is
// hostile, or only slow.
type between struct {
	microwallv1.UnimplementedPolicyServiceServer
	to microwallv1.PolicyServiceClient
	// release replaces what GetRelease hands out, if it is set.
	release []byte
	// pushed runs when a push has arrived, before it goes on.
	pushed func()
}

func (b *between) GetRelease(ctx context.Context, m *microwallv1.GetReleaseRequest) (*microwallv1.GetReleaseResponse, error) {
	if b.release != nil {
		return &microwallv1.GetReleaseResponse{Release: b.release}, nil
	}
	return b.to.GetRelease(ctx, m)
}

func (b *between) Push(from grpc.ClientStreamingServer[microwallv1.PushRequest, microwallv1.PushResponse]) error {
	stream, err := b.to.Push(from.Context())
	if err != nil {
		return err
	}
	for {
		m, err := from.Recv()
		if errors.Is(err, io.EOF) {
			answer, err := stream.CloseAndRecv()
			if err != nil {
				return err
			}
			return from.SendAndClose(answer)
		}
		if err != nil {
			return err
		}
		if m.GetRelease() != nil && b.pushed != nil {
			b.pushed()
		}
		if err := stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
}

// start runs the service until the test ends and returns where.
func (b *between) start(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	microwallv1.RegisterPolicyServiceServer(server, b)
	var work sync.WaitGroup
	work.Go(func() { _ = server.Serve(l) }) // ends with Stop
	t.Cleanup(func() {
		server.Stop()
		work.Wait()
	})
	return l.Addr().String()
}

func TestAnAuthorWhoComesSecondIsToldToLookAgain(t *testing.T) {
	s := newSite(t)
	s.push("cart", "shop.cart", allowsGet, "released revision 1")
	slow := &between{to: microwallv1.NewPolicyServiceClient(s.conn)}
	var once sync.Once
	slow.pushed = func() {
		once.Do(func() {
			s.expect("cart", exitYes, "released revision 2", "push", s.folder("shop.cart", allowsPut), "--author", "bob", "--source", "bbbb")
		})
	}
	server := slow.start(t)
	mine := s.folder("shop.cart", allowsGet+"\n# mine")
	s.expect("cart", exitError, "somebody else released first: the head of shop.cart is now release 2 by bob from bbbb; look at it (`microwall history shop.cart`), then push again", "push", mine, "--server", server)
	s.expect("cart", exitYes, "released revision 3", "push", mine, "--server", server)
}

// An author signs nothing that builds on what does not verify.
func TestAnAuthorSignsNothingOnTopOfAForgery(t *testing.T) {
	s := newSite(t)
	s.push("cart", "shop.cart", allowsGet, "released revision 1")
	s.push("pay", "shop.pay", allowsGet, "released revision 1")
	head := s.head("shop.cart")
	forged, _ := s.Forge("stranger", "shop.cart", head, s.Rego("allow := true"))
	for name, test := range map[string]struct {
		release []byte
		says    string
	}{
		"a head that a stranger signed": {forged, "handed out a release that does not verify"},
		"another namespace's head":      {s.head("shop.pay").Note(), "was asked for a release of shop.cart and handed out one of shop.pay"},
		"no release":                    {[]byte("x"), "handed out a release that does not verify"},
	} {
		t.Run(name, func(t *testing.T) {
			hostile := &between{to: microwallv1.NewPolicyServiceClient(s.conn), release: test.release, pushed: func() { t.Error("something was signed and sent") }}
			s.expect("cart", exitError, test.says, "push", s.folder("shop.cart", allowsPut), "--server", hostile.start(t))
		})
	}
	if got := s.head("shop.cart"); got.Digest() != head.Digest() {
		t.Errorf("the head is %v", got.Release())
	}
}
