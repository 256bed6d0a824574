package grpcapi_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/microwall/microwall/internal/dial"
	"github.com/microwall/microwall/internal/tlsfiles"
	"github.com/microwall/microwall/internal/tlsfiles/tlstest"
	"github.com/microwall/microwall/internal/wire"
	"github.com/microwall/microwall/pdp/grpcapi"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// server is one on loopback, and a connection to it in plaintext.
type server struct {
	*grpcapi.Server
	addr string
	conn *grpc.ClientConn
}

func serve(t testing.TB, config grpcapi.Config) server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := server{Server: grpcapi.New(config), addr: l.Addr().String()}
	var work sync.WaitGroup
	work.Go(func() {
		if err := s.Serve(l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		s.Stop()
		work.Wait()
	})
	s.conn = connect(t, dial.Config{Server: s.addr})
	return s
}

func connect(t testing.TB, config dial.Config) *grpc.ClientConn {
	t.Helper()
	conn, err := dial.Dial(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

// deciding decides as a test wants it to.
type deciding func(ctx context.Context, r policy.Request) (policy.Decision, error)

func (f deciding) Authorize(ctx context.Context, r policy.Request) (policy.Decision, error) {
	return f(ctx, r)
}

func (f deciding) AuthorizeBatch(ctx context.Context, rs []policy.Request) ([]policy.Result, error) {
	results := make([]policy.Result, len(rs))
	for i, r := range rs {
		results[i].Decision, results[i].Err = f(ctx, r)
	}
	return results, nil
}

func TestErrorsBecomeStatusCodes(t *testing.T) {
	secret := errors.New("secret: dial tcp 10.0.0.1:4222")
	for name, test := range map[string]struct {
		err  error
		code codes.Code
		says string
	}{
		"bad request":              {policy.Errorf(policy.BadRequest, "mend it"), codes.InvalidArgument, "mend it"},
		"not found":                {policy.Errorf(policy.NotFound, "push one"), codes.NotFound, "push one"},
		"unavailable":              {policy.Errorf(policy.Unavailable, "ask again"), codes.Unavailable, "ask again"},
		"failed":                   {policy.Errorf(policy.Failed, "mend the policy"), codes.FailedPrecondition, "mend the policy"},
		"conflict":                 {policy.Errorf(policy.Conflict, "look again"), codes.Aborted, "look again"},
		"denied":                   {policy.Errorf(policy.Denied, "another key"), codes.PermissionDenied, "another key"},
		"exhausted":                {policy.Errorf(policy.Exhausted, "send less"), codes.ResourceExhausted, "send less"},
		"a kind inside":            {fmt.Errorf("namespace a: %w", policy.Errorf(policy.NotFound, "push one")), codes.NotFound, "namespace a: push one"},
		"internal":                 {policy.Errorf(policy.Internal, "broken: %w", secret), codes.Internal, "the server's log has more"},
		"no kind":                  {secret, codes.Internal, "the server's log has more"},
		"a kind nobody knows":      {&policy.Error{Kind: 99, Message: secret.Error()}, codes.Internal, "the server's log has more"},
		"bytes that are no text":   {policy.Errorf(policy.Failed, "policy says \xff"), codes.FailedPrecondition, "policy says \ufffd"},
		"a deadline":               {fmt.Errorf("decision: %w", context.DeadlineExceeded), codes.DeadlineExceeded, "deadline"},
		"a cancellation":           {context.Canceled, codes.Canceled, "cancelled"},
		"a status that it has":     {status.Error(codes.Unimplemented, "not here"), codes.Unimplemented, "not here"},
		"a decision besides error": {policy.Errorf(policy.Failed, "and yet"), codes.FailedPrecondition, "and yet"},
	} {
		t.Run(name, func(t *testing.T) {
			told := make(chan grpcapi.CallFailed, 1)
			s := serve(t, grpcapi.Config{
				Events: func(e grpcapi.CallFailed) { told <- e },
				Decide: deciding(func(context.Context, policy.Request) (policy.Decision, error) {
					return policy.Decision{Allowed: true, Reasons: []policy.Reason{{Namespace: "a", Text: "secret"}}}, test.err
				}),
			})
			c := microwallv1.NewAuthorizationServiceClient(s.conn)
			var trailer metadata.MD
			answer, err := c.Authorize(t.Context(), question(), grpc.Trailer(&trailer))
			if len(trailer.Get(wire.Answered)) != 1 {
				t.Errorf("the error is not marked as the server's own: %v", trailer)
			}
			if answer.GetDecision() != nil || status.Code(err) != test.code || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v, %v", answer, err)
			}
			if e := <-told; !errors.Is(e.Err, test.err) || e.Method != microwallv1.AuthorizationService_Authorize_FullMethodName || e.Peer == "" {
				t.Errorf("told %+v", e)
			}
			batch, err := c.AuthorizeBatch(t.Context(), &microwallv1.AuthorizeBatchRequest{Items: []*microwallv1.AuthorizeRequest{question()}})
			if err != nil || len(batch.GetResults()) != 1 {
				t.Fatalf("%v, %v", batch, err)
			}
			r := batch.GetResults()[0]
			if r.GetDecision() != nil || codes.Code(r.GetError().GetCode()) != test.code || !strings.Contains(r.GetError().GetMessage(), test.says) || strings.Contains(r.String(), "secret") {
				t.Errorf("in a batch: %v", r)
			}
		})
	}
	if s := grpcapi.Status(nil); s.Code() != codes.OK {
		t.Error(s)
	}
}

func TestEveryMethodOfAServiceIsServed(t *testing.T) {
	served := serve(t, grpcapi.Config{Decide: decider(t, policy.Limits{})}).GetServiceInfo()
	for _, desc := range []grpc.ServiceDesc{microwallv1.AuthorizationService_ServiceDesc, microwallv1.PolicyService_ServiceDesc} {
		var want, got []string
		for _, m := range desc.Methods {
			want = append(want, m.MethodName)
		}
		for _, s := range desc.Streams {
			want = append(want, s.StreamName)
		}
		for _, m := range served[desc.ServiceName].Methods {
			got = append(got, m.Name)
		}
		slices.Sort(want)
		slices.Sort(got)
		if len(want) == 0 || !slices.Equal(got, want) {
			t.Errorf("%s serves %v, want %v", desc.ServiceName, got, want)
		}
	}
}

func TestAnErrorTellsOnlySoMuch(t *testing.T) {
	long := policy.Errorf(policy.Failed, "policy says %s", strings.Repeat("ü", 1<<20))
	s := serve(t, grpcapi.Config{Decide: deciding(func(context.Context, policy.Request) (policy.Decision, error) { return policy.Decision{}, long })})
	c := microwallv1.NewAuthorizationServiceClient(s.conn)
	if _, err := c.Authorize(t.Context(), question()); status.Code(err) != codes.FailedPrecondition || len(err.Error()) > 100<<10 {
		t.Errorf("%.100v", err)
	}
	answer, err := c.AuthorizeBatch(t.Context(), &microwallv1.AuthorizeBatchRequest{Items: []*microwallv1.AuthorizeRequest{question(), question()}})
	if err != nil || outcomes(answer) != "FailedPrecondition FailedPrecondition" || proto.Size(answer) > 200<<10 {
		t.Errorf("%d bytes, %v", proto.Size(answer), err)
	}
}

func TestADecisionThatCannotBeSentIsAnError(t *testing.T) {
	huge, err := policy.NewProperties(map[string]any{"order": int64(1) << 60})
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, grpcapi.Config{Decide: deciding(func(_ context.Context, r policy.Request) (policy.Decision, error) {
		switch r.Action.Name {
		case "obligation":
			return policy.Decision{Allowed: true, Obligations: huge}, nil
		case "reason":
			return policy.Decision{Allowed: true, Reasons: []policy.Reason{{Namespace: "shop", Text: "\xff"}}}, nil
		}
		return policy.Decision{Allowed: true}, nil
	})})
	c := microwallv1.NewAuthorizationServiceClient(s.conn)
	named := func(name string) *microwallv1.AuthorizeRequest {
		return question(func(m *microwallv1.AuthorizeRequest) { m.Action.Name = name })
	}
	for _, name := range []string{"obligation", "reason"} {
		if answer, err := c.Authorize(t.Context(), named(name)); answer != nil || status.Code(err) != codes.FailedPrecondition {
			t.Errorf("%s: %v, %v", name, answer, err)
		}
	}
	answer, err := c.AuthorizeBatch(t.Context(), &microwallv1.AuthorizeBatchRequest{Items: []*microwallv1.AuthorizeRequest{named("obligation"), named("x"), named("reason")}})
	if err != nil || outcomes(answer) != "FailedPrecondition allowed FailedPrecondition" {
		t.Errorf("%v, %v", answer, err)
	}
}

