package remote_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/microwall/microwall/bundles"
	"github.com/microwall/microwall/bundles/live"
	"github.com/microwall/microwall/clients/remote"
	"github.com/microwall/microwall/internal/testkit"
	"github.com/microwall/microwall/pdp"
	"github.com/microwall/microwall/pdp/grpcapi"
	"github.com/microwall/microwall/policy"
	"github.com/microwall/microwall/policy/rego"
)

// asPDP says in the environment that this process is to be a PDP, and where.
const asPDP = "MICROWALL_TEST_PDP"

// TestBeingAPDP is no test of this process: others start it to have a PDP that can be
// killed.
func TestBeingAPDP(t *testing.T) {
	at := os.Getenv(asPDP)
	if at == "" {
		t.Skip("for other tests")
	}
	d := testkit.NewDomain(t)
	s, err := live.NewLocal(t.Context(), map[policy.Namespace]*bundles.Bundle{"shop": d.Rego(`allow if input.action.name != "Drop"`)}, nil, rego.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	service := pdp.New(pdp.Config{Source: s})
	fmt.Printf("\nlistens %s\n", l.Addr())
	if err := grpcapi.New(grpcapi.Config{Decide: service, Watch: service}).Serve(l); err != nil {
		t.Fatal(err)
	}
}

// process is a PDP in a process of its own.
type process struct {
	t    *testing.T
	addr string
	run  *exec.Cmd
}

func startProcess(t *testing.T, at string) *process {
	t.Helper()
	run := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBeingAPDP$", "-test.timeout=2m")
	run.Env = append(os.Environ(), asPDP+"="+at)
	out, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, run: run}
	t.Cleanup(func() { p.kill() })
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if addr, ok := strings.CutPrefix(lines.Text(), "listens "); ok {
			p.addr = addr
			return p
		}
	}
	t.Fatal("the PDP has not started")
	return nil
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.run.Process.Signal(s); err != nil {
		p.t.Error(err)
	}
}

// kill kills it the hard way, frozen or not. It may be called twice.
func (p *process) kill() {
	_ = p.run.Process.Kill() // it may be dead
	_ = p.run.Wait()         // it was killed
}

// load asks questions that were never asked before, and counts how they end.
type load struct {
	c               *remote.Client
	answered, other atomic.Int64
	longest         atomic.Int64
	why             atomic.Pointer[error]
	stop            context.CancelFunc
	work            sync.WaitGroup
}

// deadline leaves a PDP time enough to answer on a machine that has others to do.
const deadline = 3 * time.Second

func startLoad(t *testing.T, c *remote.Client, callers int) *load {
	ctx, stop := context.WithCancel(t.Context())
	l := &load{c: c, stop: stop}
	for i := range callers {
		l.work.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				call, cancel := context.WithTimeout(context.WithoutCancel(ctx), deadline)
				begun := time.Now()
				d, err := c.Authorize(call, request("shop", fmt.Sprint(i, "/", n)))
				l.longest.Store(max(l.longest.Load(), int64(time.Since(begun))))
				cancel()
				if err == nil && d.Allowed {
					l.answered.Add(1)
				} else {
					l.other.Add(1)
					l.why.Store(&err)
				}
			}
		})
	}
	return l
}

// end stops asking, and fails the test if too many had no answer.
func (l *load) end(t *testing.T) {
	t.Helper()
	l.stop()
	l.work.Wait()
	answered, other, longest := l.answered.Load(), l.other.Load(), time.Duration(l.longest.Load())
	t.Logf("%d answered, %d not, the longest took %s", answered, other, longest)
	if other*100 > answered {
		t.Errorf("%d of %d had no answer: %v", other, answered+other, *l.why.Load())
	}
	if longest > deadline+500*time.Millisecond {
		t.Errorf("a call took %s", longest)
	}
}

// more waits until so many more are answered.
func (l *load) more(t *testing.T, n int64) {
	t.Helper()
	from := l.answered.Load()
	testkit.Until(t, func() bool { return l.answered.Load() >= from+n })
}

