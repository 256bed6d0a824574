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
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

const (
	neverForbidden = `deny contains "never" if input.action.name == "Forbidden"`
	allowsGet      = `allow if input.action.name == "Get"`
	allowsPut      = `allow if input.action.name == "Put"`
)

// site is a domain with a server that runs, and an author at a command line.
type site struct {
	*testkit.Domain
	*serving
	t    testing.TB
	dir  string
	conn *grpc.ClientConn
}

func newSite(t testing.TB, args ...string) *site {
	t.Helper()
	s := &site{t: t, Domain: testkit.NewDomain(t), dir: t.TempDir()}
	var err error
	s.serving, err = startServing(s.dir, append([]string{"--trust", s.TrustFile}, args...)...)
	if err == nil {
		t.Cleanup(s.kill)
		_, err = s.waitFor(`"msg":"ready"`)
	}
	s.must(err)
	s.conn = s.dial(s.GRPC)
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) dial(addr string) *grpc.ClientConn {
	s.t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	s.must(err)
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// run runs a command line that talks to the server, with a key in MICROWALL_KEY.
func (s *site) run(key, stdin string, args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	env := map[string]string{"MICROWALL_SERVER": s.GRPC, "MICROWALL_TRUST": s.TrustFile, "MICROWALL_KEY": s.Private(key)}
	var out, errs bytes.Buffer
	code = run(s.t.Context(), world{stdin: strings.NewReader(stdin), stdout: &out, stderr: &errs, getenv: func(name string) string { return env[name] }}, args)
	return out.String(), errs.String(), code
}

// expect runs a command line that has to end with a code and to say something.
func (s *site) expect(key string, wantCode int, says string, args ...string) {
	s.t.Helper()
	stdout, stderr, code := s.run(key, "", args...)
	if code != wantCode || !strings.Contains(stdout+stderr, says) {
		s.t.Errorf("%v ends with %d, not %d with %q:\n%s%s", args, code, wantCode, says, stdout, stderr)
	}
}

// folder makes a folder with a policy of one module.
func (s *site) folder(n policy.Namespace, module string) string {
	s.t.Helper()
	dir := s.t.TempDir()
	s.must(os.WriteFile(filepath.Join(dir, ".manifest"), fmt.Appendf(nil, `{"metadata": {"microwall": {"namespace": %q}}}`, n), 0o600))
	s.must(os.WriteFile(filepath.Join(dir, "authz.rego"), []byte("package authz\n"+module), 0o600))
	return dir
}

// push releases a policy of one module.
func (s *site) push(key string, n policy.Namespace, module, want string) {
	s.t.Helper()
	s.expect(key, exitYes, want, "push", s.folder(n, module))
}

// decides asks the server, which has to answer with a code: allowed or denied.
func (s *site) decides(action string, wantCode int) {
	s.t.Helper()
	s.expect("cart", wantCode, "by shop.cart revision ", "authorize", "--namespace", "shop.cart", "--subject", "workload:x", "--resource", "grpc:Cart", "--action", action)
}

// head is the release of a namespace that the server has for the newest.
func (s *site) head(n policy.Namespace) *bundles.Signed {
	s.t.Helper()
	answer, err := microwallv1.NewPolicyServiceClient(s.conn).GetRelease(s.t.Context(), &microwallv1.GetReleaseRequest{Namespace: string(n)})
	s.must(err)
	signed, err := s.Trust().Open(answer.GetRelease())
	s.must(err)
	return signed
}

// A request that could be read in two ways is refused at each of the three
// doors of the command, in the same words, and not only by one of them.
func TestEveryDoorRefusesTheSameRequests(t *testing.T) {
	s := newSite(t)
	s.push("center", "shop", neverForbidden, "released revision 1")
	s.push("cart", "shop.cart", allowsGet, "released revision 1")
	doors := map[string][]string{
		"a PDP":    nil,
		"NATS":     {"--nats", s.NATS},
		"a folder": {"--bundle", s.folder("shop.cart", allowsGet), "--guardrail", s.folder("shop", neverForbidden)},
	}
	request := func(change string) string {
		return `{"subject": {"type": "workload", "id": "x"}, "action": {"name": "Get"}, "resource": {"type": "grpc", "id": "Cart"}` + change + `}`
	}
	for name, test := range map[string]struct{ request, says string }{
		"nothing":                          {``, "request is empty; send an AuthZEN request as JSON"},
		"no JSON":                          {`subject: x`, "request is not JSON as it must be"},
		"no subject":                       {`{"action": {"name": "Get"}, "resource": {"type": "grpc", "id": "Cart"}}`, "subject.type is missing or empty; every request names it"},
		"an empty id":                      {`{"subject": {"type": "workload", "id": ""}, "action": {"name": "Get"}, "resource": {"type": "grpc", "id": "Cart"}}`, "subject.id is missing or empty"},
		"no resource":                      {`{"subject": {"type": "workload", "id": "x"}, "action": {"name": "Get"}}`, "resource.type is missing or empty"},
		"properties that are no object":    {`{"subject": {"type": "workload", "id": "x", "properties": ["admin"]}}`, "subject.properties is an array; it must be an object"},
		"a context that is no object":      {request(`, "context": "x"`), "context is a string; it must be an object"},
		"a whole number beyond 2^53-1":     {request(`, "context": {"n": 9007199254740992.0}`), "context.n is a whole number beyond 2^53-1"},
		"a number beyond any double":       {request(`, "context": {"n": 1e400}`), "context.n is a number beyond the range of a double"},
		"NaN":                              {request(`, "context": {"n": NaN}`), "request is not JSON as it must be"},
		"infinity":                         {request(`, "context": {"n": -Infinity}`), "request is not JSON as it must be"},
		"a member twice":                   {request(`, "action": {"name": "Put"}`), `duplicate object member name "action"`},
		"a member of the context twice":    {request(`, "context": {"a": 1, "a": 2}`), `duplicate object member name "a"`},
		"a name in another case":           {request(`, "Context": {}`), `"Context" is written "context"`},
		"invalid UTF-8":                    {request(`, "context": {"a": "` + "\xff" + `"}`), "invalid UTF-8"},
		"a time":                           {request(`, "time": {"hour": 1}`), ""}, // nobody sets it: it is ignored
		"a namespace that is none":         {request(`, "namespace": "shop/cart"`), `label "shop/cart" must be`},
		"a call path that is none":         {request(`, "context": {"call_path": "x"}`), "context.call_path is not an array"},
		"a call path beyond the limit":     {request(`, "context": {"call_path": ["` + strings.Repeat(`a","`, 32) + `a"]}`), "--max-call-path"},
		"a request beyond the limit":       {request(`, "context": {"a": "` + strings.Repeat("x", 1<<20) + `"}`), "--max-request-bytes"},
		"what nobody knows":                {request(`, "x": {"y": 1}`), ""},
		"nothing besides what must be":     {request(``), ""},
		"an object where a string belongs": {`{"subject": {"type": {}}}`, "subject.type is an object; it must be a string"},
	} {
		t.Run(name, func(t *testing.T) {
			for door, args := range doors {
				stdout, stderr, code := s.run("cart", test.request, append([]string{"authorize", "--namespace", "shop.cart"}, args...)...)
				switch {
				case test.says == "" && (code != exitYes || !strings.HasPrefix(stdout, "allowed\n")):
					t.Errorf("%s: %d, %s%s", door, code, stdout, stderr)
				case test.says != "" && (code != exitError || stdout != "" || !strings.Contains(stderr, test.says)):
					t.Errorf("%s: %d without %q: %s%s", door, code, test.says, stdout, stderr)
				}
			}
		})
	}
}

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

func TestABatchHasTheLimitOfItsFlag(t *testing.T) {
	s := newSite(t, "--max-batch", "2")
	s.push("center", "shop", neverForbidden, "released revision 1")
	item := &microwallv1.AuthorizeRequest{
		Namespace: "shop", Subject: &microwallv1.Subject{Type: "workload", Id: "x"},
		Action: &microwallv1.Action{Name: "Get"}, Resource: &microwallv1.Resource{Type: "grpc", Id: "Cart"},
	}
	client := microwallv1.NewAuthorizationServiceClient(s.conn)
	batch := &microwallv1.AuthorizeBatchRequest{Items: []*microwallv1.AuthorizeRequest{item, item}}
	if answer, err := client.AuthorizeBatch(t.Context(), batch); err != nil || len(answer.GetResults()) != 2 {
		t.Errorf("two: %v, %v", answer, err)
	}
	batch.Items = append(batch.Items, item)
	if _, err := client.AuthorizeBatch(t.Context(), batch); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "batch has 3 requests, the limit is 2; split it, or raise --max-batch") {
		t.Errorf("three: %v", err)
	}
}