func TestAPanicIsAnErrorAndTheServerLives(t *testing.T) {
	told := make(chan grpcapi.CallFailed, 1)
	s := serve(t, grpcapi.Config{
		Events: func(e grpcapi.CallFailed) { told <- e },
		Decide: deciding(func(_ context.Context, r policy.Request) (policy.Decision, error) {
			if r.Action.Name == "Panic" {
				panic("secret")
			}
			return policy.Decision{Allowed: true}, nil
		}),
	})
	c := microwallv1.NewAuthorizationServiceClient(s.conn)
	bad := question(func(m *microwallv1.AuthorizeRequest) { m.Action.Name = "Panic" })
	for name, ask := range map[string]func() (any, error){
		"Authorize": func() (any, error) {
			answer, err := c.Authorize(t.Context(), bad)
			return answer.GetDecision(), err
		},
		"AuthorizeBatch": func() (any, error) {
			answer, err := c.AuthorizeBatch(t.Context(), &microwallv1.AuthorizeBatchRequest{Items: []*microwallv1.AuthorizeRequest{question(), bad}})
			return len(answer.GetResults()), err
		},
	} {
		answer, err := ask()
		if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, %v", name, answer, err)
		}
		if e := <-told; !strings.Contains(e.Err.Error(), "secret") || !strings.Contains(e.Err.Error(), "server_test.go") {
			t.Errorf("%s: the event does not say where: %v", name, e.Err)
		}
	}
	if answer, err := c.Authorize(t.Context(), question()); err != nil || !answer.GetDecision().GetAllowed() {
		t.Errorf("afterwards: %v, %v", answer, err)
	}
}

