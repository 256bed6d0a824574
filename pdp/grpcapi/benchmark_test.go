package grpcapi_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
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
// for each processor on one connection. Every call is made by the generated
// client, which encodes the question and decodes the answer each time.
//
//	bare          a grpc-go server with the stock codec that decodes the same
//	              AuthorizeRequest and encodes the same AuthorizeResponse
//	authorize     Authorize
//	batch100      AuthorizeBatch of 100 items that share subject and context
//	batch100full  AuthorizeBatch of 100 requests, each whole and of its own
//
// Client and server share the processors, so the time of an operation is what
// it costs both. Compare figures of one run only.
func BenchmarkRPC(b *testing.B) {
	door := microwallv1.NewAuthorizationServiceClient(serve(b, grpcapi.Config{Decide: attributeService(b)}).conn)
	one := attributeRequest(b, 0)
	answer, err := door.Authorize(b.Context(), one)
	if err != nil || !answer.GetDecision().GetAllowed() {
		b.Fatalf("%v, %v", answer, err)
	}
	b.Run("bare", func(b *testing.B) {
		c := microwallv1.NewAuthorizationServiceClient(serveBare(b, answer))
		inFlight(b, func(ctx context.Context) error { return allowedBy(c.Authorize(ctx, one)) })
	})
	b.Run("authorize", func(b *testing.B) {
		inFlight(b, func(ctx context.Context) error { return allowedBy(door.Authorize(ctx, one)) })
	})
	shared, full := &microwallv1.AuthorizeBatchRequest{}, &microwallv1.AuthorizeBatchRequest{}
	for i := range 100 {
		m := attributeRequest(b, i)
		full.Items = append(full.Items, m)
		shared.Namespace, shared.Subject, shared.Context = m.GetNamespace(), one.GetSubject(), one.GetContext()
		shared.Items = append(shared.Items, &microwallv1.AuthorizeRequest{Action: m.GetAction(), Resource: m.GetResource()})
	}
	batch := func(m *microwallv1.AuthorizeBatchRequest) func(*testing.B) {
		return func(b *testing.B) {
			inFlight(b, func(ctx context.Context) error {
				answer, err := door.AuthorizeBatch(ctx, m)
				if err == nil && (len(answer.GetResults()) != 100 || slices.ContainsFunc(answer.GetResults(), notAllowed)) {
					err = fmt.Errorf("got %v", answer)
				}
				return err
			})
		}
	}
	b.Run("batch100", batch(shared))
	b.Run("batch100full", batch(full))
}

func allowedBy(answer *microwallv1.AuthorizeResponse, err error) error {
	if err == nil && !answer.GetDecision().GetAllowed() {
		err = fmt.Errorf("got %v", answer)
	}
	return err
}

func notAllowed(r *microwallv1.BatchResult) bool { return !r.GetDecision().GetAllowed() }

// inFlight keeps 32 calls under way for each processor.
func inFlight(b *testing.B, call func(context.Context) error) {
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
}

func attributeService(b *testing.B) *pdp.Service {
	b.Helper()
	s, err := live.NewLocal(b.Context(), map[policy.Namespace]*bundles.Bundle{"shop.docs": testkit.NewDomain(b).Rego(attributes)}, nil, rego.Options{})
	if err != nil {
		b.Fatal(err)
	}
	return pdp.New(pdp.Config{Source: s})
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
