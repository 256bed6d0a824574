package remote_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// liar is a server that tells and answers what a test wants.
type liar struct {
	microwallv1.UnimplementedAuthorizationServiceServer
	microwallv1.UnimplementedPolicyServiceServer
	told   chan *microwallv1.WatchResponse
	answer atomic.Pointer[microwallv1.AuthorizeResponse]
	asked  atomic.Int64
}

func (l *liar) Authorize(context.Context, *microwallv1.AuthorizeRequest) (*microwallv1.AuthorizeResponse, error) {
	l.asked.Add(1)
	return l.answer.Load(), nil
}

func (l *liar) AuthorizeBatch(_ context.Context, m *microwallv1.AuthorizeBatchRequest) (*microwallv1.AuthorizeBatchResponse, error) {
	a := l.answer.Load()
	answer := &microwallv1.AuthorizeBatchResponse{Versions: a.GetVersions(), Evaluation: a.GetEvaluation()}
	for range m.GetItems() {
		l.asked.Add(1)
		r := &microwallv1.BatchResult{Result: &microwallv1.BatchResult_Decision{Decision: a.GetDecision()}}
		for i := range a.GetVersions() {
			r.Path = append(r.Path, uint32(i))
		}
		answer.Results = append(answer.Results, r)
	}
	return answer, nil
}

func (l *liar) Watch(_ *microwallv1.WatchRequest, stream grpc.ServerStreamingServer[microwallv1.WatchResponse]) error {
	for {
		select {
		case m := <-l.told:
			if err := stream.Send(m); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return status.Error(codes.Canceled, "gone")
		}
	}
}

func startLiar(t *testing.T) (*liar, *remote.Client) {
	t.Helper()
	l := &liar{told: make(chan *microwallv1.WatchResponse, 16)}
	s := grpc.NewServer()
	microwallv1.RegisterAuthorizationServiceServer(s, l)
	microwallv1.RegisterPolicyServiceServer(s, l)
	at := serve(t, "127.0.0.1:0", s).addr
	return l, client(t, remote.Config{Servers: []string{at}, Namespaces: []policy.Namespace{"shop.cart"}, Timeout: 2 * time.Second})
}

func release(n string, revision uint64) *microwallv1.Version {
	return &microwallv1.Version{Namespace: n, Epoch: 1, Revision: revision, Digest: policy.DigestOf([]byte(fmt.Sprint(n, revision))).String()}
}

// tells is what decides in shop.cart by a revision, which reads some of the request.
func tells(revision uint64, reads ...string) *microwallv1.WatchResponse {
	m := &microwallv1.WatchResponse{Namespace: "shop.cart", Engine: "engine", Path: []*microwallv1.Proof{{Version: release("shop", 1)}, {Version: release("shop.cart", revision)}}}
	for _, part := range reads {
		field := map[string]string{"subject": "id", "action": "name"}[part]
		m.Reads = append(m.Reads, &microwallv1.ReadPath{Steps: []*microwallv1.ReadStep{
			{Step: &microwallv1.ReadStep_Name{Name: part}}, {Step: &microwallv1.ReadStep_Name{Name: field}},
		}})
	}
	return m
}

func says(allowed bool, revision uint64, change ...func(*microwallv1.AuthorizeResponse)) *microwallv1.AuthorizeResponse {
	m := &microwallv1.AuthorizeResponse{
		Decision: &microwallv1.Decision{Allowed: allowed}, Versions: []*microwallv1.Version{release("shop", 1), release("shop.cart", revision)},
		Evaluation: &microwallv1.Evaluation{InputTime: 1, Engine: "engine"},
	}
	for _, c := range change {
		c(m)
	}
	return m
}

func isRemembered(c *remote.Client, revision uint64) func() bool {
	return func() bool {
		n := c.Status().Namespaces[0]
		return n.Remembered && n.Versions[1].Revision == revision
	}
}

func TestWhatAPDPSaysItWasMadeByMustBeWhatDecides(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*microwallv1.AuthorizeResponse)
		hit    bool
	}{
		"it is":                      {func(*microwallv1.AuthorizeResponse) {}, true},
		"another engine":             {func(m *microwallv1.AuthorizeResponse) { m.Evaluation.Engine = "another" }, false},
		"no engine":                  {func(m *microwallv1.AuthorizeResponse) { m.Evaluation.Engine = "" }, false},
		"nothing of how":             {func(m *microwallv1.AuthorizeResponse) { m.Evaluation = nil }, false},
		"a release that is not told": {func(m *microwallv1.AuthorizeResponse) { m.Versions[1] = release("shop.cart", 6) }, false},
		"no guardrail":               {func(m *microwallv1.AuthorizeResponse) { m.Versions = m.GetVersions()[1:] }, false},
		"another guardrail":          {func(m *microwallv1.AuthorizeResponse) { m.Versions[0] = release("shop", 2) }, false},
		"a denial by staleness": {func(m *microwallv1.AuthorizeResponse) {
			m.Decision = &microwallv1.Decision{Stale: []string{"shop.cart"}, StaleDenied: true}
		}, false},
		"stale, and served": {func(m *microwallv1.AuthorizeResponse) { m.Decision.Stale = []string{"shop.cart"} }, true},
	} {
		for _, how := range []string{"one", "batch"} {
			t.Run(name+", "+how, func(t *testing.T) {
				l, c := startLiar(t)
				l.told <- tells(5, "action")
				testkit.Until(t, isRemembered(c, 5))
				l.answer.Store(says(true, 5, test.change))
				ask := func() (policy.Decision, error) {
					if how == "one" {
						return c.Authorize(t.Context(), request("shop.cart", "Add"))
					}
					return onlyOne(c.AuthorizeBatch(t.Context(), []policy.Request{request("shop.cart", "Add")}))
				}
				if d, err := ask(); err != nil {
					t.Fatal(spelling(d, err))
				}
				d, err := ask()
				if hit := l.asked.Load() == 1; err != nil || hit != test.hit || hit && len(d.Stale) > 0 {
					t.Errorf("hit is %v: %s", hit, full(d, err))
				}
			})
		}
	}
}