// Whoever reaches the broker can put another bundle behind a release's note.
// Nobody signs it again, nobody decides by it.
func TestABundleThatTheBrokerExchangedIsNeitherSignedAgainNorDecides(t *testing.T) {
	s := newSite(t)
	s.push("center", "shop", neverForbidden, "released revision 1")
	s.push("cart", "shop.cart", allowsGet, "released revision 1")
	broker, err := nats.Connect(s.NATS)
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

// A probe is told that a server stops while it still finishes what it took.
func TestAServerThatStopsIsNotReadyAndFinishesWhatItTook(t *testing.T) {
	s := newSite(t)
	stream, err := reflectionv1.NewServerReflectionClient(s.conn).ServerReflectionInfo(t.Context())
	s.must(err)
	ask := func() {
		t.Helper()
		s.must(stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}))
		answer, err := stream.Recv()
		if err != nil || len(answer.GetListServicesResponse().GetService()) == 0 {
			t.Errorf("answered %v, %v", answer, err)
		}
	}
	ask() // so that it was taken
	s.must(s.cmd.Process.Signal(syscall.SIGTERM))
	_, err = s.waitFor(`"msg":"stopping`)
	s.must(err)
	if code, text := s.get("/readyz"); code != http.StatusServiceUnavailable || text != "stopping\n" {
		t.Errorf("readyz says %d, %s", code, text)
	}
	ask()
	s.must(stream.CloseSend())
	s.must(s.wait())
}

