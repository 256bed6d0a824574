package natsserver_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/microwall/microwall/internal/natsserver"
	"github.com/microwall/microwall/internal/tlsfiles/tlstest"
	"github.com/microwall/microwall/policy"
)

// users are two accounts: one has JetStream.
const users = `
accounts {
  STORE {jetstream: enabled, users: [{user: pdp, password: one}]}
  shop  {users: [{user: client, password: two}]}
}
`

func TestSettingsSayWhoMayDoWhat(t *testing.T) {
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	s := start(t, natsserver.Config{StoreDir: t.TempDir(), Settings: []byte(users + fmt.Sprintf("jetstream {store_dir: %q, sync_interval: 1h}", elsewhere))})
	as := func(user, password string) (*nats.Conn, error) {
		nc, err := nats.Connect(s.URL(), nats.UserInfo(user, password))
		if err == nil {
			t.Cleanup(nc.Close)
		}
		return nc, err
	}
	if _, err := nats.Connect(s.URL()); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("without credentials: %v", err)
	}
	if _, err := as("pdp", "two"); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("with the wrong password: %v", err)
	}
	for user, password := range map[string]string{"pdp": "one", "client": "two"} {
		nc, err := as(user, password)
		if err != nil {
			t.Fatal(err)
		}
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
		if (err == nil) != (user == "pdp") {
			t.Errorf("%s makes a stream: %v", user, err)
		}
	}
	if _, err := os.Stat(elsewhere); err == nil {
		t.Error("the store is where the settings say, not where the lock is")
	}
}

func TestTLSIsInsistedOnWhereTheSettingsHaveIt(t *testing.T) {
	ca := tlstest.NewCA(t)
	cert, key := ca.Issue(t, "nats")
	s := start(t, natsserver.Config{StoreDir: t.TempDir(), Settings: []byte(users + fmt.Sprintf("tls {cert_file: %q, key_file: %q}", cert, key))})
	if !strings.HasPrefix(s.URL(), "tls://") {
		t.Errorf("clients are sent to %s", s.URL())
	}
	user := nats.UserInfo("pdp", "one")
	plain := strings.Replace(s.URL(), "tls://", "nats://", 1)
	if _, err := nats.Connect(plain, user, nats.Secure(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()})); err == nil {
		t.Error("a client believes a server that nobody vouches for")
	}
	nc, err := nats.Connect(s.URL(), user, nats.RootCAs(ca.File))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if state, err := nc.TLSConnectionState(); err != nil || state.Version < tls.VersionTLS12 {
		t.Errorf("speaks %v, %v", state.Version, err)
	}
	// Inside the process there is no network to be afraid of.
	in, err := nats.Connect("", user, nats.InProcessServer(s))
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
}

func TestSettingsThatOpenMoreThanAnAccountAreRefused(t *testing.T) {
	ca := tlstest.NewCA(t)
	cert, key := ca.Issue(t, "nats")
	secure := fmt.Sprintf("tls {cert_file: %q, key_file: %q}\n", cert, key)
	for name, tt := range map[string]struct {
		settings string
		says     []string
	}{
		"no settings":                       {"accounts {", []string{"cannot be used", "nats-config"}},
		"a word that is not known":          {"accounts {A {users: [{user: a, pasword: b}]}}", []string{"pasword"}},
		"a certificate that is not there":   {"tls {cert_file: nowhere.pem, key_file: nowhere.key}", []string{"nowhere"}},
		"a cluster":                         {users + "cluster {name: a, listen: 127.0.0.1:0}", []string{"takes no cluster", "run nats-server"}},
		"a gateway":                         {users + "gateway {name: a, listen: 127.0.0.1:0}", []string{"gateway"}},
		"leaf nodes":                        {users + "leafnodes {listen: 127.0.0.1:7422}", []string{"leafnodes"}},
		"a websocket":                       {users + "websocket {listen: 127.0.0.1:8080, no_tls: true}", []string{"websocket"}},
		"mqtt":                              {users + "mqtt {listen: 127.0.0.1:1883}", []string{"mqtt"}},
		"monitoring":                        {users + "http: 127.0.0.1:8222", []string{"http"}},
		"a profiler":                        {users + "prof_port: 6060", []string{"prof_port"}},
		"a log file":                        {users + "log_file: nats.log", []string{"log_file"}},
		"other machines in plaintext":       {users + "listen: 192.0.2.1:4222", []string{"192.0.2.1", "plaintext", "127.0.0.1"}},
		"other machines, TLS if they like":  {users + secure + "allow_non_tls: true\nlisten: 192.0.2.1:4222", []string{"plaintext"}},
		"other machines without users":      {secure + "listen: 192.0.2.1:4222", []string{"lets everybody in"}},
		"other machines, anonymous":         {users + secure + "no_auth_user: client\nlisten: 192.0.2.1:4222", []string{"no_auth_user"}},
		"all addresses, anonymous":          {users + secure + "no_auth_user: client\nlisten: 0.0.0.0:4222", []string{"0.0.0.0"}},
		"other machines, no password":       {secure + "authorization {users: [{user: a}]}\nlisten: 192.0.2.1:4222", []string{"without a password"}},
		"a name that may be anybody's":      {users + "listen: nats.example.com:4222", []string{"nats.example.com"}},
		"other machines, TLS and all users": {users + secure + "listen: 192.0.2.1:4222", []string{"cannot listen on 192.0.2.1"}}, // taken, but no address of this machine
	} {
		t.Run(name, func(t *testing.T) {
			s, err := natsserver.Start(t.Context(), natsserver.Config{StoreDir: t.TempDir(), Settings: []byte(tt.settings)})
			if err == nil {
				s.Shutdown()
				t.Fatal("started")
			}
			if kind := policy.KindOf(err); kind != policy.BadRequest && kind != policy.Unavailable {
				t.Errorf("kind is %v", kind)
			}
			for _, want := range tt.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

// Whoever connects can have nats-server write an error for each message.
func TestNobodyFillsTheLog(t *testing.T) {
	var lines, bytes atomic.Int64
	s := start(t, natsserver.Config{
		StoreDir: t.TempDir(), Settings: []byte(`authorization {users: [{user: a, password: a, permissions: {publish: ok}}]}`),
		Log: func(_ slog.Level, text string) { lines.Add(1); bytes.Add(int64(len(text))) },
	})
	nc, err := nats.Connect(s.URL(), nats.UserInfo("a", "a"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	subject := "forbidden." + strings.Repeat("a", 3000)
	for range 5000 {
		if err := nc.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, size := lines.Load(), bytes.Load(); n < 50 || n > 1000 || size > 1100*n {
		t.Errorf("%d lines of %d bytes", n, size)
	}
}