func TestAPDPThatDiesOrHangsIsHardlyNoticed(t *testing.T) {
	for name, hurt := range map[string]struct {
		by   syscall.Signal
		heal func(*process)
	}{
		"killed": {syscall.SIGKILL, func(p *process) {
			p.kill()
			startProcess(p.t, p.addr)
		}},
		"frozen": {syscall.SIGSTOP, func(p *process) { p.signal(syscall.SIGCONT) }},
	} {
		t.Run(name, func(t *testing.T) {
			one, two := startProcess(t, "127.0.0.1:0"), startProcess(t, "127.0.0.1:0")
			c := client(t, remote.Config{Servers: []string{one.addr, two.addr}})
			l := startLoad(t, c, 200)
			l.more(t, 2000)
			one.signal(hurt.by)
			testkit.Until(t, func() bool { return c.Status().PDPs[0].LeftAlone })
			l.more(t, 5000)
			hurt.heal(one)
			testkit.Until(t, func() bool { return !c.Status().PDPs[0].LeftAlone })
			l.more(t, 1000)
			l.end(t)
			if got := l.other.Load(); got > 0 {
				t.Logf("of those without an answer: %v", *l.why.Load())
			}
			if s := c.Status(); s.PDPs[1].Ejected > 0 || s.Waiting != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestWhenAllAreDeadWhatIsRememberedIsHandedOutAndTheRestFailsAtOnce(t *testing.T) {
	one, two := startProcess(t, "127.0.0.1:0"), startProcess(t, "127.0.0.1:0")
	c := client(t, remote.Config{Servers: []string{one.addr, two.addr}, Namespaces: []policy.Namespace{"shop"}})
	testkit.Until(t, func() bool { return c.Status().Namespaces[0].Remembered })
	mustAsk(t, c, request("shop", "Add"))
	one.signal(syscall.SIGSTOP)
	two.signal(syscall.SIGSTOP)
	mustHit(t, c, request("shop", "Add"))
	for end := time.Now().Add(20 * time.Second); !c.Status().PDPs[0].LeftAlone || !c.Status().PDPs[1].LeftAlone; {
		call, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		// One that is not yet stopped may answer the first ones.
		if d, err := c.Authorize(call, request("shop", time.Now().String())); time.Now().After(end) {
			t.Fatal(spelling(d, err))
		}
		cancel()
	}
	// One call at a time finds out whether they are back; the others do not wait.
	quick := 0
	for range 20 {
		call, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		begun := time.Now()
		d, err := c.Authorize(call, request("shop", "Get"))
		if err == nil {
			t.Fatal(spelling(d, err))
		}
		if policy.KindOf(err) == policy.Unavailable && time.Since(begun) < 50*time.Millisecond && strings.Contains(err.Error(), "left alone") {
			quick++
		}
		cancel()
	}
	if quick < 15 {
		t.Errorf("%d of 20 calls ended at once", quick)
	}
	mustHit(t, c, request("shop", "Add"))
	two.signal(syscall.SIGCONT)
	testkit.Until(t, func() bool {
		d, err := c.Authorize(t.Context(), request("shop", "Get"))
		return err == nil && d.Allowed
	})
}

// Nobody misses anything, so that no call finds out that the PDP hangs which tells
// what decides: its connections stay.
func TestAPDPThatHangsDoesNotLeaveAClientWithOldNews(t *testing.T) {
	t.Parallel()
	one, two := startProcess(t, "127.0.0.1:0"), startProcess(t, "127.0.0.1:0")
	c := client(t, remote.Config{Servers: []string{one.addr, two.addr}, Namespaces: []policy.Namespace{"shop"}})
	testkit.Until(t, func() bool { return c.Status().Namespaces[0].Remembered })
	told := map[string]*process{one.addr: one, two.addr: two}
	first := c.Status().Watched
	told[first].signal(syscall.SIGSTOP)
	testkit.Until(t, func() bool { now := c.Status().Watched; return now != "" && now != first })
	if err := c.Status().WatchEnded; err == nil || !strings.Contains(err.Error(), first) {
		t.Errorf("why it was left: %v", err)
	}
	told[first].signal(syscall.SIGCONT)
}
