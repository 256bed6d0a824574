package remote_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/clients/cache"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/pdp/grpcapi"
	"github.com/microwall/microwall/policy"
)

// deciding is a PDP that does what a test wants it to.
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

func TestAnErrorHasTheKindThatItHadInThePDP(t *testing.T) {
	for kind := policy.Internal; kind <= policy.Exhausted; kind++ {
		t.Run(kind.String(), func(t *testing.T) {
			c := client(t, remote.Config{Servers: []string{servePDP(t, deciding(func(context.Context, policy.Request) (policy.Decision, error) {
				return policy.Decision{Allowed: true}, policy.Errorf(kind, "no luck today; come again")
			})).addr}})
			says := "no luck today; come again"
			if kind == policy.Internal {
				says = "the server's log has more"
			}
			check := func(d policy.Decision, err error) {
				t.Helper()
				if d.Allowed || policy.KindOf(err) != kind || !strings.Contains(err.Error(), says) || policy.Ended(err) {
					t.Error(spelling(d, err))
				}
			}
			check(c.Authorize(t.Context(), request("shop.cart", "Add")))
			results, err := c.AuthorizeBatch(t.Context(), []policy.Request{request("shop.cart", "Add"), request("shop.cart", "Get")})
			if err != nil || len(results) != 2 {
				t.Fatalf("%v, %v", results, err)
			}
			check(results[0].Decision, results[0].Err)
			check(results[1].Decision, results[1].Err)
		})
	}
}

func TestAPDPThatPanicsAllowsNothingAndLives(t *testing.T) {
	c := client(t, remote.Config{Servers: []string{servePDP(t, deciding(func(_ context.Context, r policy.Request) (policy.Decision, error) {
		if r.Action.Name == "Panic" {
			panic("secret")
		}
		return policy.Decision{}, policy.Errorf(policy.NotFound, "still here")
	})).addr}})
	if d, err := c.Authorize(t.Context(), request("shop.cart", "Panic")); d.Allowed || policy.KindOf(err) != policy.Internal || strings.Contains(err.Error(), "secret") {
		t.Error(spelling(d, err))
	}
	if results, err := c.AuthorizeBatch(t.Context(), []policy.Request{request("shop.cart", "Add"), request("shop.cart", "Panic")}); results != nil || policy.KindOf(err) != policy.Internal {
		t.Errorf("%v, %v", results, err)
	}
	if d, err := c.Authorize(t.Context(), request("shop.cart", "Add")); policy.KindOf(err) != policy.NotFound {
		t.Error(spelling(d, err))
	}
}

// waiting is a PDP that answers when the call has ended, and says when it was
// asked.
func waiting(t testing.TB) (server, <-chan struct{}) {
	t.Helper()
	asked := make(chan struct{}, 16)
	return servePDP(t, deciding(func(ctx context.Context, _ policy.Request) (policy.Decision, error) {
		asked <- struct{}{}
		<-ctx.Done()
		return policy.Decision{Allowed: true}, ctx.Err()
	})), asked
}

func TestACallEndsWithItsContext(t *testing.T) {
	s, asked := waiting(t)
	c := client(t, remote.Config{Servers: []string{s.addr}})
	for name, test := range map[string]struct {
		context func() (context.Context, context.CancelFunc)
		want    error
	}{
		"its deadline passes": {func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), 50*time.Millisecond)
		}, context.DeadlineExceeded},
		"its deadline has passed": {func() (context.Context, context.CancelFunc) {
			return context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		}, context.DeadlineExceeded},
		"it is cancelled": {func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-asked
				cancel()
			}()
			return ctx, cancel
		}, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			for name, ask := range map[string]func(context.Context) (bool, error){
				"Authorize": func(ctx context.Context) (bool, error) {
					d, err := c.Authorize(ctx, request("shop.cart", "Add"))
					return d.Allowed, err
				},
				"AuthorizeBatch": func(ctx context.Context) (bool, error) {
					d, err := onlyOne(c.AuthorizeBatch(ctx, []policy.Request{request("shop.cart", "Add")}))
					return d.Allowed, err
				},
			} {
				for len(asked) > 0 { // by the case before
					<-asked
				}
				ctx, cancel := test.context()
				if allowed, err := ask(ctx); allowed || !errors.Is(err, test.want) || !strings.Contains(err.Error(), s.addr) {
					t.Errorf("%s: %v, %v", name, allowed, err)
				}
				cancel()
			}
		})
	}
}

