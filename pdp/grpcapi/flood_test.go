package grpcapi_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/dial"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/pdp/grpcapi"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// trues is a context with a list of so many bytes on the wire: four for each
// element, which has some 90 in memory. Here they are bytes already.
func trues(size int) func(*microwallv1.AuthorizeRequest) {
	const element = "\x0a\x02\x20\x01" // of two bytes: bool_value is true
	list := new(structpb.ListValue)
	list.ProtoReflect().SetUnknown(bytes.Repeat([]byte(element), size/len(element)))
	return context_(structpb.NewListValue(list))
}

func encoded(t *testing.T, m proto.Message) []byte {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestLongListsAreRefusedBeforeTheyTakeMemory(t *testing.T) {
	var asked atomic.Int64
	told := make(chan grpcapi.CallFailed, 100)
	s := serve(t, grpcapi.Config{
		Events: func(e grpcapi.CallFailed) { told <- e },
		Decide: deciding(func(context.Context, policy.Request) (policy.Decision, error) {
			asked.Add(1)
			return policy.Decision{Allowed: true}, nil
		}),
	})
	for name, test := range map[string]struct {
		bytes int
		says  string
		told  bool // the server's events; gRPC tells them nothing of what it refuses itself
	}{
		"over the limit of a message": {15 << 20, "larger than max", false},
		"over the limit of a request": {4<<20 - 1000, "on its way", true},
	} {
		t.Run(name, func(t *testing.T) {
			raw16 := encoded(t, question(trues(test.bytes)))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			var calls sync.WaitGroup
			for range 16 {
				calls.Go(func() {
					var answer []byte
					err := s.conn.Invoke(t.Context(), microwallv1.AuthorizationService_Authorize_FullMethodName, &raw16, &answer, grpc.ForceCodec(raw{}))
					if len(answer) > 0 || status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), test.says) {
						t.Errorf("%q, %v", answer, err)
					}
				})
			}
			calls.Wait()
			runtime.ReadMemStats(&after)
			// Client and server copy the bytes; decoded they would be 20 times as many.
			if took, most := after.TotalAlloc-before.TotalAlloc, uint64(16*6*test.bytes); took > most {
				t.Errorf("%d MiB were allocated for requests that were refused, over %d", took>>20, most>>20)
			}
			for range 16 {
				if !test.told || t.Failed() {
					break
				}
				if e := <-told; policy.KindOf(e.Err) != policy.Exhausted || e.Method != microwallv1.AuthorizationService_Authorize_FullMethodName || e.Peer == "" {
					t.Errorf("told %+v", e)
				}
			}
		})
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("%d of the requests were decided", n)
	}
	if answer, err := microwallv1.NewAuthorizationServiceClient(s.conn).Authorize(t.Context(), question()); err != nil || !answer.GetDecision().GetAllowed() {
		t.Errorf("afterwards: %v, %v", answer, err)
	}
}

func TestALongListInABatchIsRefusedAlone(t *testing.T) {
	c := microwallv1.NewAuthorizationServiceClient(serve(t, grpcapi.Config{Decide: decider(t, tight), Limits: tight}).conn)
	answer, err := c.AuthorizeBatch(t.Context(), &microwallv1.AuthorizeBatchRequest{Items: []*microwallv1.AuthorizeRequest{
		question(), question(trues(4 * tight.RequestBytes)), question(drop),
	}})
	if err != nil || outcomes(answer) != "allowed ResourceExhausted denied" || !strings.Contains(answer.GetResults()[1].GetError().GetMessage(), "on its way") {
		t.Errorf("%v, %v", answer, err)
	}
}

