package jetstream_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/internal/natsserver"
	"github.com/microwall/microwall/policy"
)

const (
	domain = "boutique"
	cart   = policy.Namespace("boutique.cart")
	shop   = policy.Namespace("boutique")
)

// TestMain lets the test binary be a NATS server of its own, which can be
// killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("MICROWALL_TEST_STORE"); dir != "" {
		serveAsChild(dir)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serveAsChild runs until its parent, which holds the other end of the input, is gone.
// The parent writes settings, as JSON strings.
func serveAsChild(dir string) {
	var settings string
	in := json.NewDecoder(os.Stdin)
	err := in.Decode(&settings)
	var s *natsserver.Server
	if err == nil {
		s, err = natsserver.Start(context.Background(), natsserver.Config{Port: natsserver.AnyPort, StoreDir: dir, Settings: []byte(settings)})
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println(s.URL())
	for in.Decode(&settings) == nil {
		fmt.Println("reloaded:", s.Reload([]byte(settings)))
	}
}

// child starts a NATS server in a process of its own. kill is SIGKILL, and
// waits until the process is gone.
func child(t *testing.T, dir string) (url string, kill func()) {
	t.Helper()
	url, _, kill = childWith(t, dir, nil)
	return url, kill
}

// childWith is child with settings, and with a function that puts others in force.
func childWith(t *testing.T, dir string, settings []byte) (url string, reload func(settings []byte), kill func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "MICROWALL_TEST_STORE="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(kill)
	said := bufio.NewReader(out)
	say := func(settings []byte, wanted string) string {
		t.Helper()
		defer time.AfterFunc(patience, kill).Stop()
		if err := json.NewEncoder(in).Encode(string(settings)); err != nil {
			t.Fatal(err)
		}
		line, err := said.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, wanted) {
			t.Fatalf("the server process says %q, %v", line, err)
		}
		return strings.TrimSpace(line)
	}
	reload = func(settings []byte) {
		t.Helper()
		say(settings, "reloaded: <nil>")
	}
	return say(settings, "nats://"), reload, kill
}

func serve(t *testing.T) *natsserver.Server {
	t.Helper()
	return serveAt(t, t.TempDir(), natsserver.AnyPort)
}