func TestHealthIsAnswered(t *testing.T) {
	s := serve(t, grpcapi.Config{Decide: decider(t, policy.Limits{})})
	c := healthv1.NewHealthClient(s.conn)
	for _, service := range []string{"", "microwall.v1.AuthorizationService", "microwall.v1.PolicyService"} {
		if answer, err := c.Check(t.Context(), &healthv1.HealthCheckRequest{Service: service}); err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v, %v", service, answer, err)
		}
	}
	if _, err := c.Check(t.Context(), &healthv1.HealthCheckRequest{Service: "microwall.v1.Other"}); status.Code(err) != codes.NotFound {
		t.Error(err)
	}
}

func TestReflectionTellsWhatThereIs(t *testing.T) {
	s := serve(t, grpcapi.Config{Decide: decider(t, policy.Limits{})})
	stream, err := reflectionv1.NewServerReflectionClient(s.conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(m *reflectionv1.ServerReflectionRequest) *reflectionv1.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
		answer, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	listed := map[string]bool{}
	for _, service := range ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}).GetListServicesResponse().GetService() {
		listed[service.GetName()] = true
	}
	for _, name := range []string{"microwall.v1.AuthorizationService", "microwall.v1.PolicyService", "grpc.health.v1.Health"} {
		if !listed[name] {
			t.Errorf("%s is not listed in %v", name, listed)
		}
	}
	files := ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{
		FileContainingSymbol: "microwall.v1.AuthorizationService",
	}}).GetFileDescriptorResponse().GetFileDescriptorProto()
	if len(files) == 0 {
		t.Fatal("no file describes AuthorizationService")
	}
	var file descriptorpb.FileDescriptorProto
	if err := proto.Unmarshal(files[0], &file); err != nil || file.GetPackage() != "microwall.v1" {
		t.Errorf("%v, %v", file.GetPackage(), err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// policyCalls are the methods of PolicyService; each returns how it ended.
func policyCalls(ctx context.Context, conn *grpc.ClientConn) map[string]error {
	c := microwallv1.NewPolicyServiceClient(conn)
	ended := map[string]error{}
	_, ended["GetRelease"] = c.GetRelease(ctx, &microwallv1.GetReleaseRequest{Namespace: "shop.cart"})
	_, ended["ListReleases"] = c.ListReleases(ctx, &microwallv1.ListReleasesRequest{Namespace: "shop.cart"})
	if stream, err := c.GetBundle(ctx, &microwallv1.GetBundleRequest{Namespace: "shop.cart"}); err != nil {
		ended["GetBundle"] = err
	} else {
		_, ended["GetBundle"] = stream.Recv()
	}
	if stream, err := c.Push(ctx); err != nil {
		ended["Push"] = err
	} else {
		_, ended["Push"] = stream.CloseAndRecv()
	}
	return ended
}

func TestWhereFoldersDecideNoReleasesAreTaken(t *testing.T) {
	s := serve(t, grpcapi.Config{Decide: decider(t, policy.Limits{})})
	for method, err := range policyCalls(t.Context(), s.conn) {
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "--dir") {
			t.Errorf("%s: %v", method, err)
		}
	}
}

func TestPolicyServiceAnswersOnlyThoseWithACertificateWhereItMust(t *testing.T) {
	ours, theirs := tlstest.NewCA(t), tlstest.NewCA(t)
	cert, key := ours.Issue(t, "pdp")
	own, ownKey := ours.Issue(t, "ci")
	strange, strangeKey := theirs.Issue(t, "stranger")
	secure := func(clientCA string) grpcapi.Config {
		config, err := tlsfiles.Server(tlsfiles.ServerConfig{Cert: cert, Key: key, ClientCA: clientCA})
		if err != nil {
			t.Fatal(err)
		}
		return grpcapi.Config{Decide: decider(t, policy.Limits{}), Credentials: credentials.NewTLS(config), ClientCertificates: true}
	}
	for name, test := range map[string]struct {
		server         grpcapi.Config
		client         dial.Config
		decide, policy codes.Code
	}{
		"in plaintext":                       {grpcapi.Config{Decide: decider(t, policy.Limits{}), ClientCertificates: true}, dial.Config{}, codes.OK, codes.PermissionDenied},
		"in plaintext, where none is needed": {grpcapi.Config{Decide: decider(t, policy.Limits{})}, dial.Config{}, codes.OK, codes.Unavailable},
		"without a certificate":              {secure(ours.File), dial.Config{CA: ours.File}, codes.OK, codes.PermissionDenied},
		"with ours":                          {secure(ours.File), dial.Config{CA: ours.File, Cert: own, CertKey: ownKey}, codes.OK, codes.Unavailable},
		"with a stranger's":                  {secure(theirs.File), dial.Config{CA: ours.File, Cert: own, CertKey: ownKey}, codes.OK, codes.PermissionDenied},
		"where no certificate is checked":    {secure(""), dial.Config{CA: ours.File, Cert: strange, CertKey: strangeKey}, codes.OK, codes.PermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			test.client.Server = serve(t, test.server).addr
			conn := connect(t, test.client)
			answer, err := microwallv1.NewAuthorizationServiceClient(conn).Authorize(t.Context(), question())
			if status.Code(err) != test.decide || !answer.GetDecision().GetAllowed() {
				t.Errorf("Authorize: %v, %v", answer, err)
			}
			for method, err := range policyCalls(t.Context(), conn) {
				if status.Code(err) != test.policy || test.policy == codes.PermissionDenied && !strings.Contains(err.Error(), "--cert") {
					t.Errorf("%s: %v, want %v", method, err, test.policy)
				}
			}
		})
	}
}

