package jetstream_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/microwall/microwall/bundles/jetstream"
	"github.com/microwall/microwall/policy"
)

func TestConnectWaitsForNobody(t *testing.T) {
	server := serve(t)
	url := server.URL()
	server.Shutdown()
	events := make(chan jetstream.Event, 1000)
	nc, err := jetstream.Connect(t.Context(), url, jetstream.ConnectOptions{Events: func(e jetstream.Event) { events <- e }})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	wantEvent[jetstream.BrokerError](t, events, nil)
	// What is published now does not come out later.
	if err := nc.Publish("later", nil); !errors.Is(err, nats.ErrReconnectBufExceeded) {
		t.Errorf("publishing without a broker: %v", err)
	}

	server = serveAt(t, t.TempDir(), portOf(t, url))
	if e := wantEvent[jetstream.Connected](t, events, nil); e.URL != url {
		t.Errorf("connected to %q, want %q", e.URL, url)
	}
	server.Shutdown()
	wantEvent[jetstream.Disconnected](t, events, nil)
	serveAt(t, t.TempDir(), portOf(t, url))
	wantEvent[jetstream.Connected](t, events, nil)
}

func TestABrokerWithoutTLSIsRefusedWhereTLSIsConfigured(t *testing.T) {
	events := make(chan jetstream.Event, 1000)
	nc, err := jetstream.Connect(t.Context(), serve(t).URL(), jetstream.ConnectOptions{
		TLS:    &tls.Config{MinVersion: tls.VersionTLS13},
		Events: func(e jetstream.Event) { events <- e },
	})
	if err != nil {
		// Refused at once is as good.
		wantKind(t, err, policy.BadRequest, "secure connection not available")
		return
	}
	defer nc.Close()
	wantEvent(t, events, func(e jetstream.BrokerError) bool { return errors.Is(e.Err, nats.ErrSecureConnWanted) })
	if nc.IsConnected() {
		t.Error("connected in plaintext")
	}
}

func TestConnectSaysWhatIsWrong(t *testing.T) {
	// It takes connections and never says a word.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name, url string
		ctx       context.Context
		o         jetstream.ConnectOptions
		kind      policy.Kind
		says      string
	}{
		{"a URL with a password", "nats://user:secret@[::1", t.Context(), jetstream.ConnectOptions{}, policy.BadRequest, "nats://HOST:PORT"},
		{"no patience", "nats://" + silent.Addr().String(), ended, jetstream.ConnectOptions{}, policy.Unavailable, "gave up"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nc, err := jetstream.Connect(tt.ctx, tt.url, tt.o)
			if err == nil {
				nc.Close()
			}
			wantKind(t, err, tt.kind, tt.says)
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("%q tells the password", err)
			}
		})
	}
}

func TestAConnectionLeavesThisMachineByTLSOnly(t *testing.T) {
	for url, safe := range map[string]bool{
		"nats://127.0.0.1:1": true, "127.0.0.1:1": true, "localhost:1": true, "nats://[::1]:1": true, "ws://127.0.0.1:1": true,
		"tls://nats.example:4222": true, "tls://192.0.2.1:4222,tls://192.0.2.2:4222": true, "wss://nats.example:443": true,
		"nats://nats.example:4222": false, "nats.example": false, "192.0.2.1:4222": false, "nats://[2001:db8::1]:4222": false, "ws://nats.example:80": false,
		"nats://127.0.0.1:4222, nats://192.0.2.1:4222": false, "nats://127.0.0.1.example:4222": false,
	} {
		err := jetstream.ConnectOptions{}.Check(url)
		if safe && err != nil {
			t.Errorf("%s: %v", url, err)
		}
		if safe {
			continue
		}
		wantKind(t, err, policy.BadRequest, "without TLS", "tls://HOST:PORT")
		if nc, err := jetstream.Connect(t.Context(), url, jetstream.ConnectOptions{}); err == nil {
			nc.Close()
			t.Errorf("%s: connects", url)
		}
		for name, o := range map[string]jetstream.ConnectOptions{"TLS": {TLS: &tls.Config{MinVersion: tls.VersionTLS12}}, "plaintext allowed": {Plaintext: true}} {
			if err := o.Check(url); err != nil {
				t.Errorf("%s, %s: %v", url, name, err)
			}
		}
	}
}

// A server tells its clients of others, which they may go on with when it is gone.
func TestAServerOnThisMachineLeadsNobodyAwayInPlaintext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.WriteString(conn, `INFO {"server_id":"a","version":"2.15.0","proto":1,"headers":true,"max_payload":1048576,"connect_urls":["192.0.2.1:4222"]}`+"\r\n")
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					if lines.Text() == "PING" {
						_, _ = io.WriteString(conn, "PONG\r\n") // who has gone needs none
					}
				}
			}()
		}
	}()
	for _, plaintext := range []bool{false, true} {
		nc, err := jetstream.Connect(t.Context(), "nats://"+l.Addr().String(), jetstream.ConnectOptions{Plaintext: plaintext})
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if err := nc.FlushTimeout(patience); err != nil {
			t.Fatal(err)
		}
		if led := len(nc.DiscoveredServers()) > 0; led != plaintext {
			t.Errorf("plaintext allowed: %t; it knows of %v", plaintext, nc.Servers())
		}
	}
}

// Somebody on the way says that there is no TLS here.
func TestAServerThatHasNoTLSIsRefusedWhereTheURLAsksForIt(t *testing.T) {
	events := make(chan jetstream.Event, 1000)
	url := strings.Replace(serve(t).URL(), "nats://", "tls://", 1)
	nc, err := jetstream.Connect(t.Context(), url, jetstream.ConnectOptions{Events: func(e jetstream.Event) { events <- e }})
	if err != nil {
		wantKind(t, err, policy.BadRequest, "secure connection not available")
		return
	}
	defer nc.Close()
	wantEvent(t, events, func(e jetstream.BrokerError) bool { return errors.Is(e.Err, nats.ErrSecureConnWanted) })
	if nc.IsConnected() {
		t.Error("connected in plaintext")
	}
}

// Why nobody gets in is told whenever that comes about, not only at the start.
func TestAServerThatComesLaterAndHasNoTLSIsToldOf(t *testing.T) {
	server := serve(t)
	url := server.URL()
	server.Shutdown()
	events := make(chan jetstream.Event, 1000)
	nc, err := jetstream.Connect(t.Context(), strings.Replace(url, "nats://", "tls://", 1), jetstream.ConnectOptions{Events: func(e jetstream.Event) {
		select {
		case events <- e:
		default:
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	wantEvent[jetstream.BrokerError](t, events, nil)
	serveAt(t, t.TempDir(), portOf(t, url))
	e := wantEvent(t, events, func(e jetstream.BrokerError) bool { return errors.Is(e.Err, nats.ErrSecureConnWanted) })
	wantKind(t, e.Err, policy.Unavailable, "has no TLS")
}