// get fetches a page of the server.
func (s *site) get(path string) (code int, body string) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.HTTP+path, nil)
	s.must(err)
	answer, err := http.DefaultClient.Do(request)
	s.must(err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	s.must(err)
	return answer.StatusCode, string(text)
}

// A client whose disk is full decides by the newest release all the same, says
// that it could not keep it, and starts again by what it could keep.
func TestAClientWithAFullDiskDecidesByTheNewestRelease(t *testing.T) {
	volume := t.TempDir()
	t.Cleanup(mountSmall(t, volume, "2m"))
	s := newSite(t)
	s.push("center", "shop", neverForbidden, "released revision 1")
	s.push("cart", "shop.cart", allowsGet, "released revision 1")
	kept := make(chan live.Event, 100)
	config := embedded.Config{NATS: s.NATS, TrustFile: s.TrustFile, Namespaces: []policy.Namespace{"shop.cart"}, Dir: filepath.Join(volume, "client"), OnRelease: func(e live.Event) { kept <- e }}
	client, err := embedded.New(t.Context(), config)
	s.must(err)
	decides := func(action string, want bool) {
		t.Helper()
		d, err := client.Authorize(t.Context(), testkit.Request("shop.cart", action))
		if err != nil || d.Allowed != want {
			t.Errorf("%s: %v, %v", action, d.Allowed, err)
		}
	}
	decides("Get", true)
	full := filepath.Join(volume, "full")
	fill(t, full)
	s.push("cart", "shop.cart", allowsPut, "released revision 2")
	for e := range kept {
		if e, ok := e.(live.NotKept); ok {
			if e.Version.Revision != 2 || !errors.Is(e.Err, syscall.ENOSPC) {
				t.Errorf("not kept: %+v", e)
			}
			break
		}
	}
	decides("Put", true)
	decides("Get", false)
	client.Close()

	// With room again and without the broker there is the older one, which was
	// not lost.
	s.must(os.Remove(full))
	s.must(s.end())
	client, err = embedded.New(t.Context(), config)
	s.must(err)
	defer client.Close()
	decides("Get", true)
}

// fill writes a file until nothing more fits on its volume.
func fill(t testing.TB, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}
