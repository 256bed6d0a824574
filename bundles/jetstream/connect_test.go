package jetstream_test

import (
	"context"
	"crypto/tls"
	"errors"
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