func TestLargeRequestsDoNotAddUpNorShutOutSmallOnes(t *testing.T) {
	entered, answer := make(chan struct{}), make(chan struct{})
	s := serve(t, grpcapi.Config{
		IntakeBytes: 300 << 10,
		Decide: deciding(func(ctx context.Context, r policy.Request) (policy.Decision, error) {
			if r.Action.Name == "Wait" {
				entered <- struct{}{}
				select {
				case <-answer:
				case <-ctx.Done():
				}
			}
			return policy.Decision{Allowed: true}, nil
		}),
	})
	c := microwallv1.NewAuthorizationServiceClient(s.conn)
	large := func(name string) *microwallv1.AuthorizeRequest {
		return question(trues(100<<10), func(m *microwallv1.AuthorizeRequest) { m.Action.Name = name })
	}
	batch := func(m *microwallv1.AuthorizeRequest) error {
		answer, err := c.AuthorizeBatch(t.Context(), &microwallv1.AuthorizeBatchRequest{Items: []*microwallv1.AuthorizeRequest{m}})
		if err == nil && outcomes(answer) != "allowed" {
			t.Errorf("%.200v", answer)
		}
		return err
	}
	one := func(m *microwallv1.AuthorizeRequest) error {
		answer, err := c.Authorize(t.Context(), m)
		if err == nil && !answer.GetDecision().GetAllowed() {
			t.Errorf("%.200v", answer)
		}
		return err
	}
	for name, ask := range map[string]func(*microwallv1.AuthorizeRequest) error{"Authorize": one, "AuthorizeBatch": batch} {
		t.Run(name, func(t *testing.T) {
			done := make(chan error, 1)
			go func() { done <- ask(large("Wait")) }()
			<-entered
			for range 3 {
				if err := errors.Join(one(question()), batch(question())); err != nil {
					t.Errorf("a small request beside a large one: %v", err)
				}
				for _, err := range []error{one(large("Add")), batch(large("Add"))} {
					if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "ask again later") {
						t.Errorf("a second large request: %v", err)
					}
				}
			}
			answer <- struct{}{}
			if err := <-done; err != nil {
				t.Error(err)
			}
			// Whatever became of them, nothing keeps its room.
			for range 5 {
				if err := errors.Join(one(large("Add")), batch(large("Add"))); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			}
		})
	}
}

func TestWhatCannotBeDecodedOrPanicsKeepsNoRoom(t *testing.T) {
	s := serve(t, grpcapi.Config{
		IntakeBytes: 1000,
		Decide: deciding(func(_ context.Context, r policy.Request) (policy.Decision, error) {
			if r.Action.Name == "Panic" {
				panic("at the decision")
			}
			return policy.Decision{Allowed: true}, nil
		}),
	})
	whole := encoded(t, question())
	cut := whole[:len(whole)-1]
	panics := encoded(t, question(func(m *microwallv1.AuthorizeRequest) { m.Action.Name = "Panic" }))
	for range 50 {
		for code, bad := range map[codes.Code][]byte{codes.InvalidArgument: cut, codes.Internal: panics} {
			var answer []byte
			if err := s.conn.Invoke(t.Context(), microwallv1.AuthorizationService_Authorize_FullMethodName, &bad, &answer, grpc.ForceCodec(raw{})); status.Code(err) != code {
				t.Fatalf("%q, %v", answer, err)
			}
		}
	}
	if answer, err := microwallv1.NewAuthorizationServiceClient(s.conn).Authorize(t.Context(), question()); err != nil || !answer.GetDecision().GetAllowed() {
		t.Errorf("afterwards: %v, %v", answer, err)
	}
}

func TestASecondMessageInOneCallKeepsNoRoom(t *testing.T) {
	s := serve(t, grpcapi.Config{IntakeBytes: 1000, Decide: deciding(func(context.Context, policy.Request) (policy.Decision, error) {
		return policy.Decision{Allowed: true}, nil
	})})
	m := encoded(t, question())
	for range 50 {
		stream, err := s.conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, microwallv1.AuthorizationService_Authorize_FullMethodName, grpc.ForceCodec(raw{}))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := stream.SendMsg(&m); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
		var answer []byte
		if err := stream.RecvMsg(&answer); status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "multiple request messages") {
			t.Fatalf("%q, %v", answer, err)
		}
	}
	// gRPC sends the refusal before it tells the method about it, which then
	// returns the room of the last call.
	most := question(func(m *microwallv1.AuthorizeRequest) { m.Action.Name = strings.Repeat("x", 900) })
	for deadline := time.Now().Add(10 * time.Second); ; {
		answer, err := microwallv1.NewAuthorizationServiceClient(s.conn).Authorize(t.Context(), most)
		if err == nil && answer.GetDecision().GetAllowed() {
			return
		}
		if status.Code(err) != codes.ResourceExhausted || time.Now().After(deadline) {
			t.Fatalf("afterwards: %v, %v", answer, err)
		}
	}
}