func TestAServerThatStopsFinishesWhatItTook(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	s := serve(t, grpcapi.Config{Decide: deciding(func(ctx context.Context, _ policy.Request) (policy.Decision, error) {
		close(asked)
		select {
		case <-answer:
			return policy.Decision{Allowed: true}, nil
		case <-ctx.Done():
			return policy.Decision{}, ctx.Err()
		}
	})})
	watch, err := healthv1.NewHealthClient(s.conn).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := watch.Recv(); err != nil || m.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Fatalf("%v, %v", m, err)
	}
	type ended struct {
		allowed bool
		err     error
	}
	done := make(chan ended, 1)
	go func() {
		m, err := microwallv1.NewAuthorizationServiceClient(s.conn).Authorize(t.Context(), question())
		done <- ended{m.GetDecision().GetAllowed(), err}
	}()
	<-asked
	stopped := make(chan struct{})
	ctx, cutOff := context.WithCancel(t.Context())
	defer cutOff()
	go func() {
		defer close(stopped)
		s.Shutdown(ctx)
	}()
	if m, err := watch.Recv(); err != nil || m.GetStatus() != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Fatalf("%v, %v", m, err)
	}
	select {
	case <-stopped:
		t.Error("the server stopped before it had answered")
	default:
	}
	close(answer)
	if e := <-done; e.err != nil || !e.allowed {
		t.Errorf("%+v", e)
	}
	cutOff() // the watch of health would go on for ever
	<-stopped
}

func TestAServerThatMustStopCutsOffWhatIsLeft(t *testing.T) {
	asked := make(chan struct{})
	s := serve(t, grpcapi.Config{Decide: deciding(func(ctx context.Context, _ policy.Request) (policy.Decision, error) {
		close(asked)
		<-ctx.Done()
		return policy.Decision{Allowed: true}, ctx.Err()
	})})
	done := make(chan error, 1)
	go func() {
		_, err := microwallv1.NewAuthorizationServiceClient(s.conn).Authorize(t.Context(), question())
		done <- err
	}()
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	s.Shutdown(ctx)
	if err := <-done; err == nil {
		t.Error("a call that was cut off was answered")
	}
}
