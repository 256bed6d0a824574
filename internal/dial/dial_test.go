package dial_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	"github.com/microwall/microwall/internal/dial"
	"github.com/microwall/microwall/internal/tlsfiles"
	"github.com/microwall/microwall/internal/tlsfiles/tlstest"
	"github.com/microwall/microwall/policy"
)

// pdp is a gRPC server on loopback; it remembers who asked last.
type pdp struct {
	at    string
	stop  func()
	asker string // common name of the last client certificate
}

// serve starts a server; files that are empty make it speak plaintext.
func serve(t *testing.T, address string, files tlsfiles.ServerConfig) *pdp {
	t.Helper()
	p := &pdp{}
	options := []grpc.ServerOption{grpc.UnaryInterceptor(func(ctx context.Context, m any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		p.asker = ""
		if from, ok := peer.FromContext(ctx); ok {
			if info, ok := from.AuthInfo.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
				p.asker = info.State.PeerCertificates[0].Subject.CommonName
			}
		}
		return handle(ctx, m)
	})}
	if files.Cert != "" {
		config, err := tlsfiles.Server(files)
		if err != nil {
			t.Fatal(err)
		}
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server, done := grpc.NewServer(options...), make(chan struct{})
	healthv1.RegisterHealthServer(server, health.NewServer())
	go func() {
		defer close(done)
		if err := server.Serve(l); err != nil {
			t.Error(err)
		}
	}()
	p.at = l.Addr().String()
	p.stop = func() {
		server.Stop()
		<-done
	}
	t.Cleanup(p.stop)
	return p
}

// restart returns when conn has seen that the server went away.
func (p *pdp) restart(t *testing.T, conn *grpc.ClientConn, files tlsfiles.ServerConfig) *pdp {
	t.Helper()
	p.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if conn.GetState() == connectivity.Ready && !conn.WaitForStateChange(ctx, connectivity.Ready) {
		t.Fatal("the connection stands although the server is gone")
	}
	return serve(t, p.at, files)
}

func connection(t *testing.T, c dial.Config) *grpc.ClientConn {
	t.Helper()
	conn, err := dial.Dial(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil && status.Code(err) != codes.Canceled {
			t.Error(err)
		}
	})
	return conn
}

func ask(t *testing.T, conn *grpc.ClientConn, options ...grpc.CallOption) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{}, options...)
	return err
}

func port(address string) string { return address[strings.LastIndexByte(address, ':'):] }

