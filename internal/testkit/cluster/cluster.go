//go:build unix

package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// size is how many servers a cluster has.
	size = 3
	// patience bounds every wait for what must come.
	patience = time.Minute
	// look is how often a server is asked whether it has come.
	look = 25 * time.Millisecond
)

// Cluster is three servers that know each other.
type Cluster struct {
	t  testing.TB
	as []nats.Option
	// Nodes are the servers, in no order that means anything.
	Nodes []*Node
}

// Node is one server. Its address stays what it is when it is started again.
type Node struct {
	t            testing.TB
	as           []nats.Option
	name, config string
	program, log string
	addr         string
	cmd          *exec.Cmd // nil while it does not run
	ended        chan struct{}
}

// Start builds nats-server, runs three of them as a cluster, and returns when it
// takes writes. more is appended to each server's configuration; if that has
// accounts, as is somebody who may ask for streams.
func Start(t testing.TB, more string, as ...nats.Option) *Cluster {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "nats-server")
	//nolint:gosec // the program is the test's own
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "github.com/nats-io/nats-server/v2").CombinedOutput(); err != nil {
		t.Fatalf("nats-server cannot be built: %v\n%s", err, out)
	}
	c := &Cluster{t: t, as: as}
	addrs := freeAddrs(t, 2*size)
	clients, routes := addrs[:size], addrs[size:]
	for i := range size {
		n := &Node{t: t, as: as, name: fmt.Sprintf("n%d", i+1), program: program, addr: clients[i]}
		n.config, n.log = filepath.Join(dir, n.name+".conf"), filepath.Join(dir, n.name+".log")
		// Nobody is told of other addresses than those that the test hands out,
		// or whoever is cut off would find a way around.
		text := fmt.Sprintf(`server_name: %s
listen: %s
log_file: %q
jetstream { store_dir: %q, max_memory_store: 1GB, max_file_store: 8GB, sync_interval: always }
cluster { name: microwall, listen: %s, no_advertise: true, routes: [%s] }
%s
`, n.name, n.addr, n.log, filepath.Join(dir, n.name), routes[i], "nats://"+strings.Join(routes, ", nats://"), more)
		if err := os.WriteFile(n.config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c.Nodes = append(c.Nodes, n)
	}
	t.Cleanup(func() {
		for _, n := range c.Nodes {
			n.Kill()
			if t.Failed() {
				text, err := os.ReadFile(n.log)
				t.Logf("the end of the log of %s: %v\n%s", n.name, err, text[max(0, len(text)-4000):])
			}
		}
	})
	for _, n := range c.Nodes {
		n.Launch()
	}
	for _, n := range c.Nodes {
		n.awaitReady()
	}
	return c
}

// freeAddrs returns addresses on loopback that nobody listens on.
func freeAddrs(t testing.TB, count int) []string {
	t.Helper()
	var all []string
	for range count {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }() // when all are known, so that no two are the same
		all = append(all, l.Addr().String())
	}
	return all
}

// URL names all servers, with commas between.
func (c *Cluster) URL() string {
	var all []string
	for _, n := range c.Nodes {
		all = append(all, n.URL())
	}
	return strings.Join(all, ",")
}

// Leader returns the server that leads a stream.
func (c *Cluster) Leader(stream string) *Node {
	c.t.Helper()
	info := c.await(stream, func(*jetstream.StreamInfo) bool { return true })
	i := slices.IndexFunc(c.Nodes, func(n *Node) bool { return n.name == info.Cluster.Leader })
	return c.Nodes[i]
}

// Follower returns a server that holds a stream and does not lead it.
func (c *Cluster) Follower(stream string) *Node {
	c.t.Helper()
	leader := c.Leader(stream)
	i := slices.IndexFunc(c.Nodes, func(n *Node) bool { return n != leader })
	return c.Nodes[i]
}

// Lead makes a server lead a stream.
func (c *Cluster) Lead(stream string, n *Node) {
	c.t.Helper()
	js, end := connect(c.t, c.URL(), c.as)
	defer end()
	poll(c.t, "the lead of "+n.name, func(ctx context.Context) error {
		s, err := js.Stream(ctx, stream)
		if err != nil || s.CachedInfo().Cluster.Leader == n.name {
			return err
		}
		_, err = js.Conn().RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+stream, fmt.Appendf(nil, `{"placement": {"preferred": %q}}`, n.name))
		return cmp.Or(err, errors.New("another server leads"))
	})
}