func TestAPDPThatDoesNotAnswerIsUnavailable(t *testing.T) {
	s, _ := waiting(t)
	c := client(t, remote.Config{Servers: []string{s.addr}, Timeout: 50 * time.Millisecond})
	d, err := c.Authorize(t.Context(), request("shop.cart", "Add"))
	if d.Allowed || policy.KindOf(err) != policy.Unavailable || policy.Ended(err) || !strings.Contains(err.Error(), "within 50ms") || !strings.Contains(err.Error(), s.addr) {
		t.Error(spelling(d, err))
	}
	d, err = onlyOne(c.AuthorizeBatch(t.Context(), []policy.Request{request("shop.cart", "Add")}))
	if d.Allowed || policy.KindOf(err) != policy.Unavailable || policy.Ended(err) {
		t.Error(spelling(d, err))
	}
}

// onlyOne returns the result of a batch of one: the end of a call may be told
// of the batch or of the item that was decided then.
func onlyOne(results []policy.Result, err error) (policy.Decision, error) {
	if err != nil {
		return policy.Decision{}, err
	}
	return results[0].Decision, results[0].Err
}

func TestADeadPDPIsUnavailableUntilItIsBack(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c := client(t, remote.Config{Servers: []string{addr}})
	dead := func(err error) bool {
		return policy.KindOf(err) == policy.Unavailable && !policy.Ended(err) && strings.Contains(err.Error(), addr) && strings.Contains(err.Error(), "--server")
	}
	if d, err := c.Authorize(t.Context(), request("shop.cart", "Add")); d.Allowed || !dead(err) {
		t.Error(spelling(d, err))
	}
	if results, err := c.AuthorizeBatch(t.Context(), []policy.Request{request("shop.cart", "Add")}); results != nil || !dead(err) {
		t.Errorf("%v, %v", results, err)
	}
	service := shop(t)
	for range 2 {
		s := serve(t, addr, grpcapi.New(grpcapi.Config{Decide: service}))
		testkit.Until(t, func() bool {
			d, err := c.Authorize(t.Context(), request("shop.cart", "Add"))
			return err == nil && d.Allowed
		})
		s.stop()
		testkit.Until(t, func() bool {
			d, err := c.Authorize(t.Context(), request("shop.cart", "Add"))
			if err == nil || policy.KindOf(err) != policy.Unavailable || d.Allowed {
				t.Errorf("after the end: %s", spelling(d, err))
			}
			return dead(err)
		})
	}
}

func TestAPDPThatDiesInTheMiddleOfACallIsUnavailable(t *testing.T) {
	s, asked := waiting(t)
	c := client(t, remote.Config{Servers: []string{s.addr}})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-asked
		s.stop()
	}()
	d, err := c.Authorize(t.Context(), request("shop.cart", "Add"))
	<-stopped
	if d.Allowed || policy.KindOf(err) != policy.Unavailable || policy.Ended(err) || !strings.Contains(err.Error(), s.addr) {
		t.Error(spelling(d, err))
	}
}

func TestAClosedClientAllowsNothing(t *testing.T) {
	s, asked := waiting(t)
	c := client(t, remote.Config{Servers: []string{s.addr}})
	closed := make(chan error, 1)
	go func() {
		<-asked
		closed <- c.Close()
	}()
	for _, when := range []string{"while it asks", "afterwards"} {
		d, err := c.Authorize(t.Context(), request("shop.cart", "Add"))
		if d.Allowed || policy.KindOf(err) != policy.Unavailable || policy.Ended(err) {
			t.Errorf("%s: %s", when, spelling(d, err))
		}
	}
	if err := errors.Join(<-closed, c.Close()); err != nil {
		t.Error(err)
	}
	if s := c.Status(); s.PDPs[0].Connection != "SHUTDOWN" {
		t.Errorf("%+v", s)
	}
}

func TestAPDPThatEndsCallsOnItsOwnDoesNotEndTheCallersContext(t *testing.T) {
	for _, code := range []codes.Code{codes.Canceled, codes.DeadlineExceeded} {
		s := servePDP(t, deciding(func(context.Context, policy.Request) (policy.Decision, error) {
			return policy.Decision{}, status.Error(code, "says the server")
		}))
		c := client(t, remote.Config{Servers: []string{s.addr}})
		if d, err := c.Authorize(t.Context(), request("shop.cart", "Add")); policy.KindOf(err) != policy.Unavailable || policy.Ended(err) {
			t.Errorf("%v: %s", code, spelling(d, err))
		}
		results, err := c.AuthorizeBatch(t.Context(), []policy.Request{request("shop.cart", "Add")})
		if err != nil || policy.KindOf(results[0].Err) != policy.Unavailable || policy.Ended(results[0].Err) {
			t.Errorf("%v: %v, %v", code, results, err)
		}
	}
}