func TestHowAPDPIsReached(t *testing.T) {
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	cert, key := ca.Issue(t, "pdp")
	ownCert, ownKey := ca.Issue(t, "me")
	strangeCert, strangeKey := other.Issue(t, "stranger")
	plain := serve(t, "127.0.0.1:0", tlsfiles.ServerConfig{})
	open := serve(t, "127.0.0.1:0", tlsfiles.ServerConfig{Cert: cert, Key: key})
	mutual := serve(t, "127.0.0.1:0", tlsfiles.ServerConfig{Cert: cert, Key: key, ClientCA: ca.File, RequireClient: true})
	for name, c := range map[string]struct {
		to     *pdp
		config dial.Config
		asker  string
		fails  string // "" answers; "refused" whatever is said
	}{
		"loopback":                           {plain, dial.Config{Server: plain.at}, "", ""},
		"localhost":                          {plain, dial.Config{Server: "localhost" + port(plain.at)}, "", ""},
		"LOCALHOST":                          {plain, dial.Config{Server: "LOCALHOST" + port(plain.at)}, "", ""},
		"plaintext that is allowed":          {plain, dial.Config{Server: plain.at, Plaintext: true}, "", ""},
		"plaintext to a server with TLS":     {open, dial.Config{Server: open.at}, "", "connection"},
		"TLS to a server in plaintext":       {plain, dial.Config{Server: plain.at, CA: ca.File}, "", "first record does not look like a TLS handshake"},
		"TLS":                                {open, dial.Config{Server: open.at, CA: ca.File}, "", ""},
		"TLS to a name":                      {open, dial.Config{Server: "localhost" + port(open.at), CA: ca.File}, "", ""},
		"an address the certificate lacks":   {open, dial.Config{Server: "0.0.0.0" + port(open.at), CA: ca.File}, "", "0.0.0.0"},
		"a server of another authority":      {open, dial.Config{Server: open.at, CA: other.File}, "", "unknown authority"},
		"a server the system does not know":  {open, dial.Config{Server: open.at, Cert: ownCert, CertKey: ownKey}, "", "unknown authority"},
		"no certificate where one is needed": {mutual, dial.Config{Server: mutual.at, CA: ca.File}, "", "refused"},
		"mutual TLS":                         {mutual, dial.Config{Server: mutual.at, CA: ca.File, Cert: ownCert, CertKey: ownKey}, "me", ""},
		"a stranger's certificate":           {mutual, dial.Config{Server: mutual.at, CA: ca.File, Cert: strangeCert, CertKey: strangeKey}, "", "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			err := ask(t, connection(t, c.config))
			switch {
			case c.fails == "" && err != nil:
				t.Error(err)
			case c.fails == "" && c.to.asker != c.asker:
				t.Errorf("the PDP was asked by %q, want %q", c.to.asker, c.asker)
			// In TLS 1.3 a client that is refused may only see the connection close.
			case c.fails == "refused" && status.Code(err) != codes.Unavailable,
				c.fails != "" && c.fails != "refused" && (status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), c.fails)):
				t.Errorf("%v, want %q", err, c.fails)
			}
		})
	}
}

func TestRenewedCertificatesAreUsedByTheNextConnection(t *testing.T) {
	first, second := tlstest.NewCA(t), tlstest.NewCA(t)
	cert, key := first.Issue(t, "pdp")
	ownCert, ownKey := first.Issue(t, "before")
	files := tlsfiles.ServerConfig{Cert: cert, Key: key, ClientCA: first.File, RequireClient: true}
	p := serve(t, "127.0.0.1:0", files)
	conn := connection(t, dial.Config{Server: p.at, CA: first.File, Cert: ownCert, CertKey: ownKey})
	if err := ask(t, conn); err != nil || p.asker != "before" {
		t.Fatalf("asked by %q, %v", p.asker, err)
	}
	// All is new: the authority, the PDP's certificate and the client's.
	raw, err := os.ReadFile(second.File)
	if err != nil {
		t.Fatal(err)
	}
	second.Renew(t, "pdp", cert, key)
	second.Renew(t, "after", ownCert, ownKey)
	tlstest.Replace(t, first.File, raw)
	if err := ask(t, conn); err != nil || p.asker != "before" {
		t.Fatalf("the connection that stood: asked by %q, %v", p.asker, err)
	}
	p = p.restart(t, conn, files)
	if err := ask(t, conn, grpc.WaitForReady(true)); err != nil || p.asker != "after" {
		t.Fatalf("asked by %q, %v", p.asker, err)
	}
	// Files that went bad fail the next connection and say which they are.
	if err := os.Remove(ownKey); err != nil {
		t.Fatal(err)
	}
	p.restart(t, conn, files)
	again := connection(t, dial.Config{Server: p.at, CA: first.File})
	if err := ask(t, again); err == nil {
		t.Error("got in without a certificate")
	}
	if err := failure(t, conn); !strings.Contains(err.Error(), "--cert-key") || !strings.Contains(err.Error(), ownKey) {
		t.Error(err)
	}
	// And are used once they are good.
	second.Renew(t, "mended", ownCert, ownKey)
	if err := ask(t, conn, grpc.WaitForReady(true)); err != nil {
		t.Error(err)
	}
}

// failure waits until the connection cannot be made, and returns why.
func failure(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn.Connect()
	for state := conn.GetState(); state != connectivity.TransientFailure; state = conn.GetState() {
		if !conn.WaitForStateChange(ctx, state) {
			t.Fatalf("the connection is still %v", state)
		}
	}
	return ask(t, conn)
}

