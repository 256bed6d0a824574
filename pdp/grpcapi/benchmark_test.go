package grpcapi_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/internal/dial"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/pdp/grpcapi"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// attributes are three allow rules over department, owner and role list.
const attributes = `
	default allow := false
	allow if input.resource.properties.owner == input.subject.id
	allow if "admin" in input.subject.properties.roles
	allow if {
		input.action.name == "read"
		input.subject.properties.department == input.resource.properties.department
	}
`

// BenchmarkRPC asks the attribute policy over loopback, with 32 calls in flight
// for each processor on one connection.
//
//	bare          a grpc-go server with the stock codec that decodes the same
//	              AuthorizeRequest and encodes the same AuthorizeResponse
//	authorize     Authorize
//	batch100      AuthorizeBatch of 100 items that share subject and context
//	batch100full  AuthorizeBatch of 100 requests, each whole and of its own
//
// Client and server share the processors, so the time of an operation is what
// it costs both. The client sends questions that were encoded before, and
// compares the answer as bytes: it is to measure the server, and not how dear
// it is to make a hundred messages. [BenchmarkRPCGenerated] has that, too.
//
// The metric %bare is the throughput beside bare, and calls is how many calls of
// authorize an operation costs, both of the same run.
func BenchmarkRPC(b *testing.B) {
	benchmarkRPC(b, func(b *testing.B, c *grpc.ClientConn, method string, question, answer proto.Message) func(context.Context) error {
		q, want := encode(b, question), encode(b, answer)
		return func(ctx context.Context) error {
			var got []byte
			if err := c.Invoke(ctx, method, &q, &got, grpc.ForceCodec(raw{})); err != nil {
				return err
			}
			if !bytes.Equal(got, want) {
				return fmt.Errorf("got %.200q, want %.200q", got, want)
			}
			return nil
		}
	})
}

// BenchmarkRPCGenerated is [BenchmarkRPC] with the generated client, which
// encodes the question and decodes the answer in each call.
func BenchmarkRPCGenerated(b *testing.B) {
	benchmarkRPC(b, func(_ *testing.B, c *grpc.ClientConn, method string, question, answer proto.Message) func(context.Context) error {
		want := proto.Size(answer)
		return func(ctx context.Context) error {
			got := answer.ProtoReflect().New().Interface()
			if err := c.Invoke(ctx, method, question, got); err != nil {
				return err
			}
			if proto.Size(got) != want {
				return fmt.Errorf("got %.200v, want %.200v", got, answer)
			}
			return nil
		}
	})
}

func benchmarkRPC(b *testing.B, caller func(b *testing.B, c *grpc.ClientConn, method string, question, answer proto.Message) func(context.Context) error) {
	conn := serve(b, grpcapi.Config{Decide: attributeService(b)}).conn
	c := microwallv1.NewAuthorizationServiceClient(conn)
	one, shared, full := attributeRequest(b, 0), &microwallv1.AuthorizeBatchRequest{}, &microwallv1.AuthorizeBatchRequest{}
	shared.Namespace, shared.Subject, shared.Context = one.GetNamespace(), one.GetSubject(), one.GetContext()
	for i := range 100 {
		m := attributeRequest(b, i)
		full.Items = append(full.Items, m)
		shared.Items = append(shared.Items, &microwallv1.AuthorizeRequest{Action: m.GetAction(), Resource: m.GetResource()})
	}
	answer, err := c.Authorize(b.Context(), one)
	if err != nil || !answer.GetDecision().GetAllowed() {
		b.Fatalf("%.200v, %v", answer, err)
	}
	single := caller(b, conn, microwallv1.AuthorizationService_Authorize_FullMethodName, one, answer)
	batch := func(m *microwallv1.AuthorizeBatchRequest) func(context.Context) error {
		answer, err := c.AuthorizeBatch(b.Context(), m)
		if err != nil || len(answer.GetResults()) != 100 || slices.ContainsFunc(answer.GetResults(), notAllowed) {
			b.Fatalf("%.200v, %v", answer, err)
		}
		return caller(b, conn, microwallv1.AuthorizationService_AuthorizeBatch_FullMethodName, m, answer)
	}
	var bare, authorize float64 // nanoseconds
	b.Run("bare", func(b *testing.B) {
		bare = inFlight(b, caller(b, serveBare(b, answer), microwallv1.AuthorizationService_Authorize_FullMethodName, one, answer))
	})
	b.Run("authorize", func(b *testing.B) {
		authorize = inFlight(b, single)
		if bare > 0 {
			b.ReportMetric(100*bare/authorize, "%bare")
		}
	})
	for _, m := range []struct {
		name string
		call func(context.Context) error
	}{{"batch100", batch(shared)}, {"batch100full", batch(full)}} {
		b.Run(m.name, func(b *testing.B) {
			took := inFlight(b, m.call)
			if authorize > 0 {
				b.ReportMetric(took/authorize, "calls")
			}
		})
	}
}

