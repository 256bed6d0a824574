package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/embedded"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/policy"
	microwallv1 "github.com/microwall/microwall/proto/microwall/v1"
)

var (
	killRounds = flag.Int("kill.rounds", 6, "how often the server is killed at a random moment")
	killSeed   = flag.Uint64("kill.seed", 0, "seed of those moments; 0 picks one")
)

// team pushes one release after the other.
type team struct {
	key   string
	n     policy.Namespace
	tried map[policy.Digest]int
	acked []*bundles.Signed
}

// sizes of the random data in bundles, in turn: the last one does not fit into
// a head and is stored in chunks.
var sizes = []int{10, 4 << 10, 70 << 10}

func action(push int) string { return fmt.Sprintf("Push%d", push) }

// pushOn pushes until that fails, which only the death of the server may cause.
func (m *team) pushOn(k *killable, acked func(took time.Duration)) {
	for {
		push := len(m.tried)
		b := k.allows(action(push), sizes[push%len(sizes)])
		m.tried[b.Digest()] = push
		start := time.Now()
		result, err := k.author.Push(k.t.Context(), k.draft(m.key, m.n, b))
		if err != nil {
			if policy.KindOf(err) != policy.Unavailable {
				k.t.Errorf("push %d of %s: %v", push, m.n, err)
			}
			return
		}
		m.acked = append(m.acked, result.Release)
		acked(time.Since(start))
	}
}

// check holds what is there after a restart against what was acknowledged
// before, and returns how many releases are there that were not.
func (m *team) check(k *killable) (more int) {
	k.t.Helper()
	// At once, before NATS can have been asked for anything.
	if len(m.acked) > 0 {
		newest := m.acked[len(m.acked)-1].Version()
		if _, by := k.decided(m.n, "any"); by.Revision < newest.Revision {
			k.t.Errorf("after the restart %s is decided by %v, older than %v, which was acknowledged", m.n, by, newest)
		}
	}
	all := k.history(m.n)
	if len(all) == 0 {
		if len(m.acked) > 0 {
			k.t.Errorf("no history of %s, of which %d releases were acknowledged", m.n, len(m.acked))
		}
		return 0
	}
	digests := map[policy.Digest]bool{}
	for _, s := range all {
		digests[s.Digest()] = true
		if _, ok := m.tried[s.Release().Bundle]; !ok {
			k.t.Errorf("%v was never pushed", s.Version())
		}
	}
	kept := 0
	for _, s := range m.acked {
		// The server keeps the newest hundred.
		if s.Release().Revision < all[0].Release().Revision && len(all) >= 100 {
			continue
		}
		kept++
		if !digests[s.Digest()] {
			k.t.Errorf("%v was acknowledged and is missing", s.Version())
		}
	}
	head := all[len(all)-1]
	k.activated(head)
	pushed := m.tried[head.Release().Bundle]
	if allowed, by := k.decided(m.n, action(pushed)); !allowed || by != head.Version() {
		k.t.Errorf("%s is decided by %v, allowed: %v; want %v", m.n, by, allowed, head.Version())
	}
	if allowed, _ := k.decided(m.n, action(pushed+1)); allowed {
		k.t.Errorf("%s allows what only a later push may", m.n)
	}
	return len(all) - kept
}

