package remote_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

// edition is a PDP as one of another version of the program: with another engine, by
// which each decision has a reason more, its name.
type edition struct {
	microwallv1.UnimplementedAuthorizationServiceServer
	microwallv1.UnimplementedPolicyServiceServer
	engine string
	decide microwallv1.AuthorizationServiceClient
	watch  microwallv1.PolicyServiceClient
	asked  *atomic.Int64
}

// serveEdition serves a PDP as an engine, at an address.
func serveEdition(t *testing.T, n *node, engine, address string, asked *atomic.Int64) server {
	t.Helper()
	conn, err := grpc.NewClient(n.server.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	e := &edition{engine: engine, decide: microwallv1.NewAuthorizationServiceClient(conn), watch: microwallv1.NewPolicyServiceClient(conn), asked: asked}
	s := grpc.NewServer()
	microwallv1.RegisterAuthorizationServiceServer(s, e)
	microwallv1.RegisterPolicyServiceServer(s, e)
	return serve(t, address, s)
}

func (e *edition) by(d *microwallv1.Decision, made *microwallv1.Evaluation) {
	made.Engine = e.engine
	d.Reasons = append(d.Reasons, &microwallv1.Reason{Namespace: "shop.cart", Text: e.engine})
}

func (e *edition) Authorize(ctx context.Context, m *microwallv1.AuthorizeRequest) (*microwallv1.AuthorizeResponse, error) {
	e.asked.Add(1)
	answer, err := e.decide.Authorize(ctx, m)
	if err == nil {
		e.by(answer.GetDecision(), answer.GetEvaluation())
	}
	return answer, err
}

func (e *edition) AuthorizeBatch(ctx context.Context, m *microwallv1.AuthorizeBatchRequest) (*microwallv1.AuthorizeBatchResponse, error) {
	e.asked.Add(1)
	answer, err := e.decide.AuthorizeBatch(ctx, m)
	if err == nil {
		for _, r := range answer.GetResults() {
			e.by(r.GetDecision(), answer.GetEvaluation())
		}
	}
	return answer, err
}

func (e *edition) Watch(m *microwallv1.WatchRequest, to grpc.ServerStreamingServer[microwallv1.WatchResponse]) error {
	from, err := e.watch.Watch(to.Context(), m)
	for err == nil {
		var told *microwallv1.WatchResponse
		if told, err = from.Recv(); err == nil {
			other := proto.CloneOf(told)
			other.Engine = e.engine
			err = to.Send(other)
		}
	}
	return err
}

// PDPs of one domain are replaced one after the other by those of a new edition,
// whose engine decides otherwise. What the one has decided is never handed out as the
// other one's, and in the end all is remembered again.
func TestPDPsAreReplacedByOnesWithAnotherEngine(t *testing.T) {
	d, now := testkit.NewDomain(t), new(testkit.Clock)
	shop, cart := d.Release("center", "shop", nil, d.Rego(`deny contains "never" if false`)), d.Release("cart", "shop.cart", nil, d.Rego(attributes))
	var asked atomic.Int64
	var editions [2]server
	var addresses []string
	var nodes [2]*node
	for i := range editions {
		nodes[i] = startNode(t, d, now.Now)
		nodes[i].offer(shop, cart)
		editions[i] = serveEdition(t, nodes[i], "old", "127.0.0.1:0", &asked)
		addresses = append(addresses, editions[i].addr)
	}
	c := client(t, remote.Config{Servers: addresses, Namespaces: []policy.Namespace{"shop.cart"}, Now: now.Now})
	remembers(t, c, cart.Version())
	const questions = 40
	fresh := questions // the first question that nobody has asked
	question := func(i int) policy.Request {
		return request("shop.cart", []string{"Add", "Get"}[i%2], func(r *policy.Request) {
			r.Subject.Properties = testkit.Properties(t, map[string]any{"role": fmt.Sprint(i)})
		})
	}
	// ask returns which engine has decided, and whether that was remembered.
	ask := func(i int) (engine string, hit bool) {
		before := asked.Load()
		var got policy.Decision
		var err error
		if i%3 == 0 {
			got, err = onlyOne(c.AuthorizeBatch(t.Context(), []policy.Request{question(i)}))
		} else {
			got, err = c.Authorize(t.Context(), question(i))
		}
		if err != nil {
			t.Fatal(err)
		}
		texts := make([]string, len(got.Reasons))
		for j := range got.Reasons {
			texts[j] = got.Reasons[j].Text
		}
		if engine = got.Evaluation.Engine; !got.Allowed || !slices.Equal(texts, []string{fmt.Sprint(i), engine}) {
			t.Fatalf("question %d is answered as by engine %q: %s", i, engine, full(got, nil))
		}
		return engine, asked.Load() == before
	}
	all := func(engine string) bool {
		hits := 0
		for i := range fresh {
			if by, hit := ask(i); hit && by == engine {
				hits++
			}
		}
		return hits == fresh
	}
	testkit.Until(t, func() bool { return all("old") })
	watched := slices.Index(addresses, c.Status().Watched)
	// First the one that is not watched.
	for _, i := range []int{1 - watched, watched} {
		editions[i].stop()
		editions[i] = serveEdition(t, nodes[i], "new", addresses[i], &asked)
		// Whichever of them is watched, both answer what was not asked before.
		by := map[string]int{}
		testkit.Until(t, func() bool {
			for j := range questions {
				ask(j)
				engine, _ := ask(fresh)
				by[engine]++
				fresh++
			}
			for j := range fresh {
				if engine, hit := ask(j); hit && engine != "old" && i != watched {
					t.Fatalf("question %d is answered from memory by an engine that does not decide", j)
				}
			}
			return by["new"] > 0
		})
		// Many who ask at once take no answer of another engine from one another.
		var work sync.WaitGroup
		for range questions {
			r := question(fresh)
			fresh++
			for range 3 {
				work.Go(func() {
					got, err := c.Authorize(t.Context(), r)
					if err != nil || !slices.ContainsFunc(got.Reasons, func(said policy.Reason) bool { return said.Text == got.Evaluation.Engine }) {
						t.Errorf("got %s", full(got, err))
					}
				})
			}
		}
		work.Wait()
		if i != watched && by["old"] == 0 {
			t.Error("the old engine was not asked while both were there")
		}
	}
	testkit.Until(t, func() bool { return all("new") })
	before := asked.Load()
	for range 3 {
		if !all("new") {
			t.Error("an answer of an engine that is gone")
		}
	}
	if n := asked.Load() - before; n != 0 {
		t.Errorf("%d questions were asked again", n)
	}
}