func serveAt(t *testing.T, dir string, port int) *natsserver.Server {
	t.Helper()
	s, err := natsserver.Start(t.Context(), natsserver.Config{Port: port, StoreDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

func portOf(t *testing.T, natsURL string) int {
	t.Helper()
	u, err := url.Parse(natsURL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func connect(t *testing.T, url string) *nats.Conn {
	t.Helper()
	nc, err := jetstream.Connect(t.Context(), url, jetstream.ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func openStore(t *testing.T, url string) *jetstream.Store {
	t.Helper()
	s, err := jetstream.OpenStore(t.Context(), jetstream.StoreConfig{Conn: connect(t, url), Domain: domain})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// admin is JetStream as an operator, or an attacker inside, has it.
func admin(t *testing.T, url string) js.JetStream {
	t.Helper()
	api, err := js.New(connect(t, url))
	if err != nil {
		t.Fatal(err)
	}
	return api
}

func mustPut(t *testing.T, s *jetstream.Store, ns policy.Namespace, note string, packed []byte, after uint64) uint64 {
	t.Helper()
	seq, err := s.Put(t.Context(), ns, []byte(note), packed, after)
	if err != nil {
		t.Fatalf("put %q after %d: %v", note, after, err)
	}
	return seq
}

// random returns n bytes that no compression makes smaller, and the same ones
// for the same seed.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func wantKind(t *testing.T, err error, kind policy.Kind, says ...string) {
	t.Helper()
	if err == nil || policy.KindOf(err) != kind {
		t.Fatalf("error is %v, want one of kind %v", err, kind)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q does not say %q", err, s)
		}
	}
}

// proxy stands between clients and a server, and can be told to misbehave.
type proxy struct {
	listener net.Listener
	target   string
	muted    atomic.Bool  // drop what the server says
	down     atomic.Bool  // take no new connections
	knocks   atomic.Int64 // connections that were not taken
	// watch is what at, if not nil, is called for when a client says it, before
	// the server hears it; at says whether it does.
	watch string
	at    func() bool
	// alter, if not nil, may change what the server says, but not its length.
	alter atomic.Pointer[func([]byte)]

	mu    sync.Mutex
	conns map[net.Conn]bool
	tasks sync.WaitGroup
}

// aHead begins the command by which a head is published.
const aHead = "HPUB $KV.policy."

func newProxy(t *testing.T, natsURL, watch string, at func() bool) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: strings.TrimPrefix(natsURL, "nats://"), watch: watch, at: at, conns: map[net.Conn]bool{}}
	p.tasks.Go(p.accept)
	t.Cleanup(func() {
		p.down.Store(true)
		l.Close()
		p.cut()
		p.tasks.Wait()
	})
	return p
}

func (p *proxy) url() string { return "nats://" + p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil || p.down.Load() {
			p.knocks.Add(1)
			client.Close()
			if server != nil {
				server.Close()
			}
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[server] = true, true
		p.mu.Unlock()
		done := func() {
			client.Close()
			server.Close()
			p.mu.Lock()
			delete(p.conns, client)
			delete(p.conns, server)
			p.mu.Unlock()
		}
		p.tasks.Go(func() { defer done(); p.up(client, server) })
		p.tasks.Go(func() { defer done(); p.back(server, client) })
	}
}

// up carries what the client says.
func (p *proxy) up(client, server net.Conn) {
	buf := make([]byte, 64<<10)
	var tail []byte // what a match may have begun in
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		seen := append(tail, buf[:n]...)
		tail = nil
		if p.at != nil {
			if !bytes.Contains(seen, []byte(p.watch)) {
				tail = bytes.Clone(seen[max(0, len(seen)-len(p.watch)+1):])
			} else if !p.at() {
				return
			}
		}
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}

// back carries what the server says.
func (p *proxy) back(server, client net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		if p.muted.Load() {
			continue
		}
		if alter := p.alter.Load(); alter != nil {
			(*alter)(buf[:n])
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

// cut closes all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// offer is one call of the callback.
type offer struct {
	ns     policy.Namespace
	note   string
	packed []byte
}

// follow runs a follower. Notes have the form "NAMESPACE NUMBER": the callback
// takes what is newer, and hands what it took to the test.
type follow struct {
	*jetstream.Follower
	offers chan offer
	events chan jetstream.Event
	stop   func() error

	mu   sync.Mutex
	held map[string]int
	// refuse, if not nil, may refuse an offer before it is looked at.
	refuse func(note string) error
}

// errOld is what an older head is refused with.
var errOld = policy.Errorf(policy.Conflict, "old")

func startFollower(t *testing.T, url string, c jetstream.FollowConfig, refuse func(string) error) *follow {
	t.Helper()
	f := &follow{offers: make(chan offer, 1000), events: make(chan jetstream.Event, 100_000), held: map[string]int{}, refuse: refuse}
	if c.Conn == nil {
		c.Conn = connect(t, url)
	}
	if c.As == 0 {
		c.As = jetstream.PDP
	}
	c.Domain = domain
	c.Offer = f.offer
	also := c.Events
	c.Events = func(e jetstream.Event) {
		if also != nil {
			also(e)
		}
		f.events <- e // last: whoever waits for it finds what it has done
	}
	var err error
	if f.Follower, err = jetstream.NewFollower(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	f.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
			t.Errorf("the follower was still running %s after it was stopped", patience)
			return nil
		}
	})
	t.Cleanup(func() { _ = f.stop() })
	return f
}

func (f *follow) offer(ctx context.Context, note []byte, fetch func(context.Context) ([]byte, error)) error {
	if f.refuse != nil {
		if err := f.refuse(string(note)); err != nil {
			return err
		}
	}
	name, number, ok := strings.Cut(string(note), " ")
	n, err := strconv.Atoi(strings.TrimSuffix(number, " retired"))
	if !ok || err != nil {
		return policy.Errorf(policy.Denied, "not signed: %q", note)
	}
	f.mu.Lock()
	held := f.held[name]
	f.mu.Unlock()
	switch {
	case n < held:
		return errOld
	case n == held:
		return nil
	}
	var packed []byte
	if !strings.HasSuffix(number, " retired") {
		if packed, err = fetch(ctx); err != nil {
			// As a careless callback does: the kind gets lost.
			return errors.New("no bundle: " + err.Error())
		}
	}
	f.mu.Lock()
	f.held[name] = n
	f.mu.Unlock()
	f.offers <- offer{policy.Namespace(name), string(note), packed}
	return nil
}

// wantOffer waits for the next offer that is taken.
func (f *follow) wantOffer(t *testing.T, note string, packed []byte) {
	t.Helper()
	select {
	case o := <-f.offers:
		if o.note != note || !bytes.Equal(o.packed, packed) {
			t.Fatalf("offered %q with %d bytes, want %q with %d", o.note, len(o.packed), note, len(packed))
		}
	case <-time.After(patience):
		t.Fatalf("%q was not offered within %s; %s", note, patience, story(drain(f.events)))
	}
}

func (f *follow) wantSynced(t *testing.T) {
	t.Helper()
	select {
	case <-f.Synced():
	case <-time.After(patience):
		t.Fatalf("not synced within %s; %s", patience, story(drain(f.events)))
	}
}

func isSynced(f *follow) bool {
	select {
	case <-f.Synced():
		return true
	default:
		return false
	}
}

func note(ns policy.Namespace, n int) string { return fmt.Sprintf("%s %d", ns, n) }

var errTest = errors.New("made by the test")

// pushed is a message that says of itself, as a hostile broker can, that it is
// stored as the head that it is pushed as.
func pushed(subject string, data []byte) *nats.Msg {
	name := strings.TrimPrefix(subject, "pdp.head.boutique.")
	return &nats.Msg{Subject: subject, Data: data, Header: nats.Header{js.SubjectHeader: {"$KV.policy.boutique." + name + ".head"}}}
}