func TestAnAddressBeyondLoopbackIsSentNothingInPlaintext(t *testing.T) {
	// 0.0.0.0 is no loopback address, and yet leads to this machine on most
	// systems. What listens is sent a ClientHello (RFC 8446, section 5.1).
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	soon := time.Now().Add(10 * time.Second)
	if err := l.(*net.TCPListener).SetDeadline(soon); err != nil {
		t.Fatal(err)
	}
	address := "0.0.0.0" + port(l.Addr().String())
	if probe, err := net.Dial("tcp", address); err != nil {
		t.Skipf("0.0.0.0 does not lead here: %v", err)
	} else if err := errors.Join(probe.Close(), drop(l)); err != nil {
		t.Fatal(err)
	}
	connection(t, dial.Config{Server: address}).Connect()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if err := peer.SetDeadline(soon); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 1)
	if _, err := peer.Read(first); err != nil || first[0] != 22 {
		t.Errorf("the first byte is %d, %v; a TLS handshake starts with 22", first[0], err)
	}
}

func drop(l net.Listener) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	return conn.Close()
}

func TestALocalhostThatIsSomewhereElseIsNotConnectedTo(t *testing.T) {
	hosts := manual.NewBuilderWithScheme("dns")
	hosts.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: "192.0.2.1:7070"}}}) // TEST-NET-1, RFC 5737
	conn, err := dial.Dial(dial.Config{Server: "localhost:7070"}, grpc.WithResolvers(hosts))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := ask(t, conn); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "192.0.2.1:7070, which is not loopback") {
		t.Error(err)
	}
}

func TestSettingsThatCannotWorkAreRefusedWithTheirFlag(t *testing.T) {
	ca := tlstest.NewCA(t)
	cert, key := ca.Issue(t, "me")
	missing := filepath.Join(t.TempDir(), "missing.pem")
	for name, c := range map[string]struct {
		config dial.Config
		says   []string
	}{
		"no port":                  {dial.Config{Server: "pdp.example"}, []string{"--server", "HOST:PORT"}},
		"an empty port":            {dial.Config{Server: "pdp.example:"}, []string{"--server"}},
		"port 0":                   {dial.Config{Server: "pdp.example:0"}, []string{"--server"}},
		"a port too high":          {dial.Config{Server: "pdp.example:65536"}, []string{"--server"}},
		"a named port":             {dial.Config{Server: "pdp.example:https"}, []string{"--server"}},
		"no host":                  {dial.Config{Server: ":7070"}, []string{"--server"}},
		"a URL":                    {dial.Config{Server: "https://pdp.example:7070"}, []string{"--server", "without a scheme"}},
		"a socket":                 {dial.Config{Server: "unix:///run/pdp"}, []string{"--server", "without a scheme"}},
		"IPv6 without brackets":    {dial.Config{Server: "::1:7070"}, []string{"--server"}},
		"a missing CA":             {dial.Config{CA: missing}, []string{"--ca", missing}},
		"a missing certificate":    {dial.Config{Cert: missing, CertKey: key}, []string{"--cert", missing}},
		"a certificate alone":      {dial.Config{Cert: cert}, []string{"--cert-key"}},
		"a key alone":              {dial.Config{CertKey: key}, []string{"--cert "}},
		"a key of another":         {dial.Config{Cert: cert, CertKey: ca.File}, []string{"--cert-key"}},
		"plaintext and TLS":        {dial.Config{Plaintext: true, CA: ca.File}, []string{"plaintext", "--ca"}},
		"plaintext and mutual TLS": {dial.Config{Plaintext: true, Cert: cert, CertKey: key}, []string{"plaintext", "--cert"}},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := dial.Dial(c.config)
			var known *policy.Error
			if conn != nil || !errors.As(err, &known) || known.Kind != policy.BadRequest {
				t.Fatalf("%v, %v", conn, err)
			}
			for _, text := range c.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%q does not name %q", err, text)
				}
			}
		})
	}
}