// Who has waited in vain is told what for.
func TestWhyAPDPHasWaitedTooLongIsTold(t *testing.T) {
	const why = "no PDP confirmed the head"
	s := servePDP(t, deciding(func(context.Context, policy.Request) (policy.Decision, error) {
		return policy.Decision{}, policy.Errorf(policy.Unavailable, why+" in time: %w", context.DeadlineExceeded)
	}))
	c := client(t, remote.Config{Servers: []string{s.addr}})
	for name, own := range map[string]bool{"by its own deadline": true, "by the client's": false} {
		ctx := t.Context()
		if own {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, time.Minute)
			defer cancel()
		}
		r := request("shop.cart", "Add")
		r.Freshness = policy.Head
		d, err := c.Authorize(ctx, r)
		if d.Allowed || err == nil || !strings.Contains(err.Error(), why) || errors.Is(err, context.DeadlineExceeded) != own {
			t.Errorf("%s: %s", name, spelling(d, err))
		}
	}
}

// Where asking again is not paid for, a call ends before its time. Then it has not run
// out of time.
func TestACallThatEndsEarlyHasNotRunOutOfTime(t *testing.T) {
	t.Parallel() // it waits
	hang := deciding(func(ctx context.Context, _ policy.Request) (policy.Decision, error) {
		<-ctx.Done()
		return policy.Decision{}, ctx.Err()
	})
	one, two := servePDP(t, hang), servePDP(t, hang)
	c := client(t, remote.Config{Servers: []string{one.addr, two.addr}})
	var early atomic.Int64
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			d, err := c.Authorize(ctx, request("shop.cart", "Add"+strconv.Itoa(i)))
			switch {
			case err == nil || d.Allowed:
				t.Error(spelling(d, err))
			case ctx.Err() == nil:
				early.Add(1)
				if policy.Ended(err) || policy.KindOf(err) != policy.Unavailable {
					t.Errorf("there was time left: %v", err)
				}
			}
		})
	}
	all.Wait()
	if early.Load() == 0 {
		t.Error("none has ended early")
	}
}

func TestAServerThatIsNoPDPAllowsNothing(t *testing.T) {
	t.Run("another gRPC server", func(t *testing.T) {
		s := serve(t, "127.0.0.1:0", grpc.NewServer())
		d, err := client(t, remote.Config{Servers: []string{s.addr}}).Authorize(t.Context(), request("shop.cart", "Add"))
		if d.Allowed || policy.KindOf(err) != policy.Internal || !strings.Contains(err.Error(), s.addr) || !strings.Contains(err.Error(), "unknown service") {
			t.Error(spelling(d, err))
		}
	})
	for name, greeting := range map[string]string{
		"a web server": "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nyes\n",
		"garbage":      strings.Repeat("\x00\xff", 1000),
		"silence":      "",
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			defer func() {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
				<-done
			}()
			go func() {
				defer close(done)
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					// The client may be gone already.
					_, _ = conn.Write([]byte(greeting))
					_ = conn.Close()
				}
			}()
			c := client(t, remote.Config{Servers: []string{l.Addr().String()}, Timeout: 2 * time.Second})
			d, err := c.Authorize(t.Context(), request("shop.cart", "Add"))
			if d.Allowed || policy.KindOf(err) != policy.Unavailable || !strings.Contains(err.Error(), l.Addr().String()) {
				t.Error(spelling(d, err))
			}
		})
	}
}

// Callers set the deadlines of calls, and know which questions take long: that must
// not keep others from a PDP that answers them.
func TestCallersWithoutPatienceDoNotCutOthersOff(t *testing.T) {
	s := servePDP(t, deciding(func(ctx context.Context, r policy.Request) (policy.Decision, error) {
		if r.Action.Name == "Slow" {
			<-ctx.Done()
			return policy.Decision{}, ctx.Err()
		}
		return policy.Decision{}, policy.Errorf(policy.NotFound, "here")
	}))
	c := client(t, remote.Config{Servers: []string{s.addr}, Cache: cache.Config{Entries: -1}})
	ctx, cancel := context.WithCancel(t.Context())
	var hasty sync.WaitGroup
	defer hasty.Wait()
	defer cancel()
	var tried atomic.Int64
	for range 16 {
		hasty.Go(func() {
			for ctx.Err() == nil {
				short, cancel := context.WithTimeout(ctx, 70*time.Millisecond)
				if _, err := c.Authorize(short, request("shop.cart", "Slow")); err == nil {
					t.Error("there is an answer")
				}
				tried.Add(1)
				cancel()
			}
		})
	}
	for tried.Load() < 100 {
		if d, err := c.Authorize(t.Context(), request("shop.cart", "Add")); policy.KindOf(err) != policy.NotFound {
			t.Fatalf("after %d: %s", tried.Load(), spelling(d, err))
		}
	}
	if p := c.Status().PDPs[0]; p.Ejected > 0 {
		t.Errorf("%+v", p)
	}
}