// handingOut is a server whose bundle of shop.cart is far larger than what a
// connection takes that nobody reads from, and a connection that does not
// widen its window.
func handingOut(t *testing.T, config grpcapi.Config) microwallv1.PolicyServiceClient {
	t.Helper()
	d := testkit.NewDomain(t)
	p := d.StartPDP(testkit.NATS(t, t.TempDir()).URL(), t.TempDir())
	var module strings.Builder
	module.WriteString("allow := true\n")
	for module.Len() < 2<<20 {
		module.WriteString("# " + rand.Text() + rand.Text() + "\n")
	}
	d.Push(p, "center", "shop", `deny contains "no" if false`)
	d.Push(p, "cart", "shop.cart", module.String())
	config.Decide = p.Service
	config.Releases = pdp.NewReleases(pdp.ReleasesConfig{Live: p.Live, Store: func() (*jetstream.Store, error) { return p.Store, nil }})
	conn, err := dial.Dial(dial.Config{Server: serve(t, config).addr}, grpc.WithStaticStreamWindowSize(64<<10))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return microwallv1.NewPolicyServiceClient(conn)
}

// begin asks for the bundle and reads no more than its release.
func begin(t *testing.T, c microwallv1.PolicyServiceClient) (grpc.ServerStreamingClient[microwallv1.GetBundleResponse], error) {
	t.Helper()
	stream, err := c.GetBundle(t.Context(), &microwallv1.GetBundleRequest{Namespace: "shop.cart"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	return stream, err
}

// finish reads the rest.
func finish(stream grpc.ServerStreamingClient[microwallv1.GetBundleResponse]) (bytes int, err error) {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return bytes, nil
		}
		if err != nil {
			return bytes, err
		}
		bytes += len(m.GetChunk())
	}
}

func TestStreamsThatNeverReadDoNotAddUp(t *testing.T) {
	c := handingOut(t, grpcapi.Config{HandOuts: 2})
	var unread []grpc.ServerStreamingClient[microwallv1.GetBundleResponse]
	for range 50 {
		stream, err := begin(t, c)
		switch {
		case err == nil:
			unread = append(unread, stream)
		case status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "2 bundles are handed out already"):
			t.Fatal(err)
		}
	}
	if len(unread) != 2 {
		t.Fatalf("%d bundles were handed out at once", len(unread))
	}
	for _, stream := range unread {
		if bytes, err := finish(stream); err != nil || bytes < 1<<20 {
			t.Errorf("read at last: %d bytes, %v", bytes, err)
		}
		if _, err := begin(t, c); err != nil {
			t.Errorf("after one was read: %v", err)
		}
	}
}

func TestAStreamThatNeverReadsIsEnded(t *testing.T) {
	told := make(chan grpcapi.CallFailed, 1)
	c := handingOut(t, grpcapi.Config{HandOuts: 1, HandOutTimeout: time.Second, Events: func(e grpcapi.CallFailed) { told <- e }})
	for range 2 { // the second takes the place of the first
		stream, err := begin(t, c)
		if err != nil {
			t.Fatal(err)
		}
		if e := <-told; policy.KindOf(e.Err) != policy.Exhausted || e.Method != microwallv1.PolicyService_GetBundle_FullMethodName {
			t.Errorf("told %+v", e)
		}
		if bytes, err := finish(stream); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "within 1s") {
			t.Errorf("%d bytes, %v", bytes, err)
		}
	}
}

func TestAPeerThatHangsUpLeavesItsPlace(t *testing.T) {
	told := make(chan grpcapi.CallFailed, 1)
	c := handingOut(t, grpcapi.Config{HandOuts: 1, Events: func(e grpcapi.CallFailed) { told <- e }})
	ctx, hangUp := context.WithCancel(t.Context())
	stream, err := c.GetBundle(ctx, &microwallv1.GetBundleRequest{Namespace: "shop.cart"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	hangUp()
	if e := <-told; status.Code(grpcapi.Status(e.Err).Err()) != codes.Canceled {
		t.Errorf("told %+v", e)
	}
	stream, err = begin(t, c)
	if err != nil {
		t.Fatal(err)
	}
	if bytes, err := finish(stream); err != nil || bytes < 1<<20 {
		t.Errorf("%d bytes, %v", bytes, err)
	}
}

func TestAConnectionDoesNotLastForEver(t *testing.T) {
	s := serve(t, grpcapi.Config{Decide: decider(t, policy.Limits{}), Connections: keepalive.ServerParameters{
		MaxConnectionAge: 50 * time.Millisecond, MaxConnectionAgeGrace: 500 * time.Millisecond,
	}})
	watch, err := healthv1.NewHealthClient(s.conn).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = watch.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
	// Who may still come in does so.
	if answer, err := microwallv1.NewAuthorizationServiceClient(s.conn).Authorize(t.Context(), question(), grpc.WaitForReady(true)); err != nil || !answer.GetDecision().GetAllowed() {
		t.Errorf("afterwards: %v, %v", answer, err)
	}
}