func notAllowed(r *microwallv1.BatchResult) bool { return !r.GetDecision().GetAllowed() }

func encode(b *testing.B, m proto.Message) []byte {
	b.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		b.Fatal(err)
	}
	return raw
}

// inFlight keeps 32 calls under way for each processor, and returns the
// nanoseconds for each.
func inFlight(b *testing.B, call func(context.Context) error) float64 {
	b.Helper()
	if err := call(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := call(b.Context()); err != nil {
				b.Error(err)
				return
			}
		}
	})
	return float64(b.Elapsed().Nanoseconds()) / float64(b.N)
}

func attributeService(b *testing.B) *pdp.Service {
	b.Helper()
	s, err := live.NewLocal(b.Context(), map[policy.Namespace]*bundles.Bundle{"shop.docs": testkit.NewDomain(b).Rego(attributes)}, nil, rego.Options{})
	if err != nil {
		b.Fatal(err)
	}
	// Somebody is told of every decision, as in a server.
	var decided atomic.Int64
	return pdp.New(pdp.Config{Source: s, Events: func(pdp.Event) { decided.Add(1) }})
}

// attributeRequest is allowed by the department. No two are the same.
func attributeRequest(b *testing.B, i int) *microwallv1.AuthorizeRequest {
	b.Helper()
	made := func(m map[string]any) policy.Properties {
		p, err := policy.NewProperties(m)
		if err != nil {
			b.Fatal(err)
		}
		return p
	}
	m, err := wire.RequestProto(&policy.Request{
		Namespace: "shop.docs",
		Subject: policy.Entity{Type: "user", ID: fmt.Sprintf("user-%d@shop.example", i), Properties: made(map[string]any{
			"department": "sales", "roles": []string{"clerk", "approver", "auditor"}, "clearance": 3,
		})},
		Action: policy.Action{Name: "read"},
		Resource: policy.Entity{Type: "document", ID: fmt.Sprintf("doc-%d", i), Properties: made(map[string]any{
			"department": "sales", "owner": fmt.Sprintf("owner-%d@shop.example", i), "size": 4096 + i,
		})},
		Context: made(map[string]any{
			"call_path": []string{"spiffe://shop/ns/default/sa/edge", "spiffe://shop/ns/default/sa/frontend"},
			"trace":     fmt.Sprintf("%032x", i),
		}),
	})
	if err != nil {
		b.Fatal(err)
	}
	return m
}

// bare answers every question with what it was given.
type bare struct {
	microwallv1.UnimplementedAuthorizationServiceServer
	answer *microwallv1.AuthorizeResponse
}

func (s bare) Authorize(context.Context, *microwallv1.AuthorizeRequest) (*microwallv1.AuthorizeResponse, error) {
	return s.answer, nil
}

// serveBare starts a server that has of a PDP's options those that every call
// passes through, and no interceptor.
func serveBare(b *testing.B, answer *microwallv1.AuthorizeResponse) *grpc.ClientConn {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := grpc.NewServer(
		grpc.MaxConcurrentStreams(1000),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 15 * time.Minute, MaxConnectionAge: time.Hour, Time: 30 * time.Second}),
		grpc.WaitForHandlers(true),
	)
	microwallv1.RegisterAuthorizationServiceServer(s, bare{answer: proto.CloneOf(answer)})
	var work sync.WaitGroup
	work.Go(func() {
		if err := s.Serve(l); err != nil {
			b.Error(err)
		}
	})
	b.Cleanup(func() {
		s.Stop()
		work.Wait()
	})
	return connect(b, dial.Config{Server: l.Addr().String()})
}
