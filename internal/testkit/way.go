package testkit

import (
	"bytes"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// Way is how others reach NATS servers: an address for each that leads there, and
// that can be cut.
type Way struct {
	listeners []net.Listener
	tasks     sync.WaitGroup

	mu    sync.Mutex
	cut   bool
	watch []byte
	seen  func()
	conns map[net.Conn]bool
}

// NewWay returns a way to the servers at url, which ends with the test.
func NewWay(t testing.TB, natsURLs string) *Way {
	t.Helper()
	w := &Way{conns: map[net.Conn]bool{}}
	for natsURL := range strings.SplitSeq(natsURLs, ",") {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		w.listeners = append(w.listeners, l)
		u, err := url.Parse(natsURL)
		if err != nil {
			t.Fatal(err)
		}
		target := u.Host
		w.tasks.Go(func() { w.accept(l, target) })
	}
	t.Cleanup(func() {
		for _, l := range w.listeners {
			_ = l.Close()
		}
		w.Cut()
		w.tasks.Wait()
	})
	return w
}

// URL names the addresses, with commas between.
func (w *Way) URL() string {
	var all []string
	for _, l := range w.listeners {
		all = append(all, "nats://"+l.Addr().String())
	}
	return strings.Join(all, ",")
}

// Cut closes all connections, and every new one at once, until Mend.
func (w *Way) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	for c := range w.conns {
		_ = c.Close()
	}
}

// Mend lets connections through again.
func (w *Way) Mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = false
}

// OnSaying has seen called the first time that a client says these bytes,
// before a server hears them; it never does, as that connection is closed then.
func (w *Way) OnSaying(these string, seen func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watch, w.seen = []byte(these), sync.OnceFunc(seen)
}

func (w *Way) accept(l net.Listener, target string) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", target)
		if err != nil {
			_ = client.Close()
			continue
		}
		w.mu.Lock()
		w.conns[client], w.conns[server] = true, true
		cut := w.cut
		w.mu.Unlock()
		done := func() {
			_ = client.Close()
			_ = server.Close()
			w.mu.Lock()
			delete(w.conns, client)
			delete(w.conns, server)
			w.mu.Unlock()
		}
		if cut {
			done()
			continue
		}
		w.tasks.Go(func() { defer done(); w.carry(server, client, true) })
		w.tasks.Go(func() { defer done(); w.carry(client, server, false) })
	}
}

func (w *Way) carry(to, from net.Conn, said bool) {
	buf := make([]byte, 64<<10)
	var tail []byte // what the watched bytes may have begun in
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		w.mu.Lock()
		watch, seen := w.watch, w.seen
		w.mu.Unlock()
		if said && watch != nil {
			text := append(tail, buf[:n]...)
			if bytes.Contains(text, watch) {
				seen()
				return
			}
			tail = bytes.Clone(text[max(0, len(text)-len(watch)+1):])
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