func TestNoReleaseIsLostOrHalfThereWhenTheServerIsKilledAtAnyMoment(t *testing.T) {
	seed := *killSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-kill.rounds %d -kill.seed %d", *killRounds, seed)
	random := rand.New(rand.NewPCG(seed, 0))
	k := newKillable(t)
	teams := []*team{
		{key: "cart", n: "shop.cart", tried: map[policy.Digest]int{}},
		{key: "pay", n: "shop.pay", tried: map[policy.Digest]int{}},
	}
	more := 0
	for range *killRounds {
		more = 0
		// In the push of one team after some that were acknowledged, at any
		// moment of it, or soon after; and wherever the other team is then.
		victim, left, part := random.IntN(len(teams)), random.IntN(4), random.Float64()
		var work sync.WaitGroup
		for i, m := range teams {
			work.Go(func() {
				// Done, unless a push has failed for another reason: the other team
				// is not to push for ever.
				defer k.server.kill()
				m.pushOn(k, func(took time.Duration) {
					if i == victim {
						if left--; left == -1 {
							time.AfterFunc(time.Duration(part*1.2*float64(took)), k.server.kill)
						}
					}
				})
			})
		}
		work.Wait()
		k.start()
		for _, m := range teams {
			more += m.check(k)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	for _, m := range teams {
		t.Logf("%s: %d pushes, %d acknowledged", m.n, len(m.tried), len(m.acked))
	}
	t.Logf("%d releases are there whose acknowledgement was lost", more)
}

func TestAServerThatIsKilledBetweenChunksHasNoHeadForThem(t *testing.T) {
	k := newKillable(t)
	head := k.push("cart", "shop.cart", k.allows("Small", 10))
	const count = 2
	landed := 0
	for attempt := 0; landed < count; attempt++ {
		if attempt == 20 {
			t.Fatal("every kill came too late")
		}
		// Whoever listens hears of each chunk when it arrives, and it is sent
		// when the one before is stored.
		stored, allowed := attempt%count, action(attempt)
		draft := k.draft("cart", "shop.cart", k.allows(allowed, count*jetstream.ChunkSize-jetstream.ChunkSize/2))
		before := k.chunks()
		chunks := make(chan *nats.Msg, 100)
		broker := k.broker()
		_, err := broker.ChanSubscribe("pdp.blob.shop.shop_cart.*", chunks)
		k.must(err)
		k.must(broker.FlushTimeout(patience))
		pushed := make(chan error, 1)
		go func() {
			_, err := k.author.Push(t.Context(), draft)
			pushed <- err
		}()
		for range stored + 1 {
			arrived(t, chunks)
		}
		k.server.kill()
		broker.Close()
		err = <-pushed

		k.start()
		all := k.history("shop.cart")
		now := all[len(all)-1]
		if now.Release().Bundle == draft.Bundle.Digest() {
			// Too late: the rest was faster than the signal.
			head = now
			k.activated(head)
			continue
		}
		landed++
		if now.Digest() != head.Digest() || policy.KindOf(err) != policy.Unavailable {
			t.Errorf("the head is %v, want %v; the author was told %v", now.Version(), head.Version(), err)
		}
		if allowed, by := k.decided("shop.cart", allowed); allowed || by != head.Version() {
			t.Errorf("decided by %v, allowed: %v", by, allowed)
		}
		if n := k.chunks() - before; n < uint64(stored) || n > count {
			t.Errorf("%d chunks are there, of which %d were stored before the kill", n, stored)
		}

		// The same push again finds them and goes on.
		result, err := k.author.Push(t.Context(), draft)
		k.must(err)
		if r := result.Release.Release(); r.Revision != head.Release().Revision+1 {
			t.Errorf("the next revision is %d", r.Revision)
		}
		head = result.Release
		k.must(k.fetch(head))
		if allowed, by := k.decided("shop.cart", allowed); !allowed || by != head.Version() {
			t.Errorf("decided by %v, allowed: %v", by, allowed)
		}
		if n := k.chunks() - before; n != count {
			t.Errorf("%d chunks, want %d: none twice", n, count)
		}
	}
}

func TestAServerThatIsAskedToEndAnswersEveryCallThatItTook(t *testing.T) {
	k := newKillable(t)
	k.push("cart", "shop.cart", k.Rego(`
		allow if input.action.name == "Quick"
		allow if {
			input.action.name == "Slow"
			every a in numbers.range(1, 100) { every b in numbers.range(1, 100) { a + b > 0 } }
		}
	`))
	request := func(action string) *microwallv1.AuthorizeRequest {
		return &microwallv1.AuthorizeRequest{
			Namespace: "shop.cart", Subject: &microwallv1.Subject{Type: "user", Id: "u"},
			Action: &microwallv1.Action{Name: action}, Resource: &microwallv1.Resource{Type: "grpc", Id: "r"},
		}
	}

	// Callers who never stop asking, for one decision and for batches in turn. In
	// the end nobody listens any more, and they are told so at once; a call that
	// reached the server may not fail.
	var work sync.WaitGroup
	var answered atomic.Int64
	asking := make(chan struct{}, 4)
	ask := func(client microwallv1.AuthorizationServiceClient, batched bool) (allowed bool, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if !batched {
			a, err := client.Authorize(ctx, request("Quick"))
			return a.GetDecision().GetAllowed(), err
		}
		a, err := client.AuthorizeBatch(ctx, &microwallv1.AuthorizeBatchRequest{Items: []*microwallv1.AuthorizeRequest{request("Quick"), request("Quick")}})
		return len(a.GetResults()) == 2 && a.GetResults()[0].GetDecision().GetAllowed() && a.GetResults()[1].GetDecision().GetAllowed(), err
	}
	for range cap(asking) {
		conn, err := grpc.NewClient(k.server.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
		k.must(err)
		defer conn.Close()
		client := microwallv1.NewAuthorizationServiceClient(conn)
		work.Go(func() {
			for n := 0; ; n++ {
				allowed, err := ask(client, n%2 == 1)
				if err != nil {
					if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "connection error") {
						t.Errorf("a call was lost: %v", err)
					}
					return
				}
				if !allowed {
					t.Errorf("call %d is not allowed", n)
				}
				answered.Add(1)
				if n == 1 {
					asking <- struct{}{}
				}
			}
		})
	}
	for range cap(asking) {
		arrived(t, asking)
	}

	// Calls that the server has taken when it is asked to end, one request and
	// batches of them, all on one connection: it has answered one that came behind
	// them there. Of half of them it knows only that there is a request to come, so
	// that nothing can have answered them by then.
	const slow = 16
	batch := &microwallv1.AuthorizeBatchRequest{Items: []*microwallv1.AuthorizeRequest{request("Quick"), request("Slow"), request("None")}}
	ending := make(chan struct{})
	var after atomic.Int64
	for i := range slow {
		method, message, one, many := microwallv1.AuthorizationService_Authorize_FullMethodName, proto.Message(request("Slow")), &microwallv1.AuthorizeResponse{}, &microwallv1.AuthorizeBatchResponse{}
		answer := proto.Message(one)
		batched := i/2%2 == 1
		if batched {
			method, message, answer = microwallv1.AuthorizationService_AuthorizeBatch_FullMethodName, batch, many
		}
		stream, err := k.conn.NewStream(t.Context(), &grpc.StreamDesc{}, method)
		k.must(err)
		say := func() error { return errors.Join(stream.SendMsg(message), stream.CloseSend()) }
		held := i%2 == 1
		if !held {
			k.must(say())
		}
		work.Go(func() {
			if held {
				<-ending
				// How the call went, its answer says.
				_ = say()
			}
			if err := stream.RecvMsg(answer); err != nil {
				t.Errorf("a call that was taken is answered %v", err)
				return
			}
			var allowed []bool
			for _, r := range many.GetResults() {
				allowed = append(allowed, r.GetDecision().GetAllowed())
			}
			if batched && !slices.Equal(allowed, []bool{true, true, false}) || !batched && !one.GetDecision().GetAllowed() {
				t.Errorf("a call that was taken is answered %v", answer)
				return
			}
			select {
			case <-ending:
				after.Add(1)
			default:
			}
		})
	}
	_, err := healthv1.NewHealthClient(k.conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
	k.must(err)
	k.must(k.server.cmd.Process.Signal(syscall.SIGTERM))
	_, err = k.server.waitFor(`"msg":"stopping`)
	close(ending)
	k.must(err)
	k.must(k.server.wait()) // exit code 0
	work.Wait()
	if n := after.Load(); n < slow/2 {
		t.Errorf("%d calls were answered after the server was asked to end, want %d at least", n, slow/2)
	}
	t.Logf("%d quick calls; %d of %d slow ones were answered after the server was asked to end", answered.Load(), after.Load(), slow)
}

func TestAnEmbeddedClientDecidesOnWhileTheServerIsKilledAndRestarted(t *testing.T) {
	k := newKillable(t)
	one := k.push("cart", "shop.cart", k.allows("One", 10)).Version()
	address := newRelay(t, k.server.NATS)
	activated, lost := make(chan policy.Version, 100), make(chan struct{}, 100)
	client, err := embedded.New(t.Context(), embedded.Config{
		NATS: address.url(), TrustFile: k.TrustFile, Namespaces: []policy.Namespace{"shop.cart"}, Dir: t.TempDir(),
		OnRelease: func(e live.Event) {
			if a, ok := e.(live.Activated); ok {
				activated <- a.Version
			}
		},
		OnNATS: func(e jetstream.Event) {
			if _, ok := e.(jetstream.Disconnected); ok {
				lost <- struct{}{}
			}
		},
	})
	k.must(err)
	defer client.Close()

	// One who asks all the time, by whichever release.
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()
	decide := func() policy.Version {
		d, err := client.Authorize(t.Context(), testkit.Request("shop.cart", "One"))
		if err != nil || len(d.Versions) != 2 || d.Allowed != (d.Versions[1] == one) {
			t.Errorf("decided %+v, %v", d, err)
			return policy.Version{}
		}
		return d.Versions[1]
	}
	work.Go(func() {
		ticker := time.NewTicker(time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				decide()
			case <-ctx.Done():
				return
			}
		}
	})

	k.server.kill()
	arrived(t, lost)
	if by := decide(); by != one {
		t.Errorf("without a server it decides by %v", by)
	}
	k.start()
	address.to(k.server.NATS)
	two := k.push("cart", "shop.cart", k.allows("Two", 10)).Version()
	for arrived(t, activated) != two {
	}
	if by := decide(); by != two {
		t.Errorf("after the push it decides by %v", by)
	}
	if d, err := client.Authorize(t.Context(), testkit.Request("shop.cart", "Two")); err != nil || !d.Allowed {
		t.Errorf("what the new release allows: %+v, %v", d, err)
	}
}