// Settle waits until the streams are held by all servers, none of them behind:
// only then does the loss of another one lose nothing but time.
func (c *Cluster) Settle(streams ...string) {
	c.t.Helper()
	for _, stream := range streams {
		c.await(stream, func(info *jetstream.StreamInfo) bool {
			behind := func(r *jetstream.PeerInfo) bool { return !r.Current || r.Offline }
			return len(info.Cluster.Replicas) == size-1 && !slices.ContainsFunc(info.Cluster.Replicas, behind)
		})
	}
}

// await asks for a stream until it has a leader that says what is wanted.
func (c *Cluster) await(stream string, wanted func(*jetstream.StreamInfo) bool) *jetstream.StreamInfo {
	c.t.Helper()
	js, end := connect(c.t, c.URL(), c.as)
	defer end()
	var info *jetstream.StreamInfo
	poll(c.t, "the stream "+stream, func(ctx context.Context) error {
		s, err := js.Stream(ctx, stream)
		if err != nil {
			return err
		}
		info = s.CachedInfo()
		if info.Cluster == nil || info.Cluster.Leader == "" || !wanted(info) {
			return fmt.Errorf("it is at %+v", info.Cluster)
		}
		return nil
	})
	return info
}

// Name of the server in the cluster.
func (n *Node) Name() string { return n.name }

// URL is where clients find the server.
func (n *Node) URL() string { return "nats://" + n.addr }

// Start starts the server again, and returns when JetStream answers there.
func (n *Node) Start() {
	n.t.Helper()
	n.Launch()
	n.awaitReady()
}

// Launch starts the server again and does not wait: alone it does not answer.
func (n *Node) Launch() {
	n.t.Helper()
	cmd := exec.Command(n.program, "-c", n.config) //nolint:gosec // both are the test's own
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it ends by being killed
		close(ended)
	}()
	n.cmd, n.ended = cmd, ended
}

func (n *Node) awaitReady() {
	n.t.Helper()
	js, end := connect(n.t, n.URL(), n.as)
	defer end()
	poll(n.t, "the server "+n.name, func(ctx context.Context) error {
		select {
		case <-n.ended:
			text, _ := os.ReadFile(n.log)
			n.t.Fatalf("%s has ended:\n%s", n.name, text[max(0, len(text)-2000):])
		default:
		}
		_, err := js.AccountInfo(ctx)
		return err
	})
}

// Kill ends the server with SIGKILL, and returns when it is gone.
func (n *Node) Kill() {
	n.t.Helper()
	if n.cmd == nil {
		return
	}
	n.signal(syscall.SIGKILL)
	<-n.ended
	n.cmd = nil
}

// Pause stops the server's clock, so to say: it does nothing, and its
// connections stay. Where the system tells, it returns when all threads have
// stopped: until then the server may still answer.
func (n *Node) Pause() {
	n.t.Helper()
	n.signal(syscall.SIGSTOP)
	poll(n.t, "the pause of "+n.name, func(context.Context) error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", n.cmd.Process.Pid))
		if err != nil {
			return err
		}
		for _, thread := range threads {
			// NUMBER (NAME) STATE ...; who has ended meanwhile says nothing.
			text, _ := os.ReadFile(thread)
			if _, rest, ok := bytes.Cut(text, []byte(") ")); ok && rest[0] != 'T' {
				return fmt.Errorf("a thread is in state %c", rest[0])
			}
		}
		return nil
	})
}

// Resume lets a paused server go on.
func (n *Node) Resume() { n.t.Helper(); n.signal(syscall.SIGCONT) }

func (n *Node) signal(s syscall.Signal) {
	n.t.Helper()
	if err := n.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		n.t.Fatalf("%s cannot be sent %s: %v", n.name, s, err)
	}
}

// connect connects as an operator does who waits for a server to come.
func connect(t testing.TB, urls string, as []nats.Option) (_ jetstream.JetStream, end func()) {
	t.Helper()
	options := append([]nats.Option{nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(look), nats.Timeout(time.Second), nats.IgnoreAuthErrorAbort()}, as...)
	conn, err := nats.Connect(urls, options...)
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js, conn.Close
}

// poll asks until it is answered without an error.
func poll(t testing.TB, what string, ask func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for {
		attempt, end := context.WithTimeout(ctx, time.Second)
		err := ask(attempt)
		end()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("%s did not come within %s: %v", what, patience, err)
		}
	}
}