func TestAnAnswerByAnOlderReleaseThanWasSeenIsNone(t *testing.T) {
	l, c := startLiar(t)
	l.told <- tells(5, "action")
	testkit.Until(t, isRemembered(c, 5))
	fork := func(m *microwallv1.AuthorizeResponse) {
		m.Versions[1].Digest = policy.DigestOf([]byte("fork")).String()
	}
	for name, m := range map[string]*microwallv1.AuthorizeResponse{
		"older": says(true, 4), "of nobody": says(true, 0), "of an older epoch": says(true, 9, func(m *microwallv1.AuthorizeResponse) { m.Versions[1].Epoch = 0 }),
		"of an older guardrail": says(true, 5, func(m *microwallv1.AuthorizeResponse) { m.Versions[0] = release("shop", 0) }), "a fork": says(true, 5, fork),
	} {
		l.answer.Store(m)
		if d, err := c.Authorize(t.Context(), request("shop.cart", "Add")); d.Allowed || policy.KindOf(err) != policy.Unavailable {
			t.Errorf("%s: %s", name, spelling(d, err))
		}
		if rs, err := c.AuthorizeBatch(t.Context(), []policy.Request{request("shop.cart", "Add")}); rs != nil || policy.KindOf(err) != policy.Unavailable {
			t.Errorf("%s, in a batch: %v %v", name, rs, err)
		}
	}
	// What is told does not go back either, and is counted.
	before := c.Status().Ignored
	l.told <- tells(4, "action")
	testkit.Until(t, func() bool { return c.Status().Ignored > before })
	if !isRemembered(c, 5)() {
		t.Errorf("%+v", c.Status().Namespaces)
	}
}

// Keys of other read paths must be other keys, whoever says which are read.
func TestKeysOfOneReleaseByOtherReadPathsAreOtherKeys(t *testing.T) {
	l, c := startLiar(t)
	l.told <- tells(5, "action")
	testkit.Until(t, isRemembered(c, 5))
	l.answer.Store(says(true, 5))
	same := func(r *policy.Request) { r.Subject.ID = "root" }
	if d, err := c.Authorize(t.Context(), request("shop.cart", "root", func(r *policy.Request) { r.Subject.ID = "nobody" })); err != nil || !d.Allowed {
		t.Fatal(spelling(d, err))
	}
	l.answer.Store(says(false, 5))
	ask := func() bool {
		d, err := c.Authorize(t.Context(), request("shop.cart", "Add", same))
		if err != nil || d.Allowed {
			t.Fatalf("the answer about another subject: %s", spelling(d, err))
		}
		return c.Status().Cache.Entries == 3
	}
	ask()
	l.told <- tells(5, "subject")
	testkit.Until(t, ask)
}

func TestWhatIsToldInNoSenseIsNotLookedUpBy(t *testing.T) {
	for name, change := range map[string]func(*microwallv1.WatchResponse){
		"no engine":         func(m *microwallv1.WatchResponse) { m.Engine = "" },
		"no path":           func(m *microwallv1.WatchResponse) { m.Path = nil },
		"a stranger's path": func(m *microwallv1.WatchResponse) { m.Path[1].Version = release("shop.pay", 7) },
		"no version":        func(m *microwallv1.WatchResponse) { m.Path[0].Version = nil },
		"twice the same":    func(m *microwallv1.WatchResponse) { m.Path[0].Version = m.GetPath()[1].GetVersion() },
		"a time beyond time": func(m *microwallv1.WatchResponse) {
			m.Path[1].MaxStaleness, m.Path[1].Time = durationpb.New(time.Hour), &timestamppb.Timestamp{Seconds: 1 << 60}
		},
		"a duration beyond time": func(m *microwallv1.WatchResponse) { m.Path[1].MaxStaleness = &durationpb.Duration{Seconds: 1 << 60} },
		"an error": func(m *microwallv1.WatchResponse) {
			m.Error, m.Path = &microwallv1.WatchError{Code: int32(codes.NotFound), Message: "retired"}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, c := startLiar(t)
			l.told <- tells(5, "action")
			testkit.Until(t, isRemembered(c, 5))
			l.answer.Store(says(true, 5))
			mustAsk(t, c, request("shop.cart", "Add"))
			mustHit(t, c, request("shop.cart", "Add"))
			m := tells(6, "action")
			change(m)
			l.told <- m
			testkit.Until(t, func() bool { n := c.Status().Namespaces[0]; return !n.Remembered && n.Undecided != nil })
			mustAsk(t, c, request("shop.cart", "Add"))
		})
	}
}
